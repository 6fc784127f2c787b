//! The one error type: lower case, with the value found and the limit it broke.

use std::path::PathBuf;

pub type Result<T> = std::result::Result<T, Error>;

/// Everything that input, files or settings can do wrong. No input makes this crate panic.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("{path}: {source}", path = path.display())]
    Io { path: PathBuf, source: std::io::Error },

    /// A setting that cannot be: the message names it, its value and what is allowed.
    #[error("{0}")]
    Setting(String),

    /// A damaged or hostile file: where, what was expected, what was found.
    #[error("{path}: {message}", path = path.display())]
    Format { path: PathBuf, message: String },

    /// Text that an encoder or a format refuses; `position` counts bytes from the start of the document.
    #[error("{message}, at byte {position}")]
    Text { position: u64, message: String },

    #[error(
        "a pre-token of more than {limit} bytes begins at byte {position}: split the text there, or choose another --pattern",
        limit = crate::token::MAX_PRETOKEN_BYTES
    )]
    PreTokenTooLong { position: u64 },

    #[error("id {id} is not in the vocabulary (0 to {largest})")]
    UnknownId { id: u64, largest: u32 },

    /// The caller asked to stop (Ctrl-C); nothing is left half-written.
    #[error("stopped")]
    Cancelled,
}

impl Error {
    /// The same, when the text that the position counts in begins `offset` bytes into what the caller knows.
    pub(crate) fn moved(self, offset: u64) -> Self {
        match self {
            Error::Text { position, message } => Error::Text { position: position + offset, message },
            Error::PreTokenTooLong { position } => Error::PreTokenTooLong { position: position + offset },
            other => other,
        }
    }
}
