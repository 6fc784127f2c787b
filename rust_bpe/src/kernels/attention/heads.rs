//! One position of one head: normalised and turned on its way in, its gradient turned back and taken through the norm.

use super::tile::{LANES, reduce};
use crate::kernels::number::Number;

/// What is done to the queries and keys of each head, without gains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    None,
    /// (x - mean) / sqrt(variance + eps).
    Layer(f32),
    /// x / sqrt(mean of squares + eps).
    Rms(f32),
}

/// Puts one head of one position, normalised, into `place`. Returns what it was divided by, inverted.
#[inline(always)]
pub fn normalise<T: Number>(source: &[T], norm: Norm, place: &mut [f32]) -> f32 {
    place.iter_mut().zip(source).for_each(|(place, number)| *place = number.to_f32());
    let size = place.len() as f32;
    let eps = match norm {
        Norm::None => return 1.0,
        Norm::Rms(eps) => eps,
        Norm::Layer(eps) => {
            let mean = sum(place, place, |number, _| number) / size;
            place.iter_mut().for_each(|number| *number -= mean);
            eps
        }
    };
    let inverse = 1.0 / (sum(place, place, |a, b| a * b) / size + eps).sqrt();
    place.iter_mut().for_each(|number| *number *= inverse);
    inverse
}

/// Turns each pair of features by its angle; `angles` are the cosine and the sine of each.
#[inline(always)]
pub fn turn(head: &mut [f32], angles: &[f32]) {
    for (pair, angle) in head.as_chunks_mut::<2>().0.iter_mut().zip(angles.as_chunks::<2>().0) {
        *pair = [pair[0] * angle[0] - pair[1] * angle[1], pair[0] * angle[1] + pair[1] * angle[0]];
    }
}

/// The inverse of [`turn`], and its gradient.
#[inline(always)]
fn turn_back(head: &mut [f32], angles: &[f32]) {
    for (pair, angle) in head.as_chunks_mut::<2>().0.iter_mut().zip(angles.as_chunks::<2>().0) {
        *pair = [pair[0] * angle[0] + pair[1] * angle[1], pair[1] * angle[0] - pair[0] * angle[1]];
    }
}

/// Turns the gradient of a turned head into that of its source: `turned` is the head, times `scale`, and `inverse` what
/// [`normalise`] returned.
#[inline(always)]
pub fn to_source(grad: &mut [f32], turned: &[f32], scale: f32, inverse: f32, norm: Norm, angles: Option<&[f32]>) {
    let size = grad.len() as f32;
    if norm != Norm::None {
        // A turn changes no product of two heads.
        let along = sum(grad, turned, |grad, turned| grad * turned) / (size * scale * scale);
        grad.iter_mut().zip(turned).for_each(|(grad, turned)| *grad -= turned * along);
    }
    if let Some(angles) = angles {
        turn_back(grad, angles);
    }
    let mean = match norm {
        Norm::Layer(_) => sum(grad, grad, |grad, _| grad) / size,
        Norm::None | Norm::Rms(_) => 0.0,
    };
    grad.iter_mut().for_each(|grad| *grad = scale * inverse * (*grad - mean));
}

/// The sum over pairs of numbers, in the same order on every processor.
#[inline(always)]
pub fn sum(left: &[f32], right: &[f32], of: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    for (left, right) in left.as_chunks::<LANES>().0.iter().zip(right.as_chunks::<LANES>().0) {
        for ((lane, left), right) in lanes.iter_mut().zip(left).zip(right) {
            *lane += of(*left, *right);
        }
    }
    reduce(lanes, |a, b| a + b)
}
