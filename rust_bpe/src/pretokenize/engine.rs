//! How named patterns are scanned: by masks of 64 bytes, with AVX-512, AVX2 or neither, or character by character.

use super::blocks::{self, Scanner};
use super::portable::Portable;
use super::{PRETOKEN_BATCH, check_length};
use crate::error::Result;
#[cfg(target_arch = "x86_64")]
use crate::processor::{Avx2, Avx512};

/// All give the same boundaries; [`Engine::Scalar`] is the slow twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Scalar,
    Portable,
    /// On a processor without AVX2, [`Engine::Portable`].
    Avx2,
    /// On a processor without AVX-512, [`Engine::Avx2`].
    Avx512,
}

impl Engine {
    /// The slow twin first.
    pub const ALL: [Engine; 4] = [Engine::Scalar, Engine::Portable, Engine::Avx2, Engine::Avx512];

    /// The fastest that this processor has.
    pub fn best() -> Self {
        Engine::Avx512
    }

    #[inline]
    pub(super) fn fill<S: Scanner>(self, text: &[u8], start: usize, ends: &mut Vec<usize>) -> Result<()> {
        match self {
            Engine::Scalar => walk::<S>(text, start, ends),
            #[cfg(target_arch = "x86_64")]
            Engine::Avx512 if let Some(avx512) = Avx512::detect() => avx512.fill::<S>(text, start, ends),
            #[cfg(target_arch = "x86_64")]
            Engine::Avx2 | Engine::Avx512 if let Some(avx2) = Avx2::detect() => avx2.fill::<S>(text, start, ends),
            _ => blocks::fill::<S>(Portable, text, start, ends),
        }
    }
}

fn walk<S: Scanner>(text: &[u8], start: usize, ends: &mut Vec<usize>) -> Result<()> {
    ends.clear();
    let mut at = start;
    while at < text.len() && ends.len() < PRETOKEN_BATCH {
        let end = S::next(text, at);
        check_length(at, end)?;
        ends.push(end);
        at = end;
    }
    Ok(())
}
