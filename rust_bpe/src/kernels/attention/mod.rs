//! Causal attention of short windows on a CPU, from the projections of the input to the mixed values: heads normalised
//! and turned by their positions, scores, softmax and the weighted sum, and all of it back.
//!
//! torch does it in a dozen operations; here a head's few kilobytes stay in a cache from the first to the last.
//! `pylm.models.attention.SelfAttention.mix` is torch's way, and the twin in tests.

mod sequence;
mod tile;
mod turns;

pub use super::norm::Norm;

use super::lanes::LANES;
use super::number::Number;
use super::{Kernel, run, run_all};
use crate::error::{Error, Result};
pub(super) use sequence::Scratch;

/// What all sequences have in common. A position is a row of H heads of queries, K of keys and K of values, d numbers each.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'s> {
    /// Positions of a sequence, T.
    pub length: usize,
    /// Heads of queries, H.
    pub n_heads: usize,
    /// Heads of keys and of values, K: H / K neighbouring heads of queries share one.
    pub kv_heads: usize,
    /// Features of a head, d, a multiple of 16.
    pub head_size: usize,
    pub norm: Norm,
    /// Cosine and sine of each position's d / 2 angles, (T, d / 2, 2).
    pub angles: Option<&'s [f32]>,
}

impl Shape<'_> {
    /// Numbers of a position.
    pub(super) fn projected(&self) -> usize {
        (self.n_heads + 2 * self.kv_heads) * self.head_size
    }

    /// Numbers of a position's mixed values.
    pub(super) fn mixed(&self) -> usize {
        self.n_heads * self.head_size
    }
}

/// Fills `mixed` (B, T, H x d) with softmax(q k / sqrt(d)) v over each position and those before it.
///
/// Errors: [`Error::Setting`] where lengths do not fit.
pub fn mix<T: Number>(projected: &[T], mixed: &mut [T], shape: Shape, n_threads: usize) -> Result<()> {
    let n_sequences = check(shape, projected.len(), mixed.len())?;
    let n_each = n_sequences.div_ceil(n_threads.max(1)).max(1);
    let parts = projected
        .chunks(n_each * shape.length * shape.projected())
        .zip(mixed.chunks_mut(n_each * shape.length * shape.mixed()))
        .map(|(projected, mixed)| Forward { projected, mixed, shape });
    run_all(parts);
    Ok(())
}

/// Fills `grad_projected` (B, T, (H + 2 K) x d) with the gradient of `projected` for that of the mixed values.
///
/// Errors: [`Error::Setting`] where lengths do not fit.
pub fn mix_backward<T: Number>(
    projected: &[T],
    grad_mixed: &[T],
    grad_projected: &mut [T],
    shape: Shape,
    n_threads: usize,
) -> Result<()> {
    let n_sequences = check(shape, projected.len(), grad_mixed.len())?;
    check(shape, grad_projected.len(), grad_mixed.len())?;
    let n_each = n_sequences.div_ceil(n_threads.max(1)).max(1);
    let parts = projected
        .chunks(n_each * shape.length * shape.projected())
        .zip(grad_mixed.chunks(n_each * shape.length * shape.mixed()))
        .zip(grad_projected.chunks_mut(n_each * shape.length * shape.projected()))
        .map(|((projected, grad_mixed), grad_projected)| Backward { projected, grad_mixed, grad_projected, shape });
    run_all(parts);
    Ok(())
}

/// Returns the number of sequences.
pub(super) fn check(shape: Shape, n_projected: usize, n_mixed: usize) -> Result<usize> {
    let Shape { length, n_heads, kv_heads, head_size, .. } = shape;
    let fits = length > 0
        && head_size > 0
        && head_size.is_multiple_of(LANES)
        && kv_heads > 0
        && n_heads.is_multiple_of(kv_heads)
        && n_projected.is_multiple_of(length * shape.projected())
        && n_projected / shape.projected() * shape.mixed() == n_mixed
        && shape.angles.is_none_or(|angles| angles.len() == length * head_size);
    if !fits {
        let n_angles = shape.angles.map_or(0, <[f32]>::len);
        return Err(Error::Setting(format!(
            "{n_projected} projections and {n_mixed} mixed values, {n_angles} angles, are not of {length} positions, \
             {n_heads} heads, {kv_heads} of keys, of {head_size} features, a multiple of {}",
            LANES
        )));
    }
    Ok(n_projected / (length * shape.projected()))
}

struct Forward<'p, T> {
    projected: &'p [T],
    mixed: &'p mut [T],
    shape: Shape<'p>,
}

impl<T: Number> Kernel for Forward<'_, T> {
    fn run<const WIDE: bool>(self) {
        let Self { projected, mixed, shape } = self;
        run(Mix { projected, mixed, shape, scratch: &mut Scratch::new(shape) });
    }
}

/// See [`mix`], of sequences one after another.
pub(super) struct Mix<'p, T> {
    pub projected: &'p [T],
    pub mixed: &'p mut [T],
    pub shape: Shape<'p>,
    pub scratch: &'p mut Scratch,
}

impl<T: Number> Kernel for Mix<'_, T> {
    #[inline(always)]
    fn run<const WIDE: bool>(self) {
        let shape = self.shape;
        let sequences = self.projected.chunks(shape.length * shape.projected());
        for (projected, mixed) in sequences.zip(self.mixed.chunks_mut(shape.length * shape.mixed())) {
            sequence::forward::<T, WIDE>(projected, mixed, shape, self.scratch);
        }
    }
}

struct Backward<'p, T> {
    projected: &'p [T],
    grad_mixed: &'p [T],
    grad_projected: &'p mut [T],
    shape: Shape<'p>,
}

impl<T: Number> Kernel for Backward<'_, T> {
    fn run<const WIDE: bool>(self) {
        let Self { projected, grad_mixed, grad_projected, shape } = self;
        run(MixBackward { projected, grad_mixed, grad_projected, shape, scratch: &mut Scratch::new(shape) });
    }
}

/// See [`mix_backward`], of sequences one after another.
pub(super) struct MixBackward<'p, T> {
    pub projected: &'p [T],
    pub grad_mixed: &'p [T],
    pub grad_projected: &'p mut [T],
    pub shape: Shape<'p>,
    pub scratch: &'p mut Scratch,
}

impl<T: Number> Kernel for MixBackward<'_, T> {
    #[inline(always)]
    fn run<const WIDE: bool>(self) {
        let shape = self.shape;
        let (n_projected, n_mixed) = (shape.length * shape.projected(), shape.length * shape.mixed());
        let given = self.projected.chunks(n_projected).zip(self.grad_mixed.chunks(n_mixed));
        for ((projected, grad_mixed), grad) in given.zip(self.grad_projected.chunks_mut(n_projected)) {
            sequence::backward::<T, WIDE>(projected, grad_mixed, grad, shape, self.scratch);
        }
    }
}
