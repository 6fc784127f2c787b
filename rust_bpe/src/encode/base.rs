//! From text to base symbols: the id of each byte, or of each character.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::merge::Symbols;
use crate::token::TokenId;
use crate::vocabulary::{Base, Vocabulary};

/// The ids of base symbols, ready to be looked up.
#[derive(Debug)]
pub(super) enum BaseTable {
    Bytes(Box<[TokenId; 256]>),
    Chars(CharTable),
}

/// Ids by character, in pages of 256 code points of which most are absent.
#[derive(Debug)]
pub(super) struct CharTable {
    pages: Vec<Option<Box<[TokenId; 256]>>>,
    unknown: Option<TokenId>,
}

const NO_ID: TokenId = TokenId::MAX;

impl BaseTable {
    pub fn new(base: &Base, unknown: Option<TokenId>) -> Self {
        match base {
            Base::Bytes(ids) => BaseTable::Bytes(ids.clone()),
            Base::Chars(chars) => {
                let mut pages = vec![None; (char::MAX as usize >> 8) + 1];
                for &(character, id) in chars {
                    let page = &mut pages[character as usize >> 8];
                    page.get_or_insert_with(|| Box::new([NO_ID; 256]))[character as usize & 255] = id;
                }
                BaseTable::Chars(CharTable { pages, unknown })
            }
        }
    }

    /// Over characters refuses text that is not UTF-8.
    pub fn check(&self, text: &[u8]) -> Result<()> {
        match self {
            BaseTable::Bytes(_) => Ok(()),
            BaseTable::Chars(_) => utf8(text).map(|_| ()),
        }
    }

    /// Calls `visit` for the symbols of `text` in order.
    #[inline]
    pub fn each_symbol(&self, text: &[u8], mut visit: impl FnMut(TokenId)) -> Result<()> {
        match self {
            BaseTable::Bytes(ids) => text.iter().for_each(|&byte| visit(ids[byte as usize])),
            BaseTable::Chars(table) => {
                for (position, character) in utf8(text)?.char_indices() {
                    visit(table.id_of(character).ok_or_else(|| unknown(character, position))?);
                }
            }
        }
        Ok(())
    }

    /// The symbols of a long pre-token.
    pub fn symbols<'t>(&'t self, text: &'t [u8], vocabulary: &'t Vocabulary) -> Result<LongText<'t>> {
        let source = match self {
            BaseTable::Bytes(ids) => Source::Bytes(ids, text),
            BaseTable::Chars(_) => {
                let mut symbols = Vec::new();
                self.each_symbol(text, |id| symbols.push(id))?;
                Source::Symbols(symbols)
            }
        };
        Ok(LongText { source, vocabulary })
    }
}

impl CharTable {
    fn id_of(&self, character: char) -> Option<TokenId> {
        let page = self.pages[character as usize >> 8].as_ref();
        page.map(|page| page[character as usize & 255]).filter(|&id| id != NO_ID).or(self.unknown)
    }
}

/// A pre-token as the symbols that merging in pieces asks for.
pub(super) struct LongText<'t> {
    source: Source<'t>,
    vocabulary: &'t Vocabulary,
}

enum Source<'t> {
    Bytes(&'t [TokenId; 256], &'t [u8]),
    Symbols(Vec<TokenId>),
}

impl Symbols for LongText<'_> {
    fn len(&self) -> usize {
        match &self.source {
            Source::Bytes(_, text) => text.len(),
            Source::Symbols(symbols) => symbols.len(),
        }
    }

    fn copy(&self, range: Range<usize>, out: &mut Vec<TokenId>) {
        out.clear();
        match &self.source {
            Source::Bytes(ids, text) => out.extend(text[range].iter().map(|&byte| ids[byte as usize])),
            Source::Symbols(symbols) => out.extend_from_slice(&symbols[range]),
        }
    }

    fn n_symbols(&self, token: TokenId) -> usize {
        let string = self.vocabulary.token_bytes(token).unwrap_or_default();
        match self.source {
            Source::Bytes(..) => string.len(),
            // `<unk>` stands for one character whatever its own string is.
            Source::Symbols(_) if self.vocabulary.unknown_id() == Some(token) => 1,
            Source::Symbols(_) => String::from_utf8_lossy(string).chars().count(),
        }
    }
}

/// The start of the last character of `text`, which what follows may still complete; `text.len()` after ASCII.
pub(super) fn last_character_start(text: &[u8]) -> usize {
    match text.iter().rposition(|&byte| byte & 0xC0 != 0x80) {
        Some(start) if text[start] >= 0xC0 => start,
        Some(_) => text.len(),
        None => 0,
    }
}

fn utf8(text: &[u8]) -> Result<&str> {
    str::from_utf8(text).map_err(|error| Error::Text {
        position: error.valid_up_to() as u64,
        message: "not UTF-8, and a vocabulary of characters takes nothing else".to_owned(),
    })
}

fn unknown(character: char, position: usize) -> Error {
    Error::Text {
        position: position as u64,
        message: format!(
            "character {character:?} has no token: it was not in the text that the vocabulary was made from"
        ),
    }
}
