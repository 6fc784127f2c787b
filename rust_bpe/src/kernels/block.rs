//! A block of the residual stream in float32, both ways: its products by torch's BLAS, and what stands between them:
//! `x = x + attention(norm(x))`, then `x = x + mlp(norm(x))`.
//!
//! A thread takes some sequences through the whole block, some hundred positions at a time, so threads wait for each other
//! once a block, not once an operation, and nothing goes through Python in between.
//! `pylm.models.fused_block` has the figures, and the same by torch's products, which is the twin in tests.
//!
//! Lost: products of float32 as six of bfloat16 on AMX's tiles (a number is the sum of three). They are closer to the
//! exact ones than MKL's, 0.9e-7 to 2.2e-7 for 2.0e-7 to 3.6e-7, but while the core's other thread works the tiles run at
//! a third: 768 x 128 times 128 x 512 on one thread 225 GFLOP/s for MKL's 158, on two 132 to 184 for 198 to 257.

use std::cell::RefCell;

use super::activations::{SquaredRelu, SquaredReluBackward, SwiGlu, SwiGluBackward};
use super::attention::{self, Mix, MixBackward, Scratch};
use super::blas::{Beta, Blas};
use super::lanes::LANES;
use super::norm::Norm;
use super::rows::{AddAndNormalise, Gradient, Normalise};
use super::{Kernel, do_all, run, run_all};
use crate::error::{Error, Result};

/// Positions that go through the block together: as many as make the products fast. Of a step of 4 layers of 128 on one
/// core 192 at once take 1.02 of the time, 64 1.05, and all 768 1.00.
const ROWS: usize = 384;

/// What a block does between its MLP's products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    SquaredRelu,
    SwiGlu,
}

/// A block: sizes, and the matrices (E, D), (D, H), (G, D) and (D, F). D is the width, E what a position's heads of
/// queries, keys and values are projected to, H what they are mixed to, F the hidden features, G those or two times those.
#[derive(Clone, Copy, Debug)]
pub struct Block<'b> {
    pub width: usize,
    pub heads: attention::Shape<'b>,
    pub norm: Norm,
    pub activation: Activation,
    pub matrices: [&'b [f32]; 4],
}

/// Sizes of what is kept of a position, in the order in which it is.
#[derive(Clone, Copy)]
struct Sizes {
    width: usize,
    projected: usize,
    mixed: usize,
    up: usize,
    hidden: usize,
}

/// What the backward pass needs of some positions (N): the input, normalised (N, D), and what it was divided by, inverted
/// (N); projections (N, E) and mixed values (N, H); the sums, normalised, and what by; what goes into the activation
/// (N, G) where that does not stand in its place, and the hidden features (N, F).
struct Kept<S> {
    normed: S,
    inverses: S,
    projected: S,
    mixed: S,
    normed_2: S,
    inverses_2: S,
    up: S,
    hidden: S,
}

thread_local! {
    /// The gradients between a block's products: memory that is new each time has to be cleared.
    static BETWEEN: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl Block<'_> {
    fn sizes(&self) -> Sizes {
        let hidden = self.matrices[3].len() / self.width.max(1);
        let up = match self.activation {
            Activation::SquaredRelu => 0,
            Activation::SwiGlu => 2 * hidden,
        };
        Sizes { width: self.width, projected: self.heads.projected(), mixed: self.heads.mixed(), up, hidden }
    }

    /// Numbers that are kept of a position.
    pub fn n_kept(&self) -> usize {
        let Sizes { width, projected, mixed, up, hidden } = self.sizes();
        2 * (width + 1) + projected + mixed + up + hidden
    }

    /// Returns the number of sequences.
    fn check(&self, n_numbers: usize, n_kept: usize) -> Result<usize> {
        let Sizes { width, projected, mixed, up, hidden } = self.sizes();
        let expected = [projected * width, width * mixed, up.max(hidden) * width, width * hidden];
        let sequence = self.heads.length * width;
        let fits = width.is_multiple_of(LANES)
            && self.matrices.map(<[f32]>::len) == expected
            && expected.iter().all(|&n| n > 0)
            && n_numbers.is_multiple_of(sequence.max(1))
            && n_numbers / width * self.n_kept() == n_kept;
        if !fits {
            let [qkv, out, up, down] = self.matrices.map(<[f32]>::len);
            return Err(Error::Setting(format!(
                "{n_numbers} numbers, {n_kept} to keep and matrices of {qkv}, {out}, {up} and {down} are not of sequences of \
                 {} positions, {width} features, a multiple of {LANES}, {projected} projected and {mixed} mixed ones",
                self.heads.length
            )));
        }
        attention::check(self.heads, n_numbers / width * projected, n_numbers / width * mixed)?;
        Ok(n_numbers / sequence)
    }
}

