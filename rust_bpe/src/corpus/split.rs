//! Which documents are for training and which for validation.

use super::Corpus;
use super::block::{Block, Piece};
use super::input::{Side, character_start};
use super::survey::Survey;
use crate::error::{Error, Result};

/// How the caller wants the documents split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitMethod {
    /// No validation, or inputs of its own.
    None,
    /// By the document's number.
    Hash,
    /// The last bytes of all text.
    Tail,
    /// Hash where it gives validation at least one document and half of the wanted bytes, else tail.
    Auto,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SplitRequest {
    pub method: SplitMethod,
    /// The part of the text that is for validation, 0 to 1 (both excluded); without meaning for [`SplitMethod::None`].
    pub fraction: f64,
    pub seed: u64,
}

impl SplitRequest {
    /// Whether the hash puts a document into validation.
    pub(super) fn hash_takes(&self, document: u64) -> bool {
        // 53 bits, so that every value is a float exactly.
        let uniform = (mix(document.wrapping_add(mix(self.seed))) >> 11) as f64 / (1u64 << 53) as f64;
        uniform < self.fraction
    }
}

/// The split that was chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Split {
    /// All documents are for training, apart from inputs that are validation as a whole.
    None,
    Hash(SplitRequest),
    /// Validation begins at this byte of all text (documents' bytes, empty and dropped ones none).
    Tail {
        begin: u64,
    },
}

impl Split {
    /// The method's name in dataset.json.
    pub fn name(&self) -> &'static str {
        match self {
            Split::None => "none",
            Split::Hash(_) => "hash",
            Split::Tail { .. } => "tail",
        }
    }

    /// Decides what `request` leaves open.
    ///
    /// # Errors
    /// [`Error::Setting`] when the split would leave one side without text.
    pub fn choose(request: &SplitRequest, survey: &Survey) -> Result<Split> {
        let totals = &survey.totals;
        let wanted = (request.fraction * totals.text_bytes as f64).floor() as u64;
        let hash_works = totals.n_hash_val > 0 && totals.n_hash_val < totals.n_documents;
        match request.method {
            SplitMethod::None => Ok(Split::None),
            SplitMethod::Auto if hash_works && totals.hash_val_bytes as f64 >= wanted as f64 / 2.0 => {
                Ok(Split::Hash(*request))
            }
            SplitMethod::Hash if hash_works => Ok(Split::Hash(*request)),
            SplitMethod::Hash => Err(Error::Setting(format!(
                "--split hash gives {} of {} documents to validation: expected some for each side; use --split tail, \
                 another --val-fraction, or --val-fraction 0 for none",
                totals.n_hash_val, totals.n_documents
            ))),
            SplitMethod::Auto | SplitMethod::Tail => {
                let begin = survey.agreed_place(totals.text_bytes - wanted);
                if 0 < begin && begin < totals.text_bytes {
                    return Ok(Split::Tail { begin });
                }
                Err(Error::Setting(format!(
                    "--val-fraction {} of {} bytes of text leaves one side without text: give another, or 0 for none",
                    request.fraction, totals.text_bytes
                )))
            }
        }
    }
}

/// What one half of the dataset gets of a document in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'b> {
    pub side: Side,
    pub text: &'b [u8],
    /// Whether the document ends here, for this side.
    pub ends: bool,
    /// The document's number in the corpus, empty ones included, and how many of its bytes stand before this part.
    pub document: u64,
    pub offset: u64,
}

impl Survey {
    /// Visits what each side gets of a block, in order; empty and dropped documents are left out.
    pub fn parts(
        &self,
        corpus: &Corpus,
        split: &Split,
        block: &Block,
        mut visit: impl FnMut(Part) -> Result<()>,
    ) -> Result<()> {
        let only = corpus.inputs[block.input].side;
        let mut position = self.text_before(block.index);
        block.pieces(corpus, |piece| {
            let is_empty = piece.is_empty_document();
            let Piece { document, offset, text, ends, .. } = piece;
            if is_empty || self.is_dropped(document) {
                return Ok(());
            }
            let whole = |side| Part { side, text, ends, document, offset };
            let start = position;
            if only == Side::Train {
                position += text.len() as u64; // text that is validation by itself has no place in the split
            }
            match split {
                _ if only == Side::Val => visit(whole(Side::Val)),
                Split::None => visit(whole(Side::Train)),
                Split::Hash(request) if request.hash_takes(document) => visit(whole(Side::Val)),
                Split::Hash(_) => visit(whole(Side::Train)),
                Split::Tail { begin } if position <= *begin => {
                    visit(Part { ends: ends || position == *begin, ..whole(Side::Train) })
                }
                Split::Tail { begin } => {
                    let cut = match begin.checked_sub(start) {
                        Some(cut) => character_start(text, cut as usize),
                        None => 0,
                    };
                    let (train, val) = text.split_at(cut);
                    if cut > 0 {
                        visit(Part { text: train, ends: true, ..whole(Side::Train) })?;
                    }
                    visit(Part { text: val, offset: offset + cut as u64, ..whole(Side::Val) })
                }
            }
        })
    }
}

/// splitmix64's finaliser (Steele, Lea and Flood 2014): every bit of a number reaches every bit of the result.
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}
