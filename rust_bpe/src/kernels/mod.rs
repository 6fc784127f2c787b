//! What a training on a CPU computes here and not in torch: the loss head's rows, attention, and what stands between the
//! products of a block.
//!
//! It stands here because this is the native code that the package has. torch does each in a dozen operations, every one of
//! which walks over the whole batch; a kernel does it at once for what is in a cache. torch's way is the twin in tests.

pub mod activations;
pub mod attention;
mod lanes;
pub mod logits;
pub mod norm;
pub mod number;
pub mod openmp;
pub mod rows;
#[cfg(target_arch = "x86_64")]
mod vectors;

use std::sync::{Mutex, PoisonError};

use crate::parallel;
use crate::processor::Avx2;
#[cfg(target_arch = "x86_64")]
use crate::processor::Avx512;

/// A part of some work, to be compiled for a processor.
trait Kernel: Send {
    /// Inlined with all that it calls: only so is it compiled for the processor of the caller. `WIDE` is for registers of
    /// sixteen numbers.
    fn run<const WIDE: bool>(self);
}

/// Whether kernels are the fast way here: multiplying and adding is one instruction.
pub fn are_fast() -> bool {
    cfg!(target_arch = "aarch64") || Avx2::detect().is_some()
}

/// Runs each of `kernels`, in any order, on as many threads.
fn run_all<K: Kernel>(kernels: impl Iterator<Item = K>) {
    let run = |kernel: K| {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx512) = Avx512::detect() {
            return vectors::run_avx512(avx512, kernel);
        } else if let Some(avx2) = Avx2::detect() {
            return vectors::run_avx2(avx2, kernel);
        }
        kernel.run::<false>();
    };
    let kernels: Vec<K> = kernels.collect();
    let n_threads = kernels.len();
    if n_threads < 2 {
        return kernels.into_iter().for_each(run);
    }
    let left = Mutex::new(kernels.into_iter());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    let some = || {
        while let Some(kernel) = next() {
            run(kernel);
        }
    };
    if !openmp::run(n_threads, &some) {
        parallel::map(0..n_threads, |_| some());
    }
}
