//! What a block's MLP does between its two products: relu(x)^2, or SiLU(x) y (SwiGLU), and their gradients.
//!
//! torch walks over the batch five times for relu(x)^2 and its gradient, and keeps relu(x) beside its square; eight times
//! for SiLU(x) y, of halves of rows.

use super::lanes::{LANES, each};
use super::number::{Number, exponential};
use super::rows::{rows_of_part, same_length};
use super::{Kernel, run_all};
use crate::error::{Error, Result};

/// Makes of each number relu(x)^2.
pub fn squared_relu<T: Number>(numbers: &mut [T], n_threads: usize) {
    let n_each = rows_of_part(numbers.len(), 1, n_threads);
    run_all(numbers.chunks_mut(n_each).map(SquaredRelu));
}

/// Makes of the gradient of relu(x)^2, which is `squared`, that of x: times 2 relu(x), the root of it.
///
/// Errors: [`Error::Setting`] where lengths do not fit.
pub fn squared_relu_backward<T: Number>(squared: &[T], grad: &mut [T], n_threads: usize) -> Result<()> {
    same_length(squared.len(), grad.len())?;
    let n_each = rows_of_part(grad.len(), 1, n_threads);
    let parts = squared.chunks(n_each).zip(grad.chunks_mut(n_each));
    run_all(parts.map(|(squared, grad)| SquaredReluBackward { squared, grad }));
    Ok(())
}

/// Fills `gated` (N, F) with SiLU(x) y of each row of `projected` (N, 2 F), x its first half and y its second.
///
/// Errors: [`Error::Setting`] where lengths do not fit.
pub fn swiglu<T: Number>(projected: &[T], gated: &mut [T], width: usize, n_threads: usize) -> Result<()> {
    let n_each = numbers_of_part(gated.len(), width, n_threads)?;
    same_length(2 * gated.len(), projected.len())?;
    let parts = projected.chunks(2 * n_each).zip(gated.chunks_mut(n_each));
    run_all(parts.map(|(projected, gated)| SwiGlu { projected, gated, width }));
    Ok(())
}

/// Fills `grad` (N, 2 F) with the gradient of what was projected, for that of what came out of [`swiglu`].
///
/// Errors: [`Error::Setting`] where lengths do not fit.
pub fn swiglu_backward<T: Number>(
    projected: &[T],
    grad_gated: &[T],
    grad: &mut [T],
    width: usize,
    n_threads: usize,
) -> Result<()> {
    let n_each = numbers_of_part(grad_gated.len(), width, n_threads)?;
    same_length(2 * grad_gated.len(), projected.len())?;
    same_length(projected.len(), grad.len())?;
    let parts = projected.chunks(2 * n_each).zip(grad_gated.chunks(n_each)).zip(grad.chunks_mut(2 * n_each));
    run_all(parts.map(|((projected, grad_gated), grad)| SwiGluBackward { projected, grad_gated, grad, width }));
    Ok(())
}

/// Numbers of the rows of each thread's part.
fn numbers_of_part(n_numbers: usize, width: usize, n_threads: usize) -> Result<usize> {
    if width == 0 || !n_numbers.is_multiple_of(width) {
        return Err(Error::Setting(format!("{n_numbers} numbers are not rows of {width} features")));
    }
    Ok(width * rows_of_part(n_numbers, width, n_threads))
}

pub(super) struct SquaredRelu<'p, T>(pub &'p mut [T]);

impl<T: Number> Kernel for SquaredRelu<'_, T> {
    #[inline(always)]
    fn run<const WIDE: bool>(self) {
        for number in self.0 {
            let x = number.to_f32();
            let rectified = if x < 0.0 { 0.0 } else { x }; // what is no number stays
            *number = T::from_f32(rectified * rectified);
        }
    }
}

pub(super) struct SquaredReluBackward<'p, T> {
    pub squared: &'p [T],
    pub grad: &'p mut [T],
}

impl<T: Number> Kernel for SquaredReluBackward<'_, T> {
    #[inline(always)]
    fn run<const WIDE: bool>(self) {
        for (grad, squared) in self.grad.iter_mut().zip(self.squared) {
            *grad = T::from_f32(grad.to_f32() * (2.0 * squared.to_f32().sqrt()));
        }
    }
}

pub(super) struct SwiGlu<'p, T> {
    pub projected: &'p [T],
    pub gated: &'p mut [T],
    pub width: usize,
}

impl<T: Number> Kernel for SwiGlu<'_, T> {
    #[inline(always)]
    fn run<const WIDE: bool>(self) {
        let rows = self.projected.chunks_exact(2 * self.width).zip(self.gated.chunks_exact_mut(self.width));
        for (projected, gated) in rows {
            let (x, y) = projected.split_at(self.width);
            for first in (0..self.width).step_by(LANES) {
                let (x, y) = (some(&x[first..]), some(&y[first..]));
                let gated_lanes = each!(LANES, |lane| x[lane] * sigmoid(x[lane]) * y[lane]);
                put(&mut gated[first..], gated_lanes);
            }
        }
    }
}

pub(super) struct SwiGluBackward<'p, T> {
    pub projected: &'p [T],
    pub grad_gated: &'p [T],
    pub grad: &'p mut [T],
    pub width: usize,
}

impl<T: Number> Kernel for SwiGluBackward<'_, T> {
    #[inline(always)]
    fn run<const WIDE: bool>(self) {
        let given = self.projected.chunks_exact(2 * self.width).zip(self.grad_gated.chunks_exact(self.width));
        for ((projected, grad_gated), grad) in given.zip(self.grad.chunks_exact_mut(2 * self.width)) {
            let (x, y) = projected.split_at(self.width);
            let (grad_x, grad_y) = grad.split_at_mut(self.width);
            for first in (0..self.width).step_by(LANES) {
                let (x, y, grad) = (some(&x[first..]), some(&y[first..]), some(&grad_gated[first..]));
                let part = each!(LANES, |lane| sigmoid(x[lane]));
                let slope = each!(LANES, |lane| part[lane] * (1.0 - part[lane]).mul_add(x[lane], 1.0));
                put(&mut grad_x[first..], each!(LANES, |lane| grad[lane] * y[lane] * slope[lane]));
                put(&mut grad_y[first..], each!(LANES, |lane| grad[lane] * (x[lane] * part[lane])));
            }
        }
    }
}

/// 1 / (1 + e^-x).
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    let power = exponential(-x.abs());
    (if x < 0.0 { power } else { 1.0 }) / (1.0 + power)
}

/// The first sixteen numbers, zeros where a row ends before.
#[inline(always)]
fn some<T: Number>(numbers: &[T]) -> [f32; LANES] {
    let mut few = [T::default(); LANES];
    let whole = numbers.first_chunk::<LANES>().unwrap_or_else(|| {
        few[..numbers.len()].copy_from_slice(numbers);
        &few
    });
    each!(LANES, |lane| whole[lane].to_f32())
}

/// Puts as many of the numbers as there are places.
#[inline(always)]
fn put<T: Number>(places: &mut [T], numbers: [f32; LANES]) {
    let numbers: [T; LANES] = each!(LANES, |lane| T::from_f32(numbers[lane]));
    match places.first_chunk_mut::<LANES>() {
        Some(whole) => *whole = numbers,
        None => places.copy_from_slice(&numbers[..places.len()]),
    }
}
