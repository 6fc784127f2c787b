//! Norms without gains, of rows as long as a multiple of [`LANES`](super::lanes::LANES), both ways.

use super::lanes::{LANES, black_box, combine, each, load, reduce, sum, update};
use super::number::Number;

/// What is done to a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    None,
    /// (x - mean) / sqrt(variance + eps).
    Layer(f32),
    /// x / sqrt(mean of squares + eps).
    Rms(f32),
}

/// Puts a row, normalised, into `place`. Returns what it was divided by, inverted.
#[inline(always)]
pub fn normalise<T: Number>(source: &[T], norm: Norm, place: &mut [f32]) -> f32 {
    load(place, source);
    let one_of = 1.0 / place.len() as f32;
    let eps = match norm {
        Norm::None => return 1.0,
        Norm::Rms(eps) => eps,
        Norm::Layer(eps) => {
            let mean = sum!(place, place, |number, _| number) * one_of;
            update!(place, |number| number - mean);
            eps
        }
    };
    let inverse = 1.0 / (sum!(place, place, |a, b| a * b) * one_of + eps).sqrt();
    update!(place, |number| number * inverse);
    inverse
}

/// Takes from the gradient of a normalised row what is along the row, which is `normed` here: its length is what a norm
/// takes away. The first step back; [`to_source`] is the second.
#[inline(always)]
pub fn take_along(grad: &mut [f32], normed: &[f32], norm: Norm) {
    if norm != Norm::None {
        let along = sum!(grad, normed, |grad, normed| grad * normed) / grad.len() as f32;
        combine!(grad, normed, |grad, normed| grad - normed * along);
    }
}

/// Makes of the rest the gradient of the source; `inverse` is what [`normalise`] returned.
#[inline(always)]
pub fn to_source(grad: &mut [f32], inverse: f32, norm: Norm) {
    let mean = match norm {
        Norm::Layer(_) => sum!(grad, grad, |grad, _| grad) / grad.len() as f32,
        Norm::Rms(_) => 0.0,
        Norm::None => return,
    };
    update!(grad, |grad| inverse * (grad - mean));
}
