//! A block's norms, with what is added before one. `pylm.models.fused_block` has the figures.

use super::lanes::{LANES, load, store};
use super::norm::{Norm, normalise, take_along, to_source};
use super::number::Number;
use super::{Kernel, run_all};
use crate::error::{Error, Result};

/// Adds `x` to `sums`, where there is an `x`, and fills `normed` with the normalised rows of the sums, and `inverses`
/// with what each row was divided by, inverted. All but that (N, D), of D features, a multiple of 16.
///
/// Errors: [`Error::Setting`] where lengths do not fit.
pub fn add_and_normalise<T: Number>(
    x: Option<&[T]>,
    sums: &mut [T],
    normed: &mut [T],
    inverses: &mut [f32],
    norm: Norm,
    n_threads: usize,
) -> Result<()> {
    let width = width(sums.len(), inverses.len())?;
    same_length(sums.len(), x.map_or(sums.len(), <[T]>::len))?;
    same_length(sums.len(), normed.len())?;
    let n_rows = rows_of_part(sums.len(), width, n_threads);
    let mut xs = x.map(|x| x.chunks(n_rows * width));
    let parts =
        sums.chunks_mut(n_rows * width).zip(normed.chunks_mut(n_rows * width)).zip(inverses.chunks_mut(n_rows)).map(
            |((sums, normed), inverses)| {
                let x = xs.as_mut().and_then(Iterator::next);
                AddAndNormalise { x, sums, normed, inverses, width, norm }
            },
        );
    run_all(parts);
    Ok(())
}

/// Adds to `grad` the gradient of the rows that were normalised, for that of the normalised ones. See
/// [`add_and_normalise`].
///
/// Errors: [`Error::Setting`] where lengths do not fit.
pub fn normalise_backward<T: Number>(
    normed: &[T],
    inverses: &[f32],
    grad_normed: &[T],
    grad: &mut [T],
    norm: Norm,
    n_threads: usize,
) -> Result<()> {
    let width = width(grad.len(), inverses.len())?;
    same_length(grad.len(), normed.len())?;
    same_length(grad.len(), grad_normed.len())?;
    let n_rows = rows_of_part(grad.len(), width, n_threads);
    let parts = normed
        .chunks(n_rows * width)
        .zip(inverses.chunks(n_rows))
        .zip(grad_normed.chunks(n_rows * width))
        .zip(grad.chunks_mut(n_rows * width))
        .map(|(((normed, inverses), grad_normed), grad)| Gradient { normed, inverses, grad_normed, grad, width, norm });
    run_all(parts);
    Ok(())
}

/// Features of a row.
fn width(n_numbers: usize, n_rows: usize) -> Result<usize> {
    let width = n_numbers.checked_div(n_rows).unwrap_or(0);
    if width == 0 || !width.is_multiple_of(LANES) || width * n_rows != n_numbers {
        return Err(Error::Setting(format!(
            "{n_numbers} numbers are not {n_rows} rows of as many features each, a multiple of {LANES}"
        )));
    }
    Ok(width)
}

pub(super) fn same_length(expected: usize, found: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Setting(format!("{found} numbers beside {expected}: expected as many")))
}

/// Rows of each thread's part, of at least [`PART`] numbers.
pub(super) fn rows_of_part(n_numbers: usize, width: usize, n_threads: usize) -> usize {
    /// Numbers that are worth a thread.
    const PART: usize = 1 << 14;
    let n_parts = n_threads.min(n_numbers / PART).max(1);
    (n_numbers / width).div_ceil(n_parts).max(1)
}

pub(super) struct AddAndNormalise<'p, T> {
    pub x: Option<&'p [T]>,
    pub sums: &'p mut [T],
    pub normed: &'p mut [T],
    pub inverses: &'p mut [f32],
    pub width: usize,
    pub norm: Norm,
}

impl<T: Number> Kernel for AddAndNormalise<'_, T> {
    #[inline(always)]
    fn run<const WIDE: bool>(self) {
        let Self { x, sums, normed, inverses, width, norm } = self;
        if let Some(x) = x {
            let pairs = sums.iter_mut().zip(x);
            pairs.for_each(|(sum, x)| *sum = T::from_f32(sum.to_f32() + x.to_f32()));
        }
        Normalise { source: sums, normed, inverses, width, norm }.run::<WIDE>();
    }
}

pub(super) struct Normalise<'p, T> {
    pub source: &'p [T],
    pub normed: &'p mut [T],
    pub inverses: &'p mut [f32],
    pub width: usize,
    pub norm: Norm,
}

impl<T: Number> Kernel for Normalise<'_, T> {
    #[inline(always)]
    fn run<const WIDE: bool>(self) {
        let Self { source, normed, inverses, width, norm } = self;
        let mut row = vec![0.0; width];
        let rows = source.chunks_exact(width).zip(normed.chunks_exact_mut(width)).zip(inverses);
        for ((source, normed), inverse) in rows {
            *inverse = normalise(source, norm, &mut row);
            store(normed, &row, 1.0);
        }
    }
}

pub(super) struct Gradient<'p, T> {
    pub normed: &'p [T],
    pub inverses: &'p [f32],
    pub grad_normed: &'p [T],
    pub grad: &'p mut [T],
    pub width: usize,
    pub norm: Norm,
}

impl<T: Number> Kernel for Gradient<'_, T> {
    #[inline(always)]
    fn run<const WIDE: bool>(self) {
        let Self { normed, inverses, grad_normed, grad, width, norm } = self;
        let [mut along, mut row] = [vec![0.0; width], vec![0.0; width]];
        let given = normed.chunks_exact(width).zip(inverses).zip(grad_normed.chunks_exact(width));
        for (((normed, inverse), grad_normed), grad) in given.zip(grad.chunks_exact_mut(width)) {
            load(&mut along, normed);
            load(&mut row, grad_normed);
            take_along(&mut row, &along, norm);
            to_source(&mut row, *inverse, norm);
            grad.iter_mut().zip(&row).for_each(|(place, number)| *place = T::from_f32(place.to_f32() + number));
        }
    }
}
