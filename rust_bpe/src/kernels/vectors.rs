//! Kernels compiled for AVX2 and for AVX-512: eight and sixteen numbers an instruction, with the same results.
//!
//! Attention with AVX-512 for AVX2, both passes, float32 (Intel Xeon): 12 x 64 positions, 4 heads of 32: 2.3 to 1.6 ms; 2 x 512,
//! 8 heads of 64: 36 to 22. In bfloat16 2.6 to 1.6, and 36 to 21. A third of it is two tiles of a product at a time, memory
//! that begins with a line of the cache a twentieth. Lost: tiles of eight rows, whose eight places leave no register free.

#![allow(unsafe_code)] // calls of functions compiled for a processor that was asked; a quarter of the time

use super::Kernel;
use crate::processor::{Avx2, Avx512};

/// [`Kernel::run`].
pub(super) fn run_avx2<K: Kernel>(_: Avx2, kernel: K) {
    // SAFETY: an `Avx2` exists only where the processor was found to have what this is compiled for.
    unsafe { enter_avx2(kernel) }
}

/// [`Kernel::run`].
pub(super) fn run_avx512<K: Kernel>(_: Avx512, kernel: K) {
    // SAFETY: an `Avx512` exists only where the processor was found to have what this is compiled for.
    unsafe { enter_avx512(kernel) }
}

#[target_feature(enable = "avx2,fma")]
fn enter_avx2<K: Kernel>(kernel: K) {
    kernel.run::<false>();
}

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
fn enter_avx512<K: Kernel>(kernel: K) {
    kernel.run::<true>();
}
