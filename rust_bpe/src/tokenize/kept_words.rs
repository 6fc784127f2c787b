//! The words that a job knew at its end, for the next job with the same vocabulary.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::side::Files;
use crate::encode::KnownWords;
use crate::error::Result;
use crate::vocabulary::Vocabulary;

/// Where they are kept, beside the tokenizer.json that the job wrote.
pub const WORDS_FILE: &str = "tokenizer.words";

/// A [`WORDS_FILE`] beside a vocabulary, and what it holds.
pub(super) struct KeptWords {
    path: PathBuf,
    pub words: Arc<KnownWords>,
}

impl KeptWords {
    /// None where it cannot be read, or is another vocabulary's.
    pub fn read(path: &Path, vocabulary_sha256: &[u8; 32], vocabulary: &Vocabulary) -> Option<Self> {
        let path = path.canonicalize().ok()?;
        let file = File::open(&path).ok()?;
        let size_bytes = file.metadata().ok()?.len();
        let words = KnownWords::read(file, size_bytes, vocabulary_sha256, vocabulary.largest_id())?;
        Some(Self { path, words: Arc::new(words) })
    }

    /// Gives the file a second name among `files`, where there is none. False where it cannot have one, on another disk for
    /// instance.
    fn link(&self, files: &Files) -> bool {
        std::fs::hard_link(&self.path, files.folder.join(WORDS_FILE)).is_ok()
    }
}

/// Keeps what a job `learned`, in parts, among `files`; where that is nothing, what it `began` with, by a link where that was
/// `kept`.
pub(super) fn keep(
    learned: &[KnownWords],
    began: &KnownWords,
    kept: Option<&KeptWords>,
    vocabulary_sha256: &[u8; 32],
    files: &Files,
    n_threads: usize,
) -> Result<()> {
    let is_kept = learned.is_empty() && kept.is_some_and(|kept| kept.link(files));
    let known = if learned.is_empty() { std::slice::from_ref(began) } else { learned };
    if is_kept || known.iter().all(KnownWords::is_empty) {
        return Ok(());
    }
    let file = files.create(WORDS_FILE)?;
    let put = |bytes: &[u8], offset| file.write_all_at(bytes, offset);
    KnownWords::write(known, vocabulary_sha256, n_threads, put).map_err(files.in_path(WORDS_FILE))
}
