//! A user's regular expression, the slow twin: the whole text in characters, one match after the other.

use fancy_regex::{Error, Regex};

/// Where the pre-tokens of a text end that `regex` splits: at both ends of each of its matches, and at the text's end. A
/// byte that is not part of valid UTF-8 is the character U+FFFD.
pub fn ends(regex: &Regex, text: &[u8]) -> Result<Vec<usize>, Box<Error>> {
    let mut seen = String::new();
    let mut place_of = vec![Some(0)]; // in `text`, of each byte of `seen` that begins a character, and of its end
    for chunk in text.utf8_chunks() {
        let valid = chunk.valid().chars().map(|char| (char, char.len_utf8()));
        for (char, n_bytes) in valid.chain(chunk.invalid().iter().map(|_| ('\u{FFFD}', 1))) {
            let end = place_of[seen.len()].expect("a character's start") + n_bytes;
            seen.push(char);
            place_of.resize(seen.len(), None);
            place_of.push(Some(end));
        }
    }
    let mut ends = vec![0, text.len()];
    let mut at = 0;
    while let Some(found) = regex.find_from_pos(&seen, at)? {
        let both = [found.start(), found.end()].map(|place| place_of[place].expect("a character's start"));
        ends.extend(both);
        at = if found.end() > found.start() { found.end() } else { found.end() + 1 };
        while at < seen.len() && place_of[at].is_none() {
            at += 1;
        }
        if at > seen.len() {
            break;
        }
    }
    ends.sort_unstable();
    ends.dedup();
    ends.remove(0);
    Ok(ends)
}