/// Fills `y` (B, T, D) with what the block makes of `x`, and `kept` (B x T x [`Block::n_kept`]) for the backward pass.
/// Returns how many sequences were taken at once, by which `kept` is ordered.
///
/// Errors: [`Error::Setting`] where sizes do not fit.
pub fn forward(
    blas: Blas,
    block: Block,
    x: &[f32],
    y: &mut [f32],
    kept: &mut [f32],
    n_threads: usize,
) -> Result<usize> {
    let n_sequences = block.check(x.len(), kept.len())?;
    if y.len() != x.len() {
        return Err(Error::Setting(format!("{} numbers for a block of {}: expected as many", y.len(), x.len())));
    }
    let of_part = n_sequences.div_ceil(n_threads.max(1)).max(1);
    let at_once = of_part.div_ceil((of_part * block.heads.length).div_ceil(ROWS).max(1));
    let (numbers, n_kept) = (block.heads.length * block.width, block.heads.length * block.n_kept());
    let of_part = of_part.next_multiple_of(at_once);
    let parts = x.chunks(of_part * numbers).zip(y.chunks_mut(of_part * numbers)).zip(kept.chunks_mut(of_part * n_kept));
    do_all(parts, |((x, y), kept)| {
        blas.alone(|| {
            let mut scratch = Scratch::new(block.heads);
            let some = x.chunks(at_once * numbers).zip(y.chunks_mut(at_once * numbers));
            for ((x, y), kept) in some.zip(kept.chunks_mut(at_once * n_kept)) {
                let sizes = block.sizes().of_kept(kept.len());
                forward_of(blas, &block, x, y, split_mut(kept, sizes).into(), &mut scratch);
            }
        });
    });
    Ok(at_once)
}

fn forward_of(blas: Blas, block: &Block, x: &[f32], y: &mut [f32], kept: Kept<&mut [f32]>, scratch: &mut Scratch) {
    let Block { width, norm, heads: shape, matrices: [qkv, out, up, down], .. } = *block;
    let Sizes { mixed, hidden, .. } = block.sizes();
    run(Normalise { source: x, normed: kept.normed, inverses: kept.inverses, width, norm });
    blas.times_transposed(kept.normed, qkv, width, kept.projected, Beta::Zero);
    run(Mix { projected: kept.projected, mixed: kept.mixed, shape, scratch });
    blas.times_transposed(kept.mixed, out, mixed, y, Beta::Zero);
    run(AddAndNormalise { x: Some(x), sums: y, normed: kept.normed_2, inverses: kept.inverses_2, width, norm });
    match block.activation {
        Activation::SquaredRelu => {
            blas.times_transposed(kept.normed_2, up, width, kept.hidden, Beta::Zero);
            run(SquaredRelu(kept.hidden));
        }
        Activation::SwiGlu => {
            blas.times_transposed(kept.normed_2, up, width, kept.up, Beta::Zero);
            run(SwiGlu { projected: kept.up, gated: kept.hidden, width: hidden });
        }
    }
    blas.times_transposed(kept.hidden, down, hidden, y, Beta::One);
}

/// Fills `grad_x` (B, T, D) with the gradient of what went in, for that of what came out (`grad`), and `grads` with those of
/// the matrices. `kept` and `at_once` are [`forward`]'s.
///
/// Errors: [`Error::Setting`] where sizes do not fit.
pub fn backward(
    blas: Blas,
    block: Block,
    (kept, at_once): (&[f32], usize),
    grad: &[f32],
    grad_x: &mut [f32],
    grads: [&mut [f32]; 4],
    n_threads: usize,
) -> Result<()> {
    let n_sequences = block.check(grad.len(), kept.len())?;
    let sizes = block.matrices.map(<[f32]>::len);
    if at_once == 0 || grad_x.len() != grad.len() || grads.each_ref().map(|grad| grad.len()) != sizes {
        return Err(Error::Setting(format!(
            "{at_once} sequences at once and places for gradients: expected some, {} numbers and matrices of {sizes:?}",
            grad.len()
        )));
    }
    if n_sequences == 0 {
        grads.into_iter().for_each(|grad| grad.fill(0.0));
        return Ok(());
    }
    let at_once = at_once.min(n_sequences);
    let of_part = n_sequences.div_ceil(n_threads.max(1)).next_multiple_of(at_once);
    let (numbers, n_kept) = (block.heads.length * block.width, block.heads.length * block.n_kept());
    let n_parts = n_sequences.div_ceil(of_part);
    // The first part adds to the gradients themselves, each other one to its own, and the sums are made at the end.
    let mut others: Vec<Vec<f32>> = (1..n_parts).map(|_| vec![0.0; sizes.iter().sum()]).collect();
    let mut places = vec![grads];
    places.extend(others.iter_mut().map(|numbers| split_mut(numbers, sizes)));
    let parts = grad.chunks(of_part * numbers).zip(grad_x.chunks_mut(of_part * numbers));
    let parts = parts.zip(kept.chunks(of_part * n_kept)).zip(&mut places);
    do_all(parts, |(((grad, grad_x), kept), grads)| {
        blas.alone(|| {
            let mut scratch = Scratch::new(block.heads);
            let mut beta = Beta::Zero;
            let some = grad.chunks(at_once * numbers).zip(grad_x.chunks_mut(at_once * numbers));
            for ((grad, grad_x), kept) in some.zip(kept.chunks(at_once * n_kept)) {
                grad_x.copy_from_slice(grad);
                let kept = split(kept, block.sizes().of_kept(kept.len())).into();
                BETWEEN
                    .with_borrow_mut(|room| backward_of(blas, &block, kept, grad_x, (grads, beta), room, &mut scratch));
                beta = Beta::One;
            }
        });
    });
    let (sums, others) = places.split_first_mut().expect("one part at least");
    for other in others {
        for (sums, other) in sums.iter_mut().zip(&*other) {
            let n_each = sums.len().div_ceil(n_parts);
            run_all(sums.chunks_mut(n_each).zip(other.chunks(n_each)).map(|(sums, numbers)| Add { sums, numbers }));
        }
    }
    Ok(())
}

