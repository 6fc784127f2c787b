//! What a training on a CPU computes here and not in torch: the loss head's rows, and attention.
//!
//! It stands here because this is the native code that the package has. torch does each in a dozen operations, every one of
//! which walks over the whole batch; a kernel does it at once for what is in a cache. torch's way is the twin in tests.
//! Tried and left out: relu(x)^2 in one pass each way, forward and back, 61.0 ms of a step for 60.5.

pub mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
pub mod logits;
pub mod number;
pub mod openmp;

use std::sync::{Mutex, PoisonError};

use crate::parallel;
use crate::processor::Avx2;

/// A part of some work, to be compiled for a processor.
trait Kernel: Send {
    /// Inlined with all that it calls: only so is it compiled for the processor of the caller.
    fn run(self);
}

/// Whether kernels are the fast way here: multiplying and adding is one instruction.
pub fn are_fast() -> bool {
    cfg!(target_arch = "aarch64") || Avx2::detect().is_some()
}

/// Runs each of `kernels`, in any order, on as many threads.
fn run_all<K: Kernel>(kernels: impl Iterator<Item = K>) {
    let processor = Avx2::detect();
    let run = |kernel: K| match processor {
        #[cfg(target_arch = "x86_64")]
        Some(processor) => avx2::run(processor, kernel),
        _ => kernel.run(),
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
