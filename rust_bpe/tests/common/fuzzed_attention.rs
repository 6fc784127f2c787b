//! What the fuzz target of attention checks of an input.

use rust_bpe::kernels::attention::{Norm, Shape, mix, mix_backward};
use rust_bpe::kernels::number::Number;
use rust_bpe::reference;

/// Heads of any numbers, in both formats, normalised and turned in each way: mixed values are those of the definition, a
/// step along any direction changes them by what the gradient says, and threads change nothing. An input begins with the
/// way, the length, the heads and the number of sequences; numbers follow.
pub fn attention(data: &[u8]) {
    let [how, length, heads, n_sequences, numbers @ ..] = data else { return };
    let (kv_heads, group, head_size) = (1 + usize::from(heads & 1), 1 + usize::from(heads >> 1 & 1), 16);
    let head_size = head_size * (1 + usize::from(heads >> 2 & 1));
    let (length, n_sequences) = (1 + usize::from(*length % 80), usize::from(*n_sequences % 4));
    let angles: Vec<f32> =
        (0..length * head_size / 2).flat_map(|place| [(place as f32).cos(), (place as f32).sin()]).collect();
    let shape = Shape {
        length,
        n_heads: kv_heads * group,
        kv_heads,
        head_size,
        norm: [Norm::None, Norm::Layer(1e-3), Norm::Rms(1e-3)][usize::from(how >> 1 & 3) % 3],
        angles: (how & 8 != 0).then_some(&angles),
    };
    let byte = |place: usize| numbers.get(place % numbers.len().max(1)).copied().unwrap_or(0);
    // Of a few inputs the bits are taken as they are: then nothing is known but that it ends.
    let is_any = how & 48 == 48;
    let number = |place: usize| match is_any {
        true => f32::from_bits(u32::from_be_bytes([0, 1, 2, 3].map(|offset| byte(4 * place + offset)))),
        false => f32::from(byte(place) as i8) / 32.0 + (place % 7) as f32 / 8.0,
    };
    let (n_projected, n_mixed) = ((shape.n_heads + 2 * kv_heads) * head_size, shape.n_heads * head_size);
    let projected: Vec<f32> = (0..n_sequences * length * n_projected).map(number).collect();
    let grads: Vec<f32> = (0..n_sequences * length * n_mixed).map(|place| number(7 * place + 3)).collect();
    if how & 1 == 0 {
        check(&projected, &grads, shape, is_any, 2e-5);
    } else {
        let low = |numbers: &[f32]| numbers.iter().map(|number| u16::from_f32(*number)).collect::<Vec<_>>();
        check(&low(&projected), &low(&grads), shape, is_any, 0.01);
    }
}

fn check<T: Number>(projected: &[T], grads: &[T], shape: Shape, is_any: bool, rounding: f64) {
    let zero = T::from_f32(0.0);
    let (mut mixed, mut found) = (vec![zero; grads.len()], vec![zero; projected.len()]);
    mix(projected, &mut mixed, shape, 2).expect("lengths that fit");
    mix_backward(projected, grads, &mut found, shape, 2).expect("lengths that fit");
    let (mut alone, mut found_alone) = (mixed.clone(), found.clone());
    mix(projected, &mut alone, shape, 1).expect("the same input");
    mix_backward(projected, grads, &mut found_alone, shape, 1).expect("the same input");
    let bits = |numbers: &[T]| numbers.iter().map(|number| number.to_f32().to_bits()).collect::<Vec<_>>();
    assert_eq!((bits(&mixed), bits(&found)), (bits(&alone), bits(&found_alone)));
    assert!(
        mix(&projected[..projected.len().saturating_sub(1)], &mut mixed, shape, 1).is_err() || projected.is_empty()
    );
    if is_any {
        return;
    }
    let exact = |numbers: &[T]| numbers.iter().map(|number| f64::from(number.to_f32())).collect::<Vec<_>>();
    let (projected, grads, mixed, found) = (exact(projected), exact(grads), exact(&alone), exact(&found));
    let n_projected = shape.length * (shape.n_heads + 2 * shape.kv_heads) * shape.head_size;
    let n_mixed = shape.length * shape.n_heads * shape.head_size;
    let sequences = projected.chunks(n_projected).zip(found.chunks(n_projected));
    for ((projected, found), (mixed, grads)) in sequences.zip(mixed.chunks(n_mixed).zip(grads.chunks(n_mixed))) {
        let expected = reference::attention::mix(projected, &shape);
        for (mixed, expected) in mixed.iter().zip(&expected) {
            assert!((mixed - expected).abs() <= rounding * (1.0 + expected.abs()), "{mixed} for {expected}");
        }
        // Along a direction that no part of the gradient is alone in.
        let direction: Vec<f64> = (0..projected.len()).map(|place| (place as f64 * 0.7).sin()).collect();
        let loss_at = |step: f64| {
            let there: Vec<f64> =
                projected.iter().zip(&direction).map(|(number, along)| number + step * along).collect();
            reference::attention::mix(&there, &shape).iter().zip(grads).map(|(mixed, grad)| mixed * grad).sum::<f64>()
        };
        const STEP: f64 = 1e-5;
        let slope = (loss_at(STEP) - loss_at(-STEP)) / (2.0 * STEP);
        let told: f64 = found.iter().zip(&direction).map(|(grad, along)| grad * along).sum();
        let size: f64 = found.iter().map(|grad| grad.abs()).sum();
        assert!((slope - told).abs() <= 10.0 * rounding * (1.0 + size), "{told} for {slope}");
    }
}
