//! The two files of GPT-2: `encoder.json` or `vocab.json` (tokens to ids) and `vocab.bpe` or `merges.txt` (merges).

use std::path::Path;

use super::huggingface::{merges, read_token};
use super::json::{Entries, Pairs};
use super::table::TokenTable;
use super::{Base, END_OF_TEXT, Parts, Vocabulary, damaged, read_file};
use crate::error::{Error, Result};
use crate::pretokenize::Pattern;

impl Vocabulary {
    /// Reads GPT-2's two files. The pattern is GPT-2's.
    ///
    /// `specials` are strings of the vocabulary that are special tokens; by default `<|endoftext|>` where it is one.
    /// Errors: [`Error::Format`] for a damaged file, with the line of a merge.
    pub fn from_gpt2(vocab: &Path, merges: &Path, specials: Option<&[String]>) -> Result<Self> {
        Self::from_gpt2_bytes(&read_file(vocab)?, vocab, &read_file(merges)?, merges, specials)
    }

    /// Reads the bytes of the two files; the paths are for messages alone.
    pub fn from_gpt2_bytes(
        vocab: &[u8],
        vocab_path: &Path,
        merges: &[u8],
        merges_path: &Path,
        specials: Option<&[String]>,
    ) -> Result<Self> {
        let entries: Entries = serde_json::from_slice(vocab)
            .map_err(|error| damaged(vocab_path, format!("not an object of tokens to ids: {error}")))?;
        let pairs = read_merges(merges).map_err(|message| damaged(merges_path, message))?;
        parse(&entries, &pairs, specials).map_err(|message| damaged(vocab_path, message))
    }

    /// The bytes of the two files, `vocab.json` and `merges.txt`. Special tokens stand in the first.
    ///
    /// [`Error::Setting`] when GPT-2's own code would give other ids: for another pattern, for characters as base
    /// symbols, and for tokens that only whole pre-tokens reach.
    pub fn to_gpt2(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        if self.pattern != Pattern::Gpt2 {
            let name = self.pattern.name();
            return Err(Error::Setting(format!("the files of GPT-2 have GPT-2's pattern, and this one is {name:?}")));
        }
        if !matches!(self.base, Base::Bytes(_)) {
            return Err(Error::Setting(
                "the files of GPT-2 hold tokens over bytes, and these are over characters".to_owned(),
            ));
        }
        let n_unreached = if self.ignore_merges { self.unreached().len() } else { 0 };
        if n_unreached > 0 {
            return Err(Error::Setting(format!(
                "{n_unreached} tokens are reached by no merge, and the files of GPT-2 know no other way"
            )));
        }
        let mut vocab = self.vocab_json();
        vocab.push(b'\n');
        let mut merges = String::from("#version: 0.2\n");
        let written = |id| self.tokens.get(id).map(|token| self.written(token)).unwrap_or_default();
        for merge in &self.merges {
            merges.push_str(&format!("{} {}\n", written(merge.left), written(merge.right)));
        }
        Ok((vocab, merges.into_bytes()))
    }
}

fn read_merges(file: &[u8]) -> std::result::Result<Pairs, String> {
    let text = str::from_utf8(file).map_err(|error| format!("not UTF-8 at byte {}", error.valid_up_to()))?;
    let mut pairs = Pairs::default();
    for (number, line) in (1..).zip(text.lines()) {
        // The version is a comment on the first line alone: "#version" could begin a merge further down.
        if line.is_empty() || (number == 1 && line.starts_with("#version")) {
            continue;
        }
        pairs.push_line(line).map_err(|message| format!("line {number}: {message}"))?;
    }
    Ok(pairs)
}

fn parse(entries: &Entries, pairs: &Pairs, specials: Option<&[String]>) -> std::result::Result<Vocabulary, String> {
    let is_special = |string: &str| match specials {
        Some(specials) => specials.iter().any(|special| special == string),
        None => string == END_OF_TEXT,
    };
    let mut tokens = TokenTable::default();
    let mut found = Vec::new();
    let mut bytes = Vec::new();
    for (string, id) in entries.iter() {
        if is_special(string) {
            found.push((string.to_owned(), id));
        } else {
            read_token(string, true, &mut bytes)?;
            tokens.insert(id, &bytes)?;
        }
    }
    if let Some(missing) =
        specials.unwrap_or_default().iter().find(|special| !found.iter().any(|(own, _)| own == *special))
    {
        return Err(format!("special token {missing:?} is not in the vocabulary"));
    }
    let merges = merges(pairs, &tokens, true)?;
    Vocabulary::checked(Parts {
        tokens,
        over_bytes: true,
        merges,
        specials: found,
        unknown: None,
        pattern: Pattern::Gpt2,
        ignore_merges: false,
    })
}
