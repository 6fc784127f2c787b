//! What the fuzz target of the loss head's rows checks of an input.

use rust_bpe::kernels::logits::{IGNORED, Shape, each_row};
use rust_bpe::kernels::number::Number;
use rust_bpe::reference;

/// Rows of any numbers, in both formats, with and without biases: losses and gradients are those of the definition, and
/// what is no number stays none. An input begins with the format, the number of ids, of columns behind them, and of rows;
/// targets follow, then numbers.
pub fn logits(data: &[u8]) {
    let [how, n_ids, n_padding, n_rows, rest @ ..] = data else { return };
    let (n_ids, n_padding, n_rows) = (1 + usize::from(*n_ids), usize::from(*n_padding % 8), usize::from(*n_rows % 8));
    let (targets, numbers) = rest.split_at(n_rows.min(rest.len()));
    // Some are of no column, or of none that there is.
    let targets: Vec<i64> = targets.iter().map(|&target| i64::from(target) - 1).collect();
    let bits = |place: usize, n_bytes: usize| {
        let byte = |offset: usize| numbers.get((place * n_bytes + offset) % numbers.len().max(1)).copied().unwrap_or(0);
        (0..n_bytes).fold(0, |bits, offset| bits << 8 | u32::from(byte(offset)))
    };
    let n_columns = n_ids + n_padding;
    let bias: Option<Vec<f32>> =
        (how & 2 != 0).then(|| (0..n_ids).map(|id| f32::from_bits(bits(id, 2) << 16)).collect());
    let shape = Shape { n_columns, n_ids, bias: bias.as_deref() };
    let n_numbers = targets.len() * n_columns;
    if how & 1 == 0 {
        // A rounding of bfloat16 is up to 1 in 2^8.
        check(&(0..n_numbers).map(|place| bits(place, 2) as u16).collect::<Vec<_>>(), shape, &targets, 0.004);
    } else {
        check(&(0..n_numbers).map(|place| f32::from_bits(bits(place, 4))).collect::<Vec<_>>(), shape, &targets, 1e-7);
    }
}

fn check<T: Number>(logits: &[T], shape: Shape, targets: &[i64], rounding: f64) {
    let mut found = logits.to_vec();
    let losses = match each_row(&mut found, shape, targets, true, 2) {
        Ok(losses) => losses,
        Err(_) => return assert!(targets.iter().any(|&target| target >= shape.n_ids as i64)),
    };
    let alone = each_row(&mut logits.to_vec(), shape, targets, false, 1).expect("the same input");
    assert_eq!(
        alone.iter().map(|loss| loss.to_bits()).collect::<Vec<_>>(),
        losses.iter().map(|loss| loss.to_bits()).collect::<Vec<_>>()
    );
    let rows = logits.chunks(shape.n_columns).zip(found.chunks(shape.n_columns));
    for (((row, found), &target), loss) in rows.zip(targets).zip(losses) {
        let (found, padding) = found.split_at(shape.n_ids);
        assert!(padding.iter().all(|number| number.to_f32() == 0.0));
        if target == IGNORED {
            assert!(loss == 0.0 && found.iter().all(|number| number.to_f32() == 0.0));
            continue;
        }
        let bias = |id: usize| shape.bias.map_or(0.0, |bias| bias[id]);
        let row: Vec<f64> = (0..shape.n_ids).map(|id| f64::from(row[id].to_f32() + bias(id))).collect();
        let target = target as usize;
        if row.iter().any(|logit| logit.is_nan() || *logit == f64::INFINITY)
            || row.iter().all(|logit| logit.is_infinite())
        {
            assert!(loss.is_nan());
            continue;
        }
        let (exact, softmax) = reference::logits::row(&row, target);
        // Beyond the largest float32 both are infinite.
        let is_near =
            (f64::from(loss) - exact).abs() <= 1e-6 * (1.0 + exact.abs()) || f64::from(loss) == f64::from(exact as f32);
        assert!(is_near, "{loss} for {exact}");
        for (id, (found, share)) in found.iter().zip(softmax).enumerate() {
            let exact = share - if id == target { 1.0 } else { 0.0 };
            // A difference of logits is rounded before its exponential is taken.
            let error = (f64::from(found.to_f32()) - exact).abs();
            assert!(error <= rounding * exact.abs() + 1e-5 * share + 1e-37, "{} for {exact}", found.to_f32());
        }
    }
}
