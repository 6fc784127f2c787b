//! The rows compiled for AVX2, eight numbers an instruction.

#![allow(unsafe_code)] // a call of a function compiled for a processor that was asked; a quarter of the time

use super::{Logit, Part, Shape};
use crate::processor::Avx2;

/// [`super::each_row_of`].
pub(super) fn each_row<T: Logit>(_: Avx2, part: Part<T>, shape: Shape, gradient: bool) {
    // SAFETY: an `Avx2` exists only where the processor was found to have what this is compiled for.
    unsafe { enter(part, shape, gradient) }
}

#[target_feature(enable = "avx2,fma")]
fn enter<T: Logit>(part: Part<T>, shape: Shape, gradient: bool) {
    super::each_row_of(part, shape, gradient);
}
