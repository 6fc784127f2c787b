//! The loss of a row of logits and its gradient by their definition, in float64.

/// -ln softmax(logits) at `target`, and the softmax of all, of which the gradient is one less at `target`.
pub fn row(logits: &[f64], target: usize) -> (f64, Vec<f64>) {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exponentials: Vec<f64> = logits.iter().map(|logit| (logit - largest).exp()).collect();
    let total: f64 = exponentials.iter().sum();
    let softmax = exponentials.iter().map(|exponential| exponential / total).collect();
    (largest - logits[target] + total.ln(), softmax)
}
