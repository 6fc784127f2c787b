//! Causal attention of one sequence by its definition, in float64.

use crate::kernels::attention::{Norm, Shape};

/// See [`crate::kernels::attention::mix`]: (T, (H + 2 K) x d) to (T, H x d).
pub fn mix(projected: &[f64], shape: &Shape) -> Vec<f64> {
    let Shape { length, n_heads, kv_heads, head_size, .. } = *shape;
    let width = (n_heads + 2 * kv_heads) * head_size;
    let head = |position: usize, head: usize| &projected[position * width + head * head_size..][..head_size];
    let mut mixed = vec![];
    for position in 0..length {
        for query in 0..n_heads {
            let group = query / (n_heads / kv_heads);
            let q = prepared(head(position, query), position, shape);
            let scores = (0..=position).map(|earlier| {
                let k = prepared(head(earlier, n_heads + group), earlier, shape);
                q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() / (head_size as f64).sqrt()
            });
            let weights = softmax(&scores.collect::<Vec<_>>());
            mixed.extend((0..head_size).map(|feature| {
                let values = weights.iter().enumerate();
                let value = |earlier| head(earlier, n_heads + kv_heads + group)[feature];
                values.map(|(earlier, weight)| weight * value(earlier)).sum::<f64>()
            }));
        }
    }
    mixed
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
    scores.iter().map(|score| (score - largest).exp() / total).collect()
}

/// A head normalised and turned.
fn prepared(head: &[f64], position: usize, shape: &Shape) -> Vec<f64> {
    let size = head.len() as f64;
    let (mean, eps) = match shape.norm {
        Norm::None => (0.0, None),
        Norm::Rms(eps) => (0.0, Some(eps)),
        Norm::Layer(eps) => (head.iter().sum::<f64>() / size, Some(eps)),
    };
    let variance = head.iter().map(|number| (number - mean).powi(2)).sum::<f64>() / size;
    let scale = eps.map_or(1.0, |eps| 1.0 / (variance + f64::from(eps)).sqrt());
    let mut normed: Vec<f64> = head.iter().map(|number| (number - mean) * scale).collect();
    if let Some(angles) = shape.angles {
        let angles = angles[position * head.len()..][..head.len()].chunks(2);
        for (pair, angle) in normed.chunks_mut(2).zip(angles) {
            let (cos, sin) = (f64::from(angle[0]), f64::from(angle[1]));
            (pair[0], pair[1]) = (pair[0] * cos - pair[1] * sin, pair[0] * sin + pair[1] * cos);
        }
    }
    normed
}
