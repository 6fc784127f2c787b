//! Which tokens merging can make from their own bytes: the others are reached by whole pre-tokens alone, or never.

use super::{Base, Vocabulary};
use crate::merge::{MergeTable, Merger};
use crate::token::TokenId;

impl Vocabulary {
    /// The ordinary tokens that merging does not make, in the order of their ids.
    pub fn unreached(&self) -> Vec<TokenId> {
        let ranks = MergeTable::new(&self.merges);
        let mut merger = Merger::default();
        let mut symbols = Vec::new();
        let mut unreached = Vec::new();
        for (id, token) in self.tokens.iter() {
            if self.base_symbols(token, &mut symbols) {
                merger.merge(&mut symbols, &ranks);
            }
            if symbols != [id] {
                unreached.push(id);
            }
        }
        unreached
    }

    /// Puts the base symbols of a token into `symbols`; false, and none, when it cannot be spelled.
    fn base_symbols(&self, token: &[u8], symbols: &mut Vec<TokenId>) -> bool {
        symbols.clear();
        match &self.base {
            Base::Bytes(ids) => symbols.extend(token.iter().map(|&byte| ids[byte as usize])),
            Base::Chars(chars) => {
                for character in String::from_utf8_lossy(token).chars() {
                    let Ok(place) = chars.binary_search_by_key(&character, |&(own, _)| own) else {
                        symbols.clear();
                        return false;
                    };
                    symbols.push(chars[place].1);
                }
            }
        }
        true
    }
}