struct Add<'p> {
    sums: &'p mut [f32],
    numbers: &'p [f32],
}

impl Kernel for Add<'_> {
    #[inline(always)]
    fn run<const WIDE: bool>(self) {
        self.sums.iter_mut().zip(self.numbers).for_each(|(sum, number)| *sum += number);
    }
}

/// What `grad` is before and after: see [`backward`].
fn backward_of(
    blas: Blas,
    block: &Block,
    kept: Kept<&[f32]>,
    grad: &mut [f32],
    (grads, beta): (&mut [&mut [f32]; 4], Beta),
    room: &mut Vec<f32>,
    scratch: &mut Scratch,
) {
    let Block { width, norm, heads: shape, matrices: [qkv, out, up, down], .. } = *block;
    let Sizes { mixed, hidden, .. } = block.sizes();
    let sizes = [kept.hidden.len(), kept.up.len(), kept.normed.len(), kept.mixed.len(), kept.projected.len()];
    let n = sizes.iter().sum();
    if room.len() < n {
        room.resize(n, 0.0);
    }
    let [of_hidden, of_up, of_normed, of_mixed, of_projected] = split_mut(&mut room[..n], sizes);
    let [of_qkv, of_out, of_matrix_up, of_down] = grads;

    blas.transposed_times(grad, kept.hidden, hidden, of_down, beta);
    blas.times(grad, down, hidden, of_hidden);
    let of_up: &[f32] = match block.activation {
        Activation::SquaredRelu => {
            run(SquaredReluBackward { squared: kept.hidden, grad: of_hidden });
            of_hidden
        }
        Activation::SwiGlu => {
            run(SwiGluBackward { projected: kept.up, grad_gated: of_hidden, grad: of_up, width: hidden });
            of_up
        }
    };
    blas.transposed_times(of_up, kept.normed_2, width, of_matrix_up, beta);
    blas.times(of_up, up, width, of_normed);
    run(Gradient { normed: kept.normed_2, inverses: kept.inverses_2, grad_normed: of_normed, grad, width, norm });

    blas.transposed_times(grad, kept.mixed, mixed, of_out, beta);
    blas.times(grad, out, mixed, of_mixed);
    run(MixBackward { projected: kept.projected, grad_mixed: of_mixed, grad_projected: of_projected, shape, scratch });
    blas.transposed_times(of_projected, kept.normed, width, of_qkv, beta);
    blas.times(of_projected, qkv, width, of_normed);
    run(Gradient { normed: kept.normed, inverses: kept.inverses, grad_normed: of_normed, grad, width, norm });
}

impl Sizes {
    /// Of [`Kept`], for as many positions as `n_numbers` are.
    fn of_kept(self, n_numbers: usize) -> [usize; 8] {
        let Sizes { width, projected, mixed, up, hidden } = self;
        let each = [width, 1, projected, mixed, width, 1, up, hidden];
        let n = n_numbers / each.iter().sum::<usize>();
        each.map(|each| n * each)
    }
}

impl<S> From<[S; 8]> for Kept<S> {
    fn from([normed, inverses, projected, mixed, normed_2, inverses_2, up, hidden]: [S; 8]) -> Self {
        Self { normed, inverses, projected, mixed, normed_2, inverses_2, up, hidden }
    }
}

/// Cuts numbers into parts of these sizes.
fn split<const N: usize>(mut numbers: &[f32], sizes: [usize; N]) -> [&[f32]; N] {
    sizes.map(|size| numbers.split_off(..size).expect("as many numbers"))
}

fn split_mut<const N: usize>(mut numbers: &mut [f32], sizes: [usize; N]) -> [&mut [f32]; N] {
    sizes.map(|size| numbers.split_off_mut(..size).expect("as many numbers"))
}
