//! Rows of logits to losses and gradients, in place: what the loss head of a training on a CPU makes of a block.
//!
//! torch does it in a dozen passes over float32 copies of the rows: `pylm.logits.by_chunks`, the twin in tests.

use super::lanes::LANES;
use super::number::{Number, exponential};
use super::{Kernel, run_all};
use crate::error::{Error, Result};

/// A target that is none: its loss and its gradient are 0.
pub const IGNORED: i64 = -1;

/// Numbers that are worth a thread.
const PART: usize = 1 << 17;

/// Numbers whose exponentials are added in float32, before they go on in float64.
const SUMMED: usize = 1 << 10;

/// What all rows have in common.
#[derive(Clone, Copy)]
pub struct Shape<'b> {
    /// Columns of a row: logits, and perhaps some that pad it.
    pub n_columns: usize,
    /// How many of them, at the row's start, are logits.
    pub n_ids: usize,
    /// Added to each row's logits.
    pub bias: Option<&'b [f32]>,
}

/// Returns -ln softmax(logits + bias) at the target of each row, 0 at [`IGNORED`] ones; with `gradient` the logits become
/// the gradients of the losses' sum, 0 in the columns behind them. Rows of what is no number lose what is no number.
///
/// Errors: [`Error::Setting`] where lengths do not fit, and for a target that is no column.
pub fn each_row<T: Number>(
    logits: &mut [T],
    shape: Shape,
    targets: &[i64],
    gradient: bool,
    n_threads: usize,
) -> Result<Vec<f32>> {
    check(logits.len(), shape, targets)?;
    let n_parts = n_threads.min(logits.len() / PART).max(1);
    let n_rows = targets.len().div_ceil(n_parts).max(1);
    let mut losses = vec![0.0; targets.len()];
    let parts = logits
        .chunks_mut(n_rows * shape.n_columns)
        .zip(targets.chunks(n_rows))
        .zip(losses.chunks_mut(n_rows))
        .map(|((logits, targets), losses)| Part { logits, targets, losses, shape, gradient });
    run_all(parts);
    Ok(losses)
}

fn check(n_logits: usize, shape: Shape, targets: &[i64]) -> Result<()> {
    let Shape { n_columns, n_ids, bias } = shape;
    let fits = 0 < n_ids
        && n_ids <= n_columns
        && n_columns.checked_mul(targets.len()) == Some(n_logits)
        && bias.is_none_or(|bias| bias.len() == n_ids);
    if !fits {
        let n_bias = bias.map_or(n_ids, <[f32]>::len);
        let n_targets = targets.len();
        return Err(Error::Setting(format!(
            "{n_logits} logits are not {n_targets} rows of {n_columns} columns, with {n_ids} ids and {n_bias} biases"
        )));
    }
    let is_id = |&target: &i64| usize::try_from(target).is_ok_and(|id| id < n_ids);
    match targets.iter().find(|&target| *target != IGNORED && !is_id(target)) {
        Some(target) => Err(Error::Setting(format!("the target {target} is none of {n_ids} ids"))),
        None => Ok(()),
    }
}

/// Some rows, their targets, and where their losses belong.
struct Part<'p, T> {
    logits: &'p mut [T],
    targets: &'p [i64],
    losses: &'p mut [f32],
    shape: Shape<'p>,
    gradient: bool,
}

impl<T: Number> Kernel for Part<'_, T> {
    #[inline(always)]
    fn run<const WIDE: bool>(self) {
        let Self { logits, targets, losses, shape, gradient } = self;
        let mut numbers = vec![0.0; shape.n_ids];
        let rows = logits.chunks_exact_mut(shape.n_columns);
        for ((row, &target), loss) in rows.zip(targets).zip(losses) {
            let (row, padding) = row.split_at_mut(shape.n_ids);
            // What is ignored, and nothing else, is below zero.
            let Ok(target) = usize::try_from(target) else {
                if gradient {
                    row.fill(T::from_f32(0.0));
                    padding.fill(T::from_f32(0.0));
                }
                continue;
            };
            let largest = read(row, shape.bias, &mut numbers);
            let chosen = numbers[target];
            let total = exponentials(&mut numbers, largest);
            *loss = (f64::from(largest) - f64::from(chosen) + total.ln()) as f32;
            if gradient {
                let factor = (1.0 / total) as f32;
                row.iter_mut().zip(&numbers).for_each(|(place, number)| *place = T::from_f32(number * factor));
                row[target] = T::from_f32(numbers[target] * factor - 1.0);
                padding.fill(T::from_f32(0.0));
            }
        }
    }
}

/// Puts the logits of a row, with their biases, into `numbers`. Returns the largest.
#[inline(always)]
fn read<T: Number>(row: &[T], bias: Option<&[f32]>, numbers: &mut [f32]) -> f32 {
    match bias {
        None => numbers.iter_mut().zip(row).for_each(|(place, logit)| *place = logit.to_f32()),
        Some(bias) => {
            let logits = row.iter().zip(bias);
            numbers.iter_mut().zip(logits).for_each(|(place, (logit, bias))| *place = logit.to_f32() + bias);
        }
    }
    let (chunks, rest) = numbers.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, &number)| *lane = if number > *lane { number } else { *lane });
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |largest, &number| largest.max(number))
}

/// Each number becomes the exponential of its difference from the largest. Returns their sum.
#[inline(always)]
fn exponentials(numbers: &mut [f32], largest: f32) -> f64 {
    let mut total = 0.0;
    for some in numbers.chunks_mut(SUMMED) {
        let (chunks, rest) = some.as_chunks_mut::<LANES>();
        let mut lanes = [0.0; LANES];
        for chunk in chunks {
            for (lane, number) in lanes.iter_mut().zip(chunk) {
                *number = exponential(*number - largest);
                *lane += *number;
            }
        }
        for number in &mut *rest {
            *number = exponential(*number - largest);
        }
        total += lanes.iter().chain(&*rest).map(|&number| f64::from(number)).sum::<f64>();
    }
    total
}
