//! Whole documents in memory: for samples of a corpus, whose limits bound what is held.

use super::{Block, Corpus, Pass};
use crate::error::Result;
use crate::monitor::Monitor;

impl Corpus {
    /// The documents that are not empty, in order, as they stand in the inputs; special tokens inside them included.
    ///
    /// Errors: as [`Corpus::each_block`].
    pub fn documents(&self, monitor: &Monitor) -> Result<Vec<Vec<u8>>> {
        let gather = |documents: &mut Gathered, block: &mut Block| {
            block.pieces(self, |piece| {
                documents.unfinished.extend_from_slice(piece.text);
                if piece.ends && !documents.unfinished.is_empty() {
                    documents.whole.push(std::mem::take(&mut documents.unfinished));
                }
                Ok(())
            })
        };
        let (states, _) = self.each_block(Pass::First, 1, monitor, Gathered::default, gather)?;
        Ok(states.into_iter().flat_map(|state| state.whole).collect())
    }
}

#[derive(Default)]
struct Gathered {
    whole: Vec<Vec<u8>>,
    unfinished: Vec<u8>,
}
