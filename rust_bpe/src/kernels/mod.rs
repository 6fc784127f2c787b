//! What a training on a CPU computes here and not in torch: the loss head's rows, attention, and what stands between the
//! products of a block.
//!
//! It stands here because this is the native code that the package has. torch does each in a dozen operations, every one of
//! which walks over the whole batch; a kernel does it at once for what is in a cache. torch's way is the twin in tests.

pub mod activations;
pub mod attention;
pub mod blas;
pub mod block;
mod lanes;
mod loaded;
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

/// Runs a kernel here and now, compiled for this processor.
fn run<K: Kernel>(kernel: K) {
    #[cfg(target_arch = "x86_64")]
    if let Some(avx512) = Avx512::detect() {
        return vectors::run_avx512(avx512, kernel);
    } else if let Some(avx2) = Avx2::detect() {
        return vectors::run_avx2(avx2, kernel);
    }
    kernel.run::<false>();
}

/// Runs each of `kernels`, in any order, on as many threads.
fn run_all<K: Kernel>(kernels: impl Iterator<Item = K>) {
    do_all(kernels, run);
}

/// Does each of `parts`, in any order, on as many threads.
fn do_all<P: Send>(parts: impl Iterator<Item = P>, work: impl Fn(P) + Sync) {
    let parts: Vec<P> = parts.collect();
    let n_threads = parts.len();
    if n_threads < 2 {
        return parts.into_iter().for_each(work);
    }
    let left = Mutex::new(parts.into_iter());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    let some = || {
        while let Some(part) = next() {
            work(part);
        }
    };
    if !openmp::run(n_threads, &some) {
        parallel::map(0..n_threads, |_| some());
    }
}
