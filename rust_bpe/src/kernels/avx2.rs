//! Kernels compiled for AVX2, eight numbers an instruction.

#![allow(unsafe_code)] // a call of a function compiled for a processor that was asked; a quarter of the time

use super::Kernel;
use crate::processor::Avx2;

/// [`Kernel::run`].
pub(super) fn run<K: Kernel>(_: Avx2, kernel: K) {
    // SAFETY: an `Avx2` exists only where the processor was found to have what this is compiled for.
    unsafe { enter(kernel) }
}

#[target_feature(enable = "avx2,fma")]
fn enter<K: Kernel>(kernel: K) {
    kernel.run();
}
