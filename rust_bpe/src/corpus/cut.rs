//! Where a document that is larger than a block may be cut, so that both sides give the ids of the whole.

use crate::pretokenize::Pattern;

/// What a cut must not divide.
#[derive(Clone, Debug, PartialEq)]
pub enum Cut {
    /// Characters: for vocabularies without merges.
    Characters,
    /// Pre-tokens of a pattern.
    Pretokens(Pattern),
}

impl Cut {
    /// The last place in `text`, not 0, where it may be cut, whatever stands before and after; None without one.
    pub fn last(&self, text: &[u8]) -> Option<usize> {
        let mut end = text.len();
        loop {
            let place = match self {
                Cut::Characters => end.checked_sub(1).filter(|&place| place > 0),
                Cut::Pretokens(pattern) => pattern.safe_cut(&text[..end]),
            }?;
            if is_between_characters(text, place) {
                return Some(place);
            }
            end = if self == &Cut::Characters { place } else { place - 1 };
        }
    }

    /// Whether a document can only be taken whole.
    pub fn takes_whole_documents(&self) -> bool {
        matches!(self, Cut::Pretokens(Pattern::None | Pattern::Regex(_)))
    }
}

/// Whether a character starts at `place`, or certainly none reaches over it (three continuation bytes stand before it):
/// a split that moves back to a character's start then never has to look behind the cut.
fn is_between_characters(text: &[u8], place: usize) -> bool {
    let is_continuation = |byte: &u8| byte & 0xC0 == 0x80;
    match text.get(place) {
        Some(byte) if !is_continuation(byte) => true,
        _ => place >= 3 && text[place - 3..place].iter().all(is_continuation),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_never_divided() {
        let text = "aé€😀z".as_bytes();
        for end in 1..=text.len() {
            match Cut::Characters.last(&text[..end]) {
                Some(place) => assert!(std::str::from_utf8(&text[..place]).is_ok() && place < end),
                None => assert!(end <= 1 || std::str::from_utf8(&text[1..end]).is_err() || end == 1),
            }
        }
    }

    #[test]
    fn bytes_that_are_no_characters_can_be_cut_too() {
        assert_eq!(Cut::Characters.last(&[0x80; 100]), Some(99));
        assert_eq!(Cut::Characters.last(&[0x80; 3]), None);
    }
}
