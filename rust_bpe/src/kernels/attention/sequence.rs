//! The heads of one sequence, one after another, both ways.

use std::ops::Range;

use super::Shape;
use super::tile::{Panels, Place, ROWS, Rows, product};
use super::turns::Turns;
use crate::kernels::lanes::{Aligned, LANES, black_box, each, load, reduce, store, sum};
use crate::kernels::norm::{Norm, normalise, take_along, to_source};
use crate::kernels::number::{Number, exponential};
use crate::memory;

/// Queries at a time: their scores are to stay in a second-level cache.
const BLOCK: usize = 64;

const LINE_BYTES: usize = 64;

/// The memory for one head. Rows of positions behind the last are zero, up to the next multiple of [`LANES`].
pub struct Scratch {
    /// Keys, normalised and turned, and values: (T, d); what keys were divided by, inverted; and both (d, T).
    k: Aligned,
    v: Aligned,
    inverse_k: Aligned,
    k_panels: Panels,
    v_panels: Panels,
    k_transposed: Panels,
    v_transposed: Panels,
    /// Their gradients.
    grad_k: Aligned,
    grad_v: Aligned,
    /// A block's queries, normalised and turned, and their gradients; and mixed values, or their gradients.
    q: Aligned,
    inverse_q: Aligned,
    q_panels: Panels,
    grad_q: Aligned,
    mixed: Aligned,
    mixed_panels: Panels,
    /// A block's scores, then weights (BLOCK, T and some), and the gradients of both.
    weights: Aligned,
    grads: Aligned,
    turns: Option<Turns>,
}

impl Scratch {
    pub fn new(shape: Shape) -> Self {
        let (length, size) = (shape.length.next_multiple_of(LANES), shape.head_size);
        let [k, v, grad_k, grad_v] = std::array::from_fn(|_| Aligned::zeros(length * size));
        let [k_panels, v_panels] = std::array::from_fn(|_| Panels::new(length, size));
        let [k_transposed, v_transposed] = std::array::from_fn(|_| Panels::new(size, length));
        let [q, grad_q, mixed] = std::array::from_fn(|_| Aligned::zeros(BLOCK * size));
        let [q_panels, mixed_panels] = std::array::from_fn(|_| Panels::new(BLOCK, size));
        let [weights, grads] = std::array::from_fn(|_| Aligned::zeros(BLOCK * width(shape)));
        let (inverse_k, inverse_q) = (Aligned::zeros(length), Aligned::zeros(BLOCK));
        Self {
            k,
            v,
            inverse_k,
            k_panels,
            v_panels,
            k_transposed,
            v_transposed,
            grad_k,
            grad_v,
            q,
            inverse_q,
            q_panels,
            grad_q,
            mixed,
            mixed_panels,
            weights,
            grads,
            turns: shape.angles.map(Turns::new),
        }
    }
}

/// Numbers of a row of weights: not a power of two, or the same column of all rows would share a few places of the cache.
fn width(shape: Shape) -> usize {
    shape.length.next_multiple_of(LANES) + LANES
}

/// Some queries, by their positions.
struct Block {
    positions: Range<usize>,
    /// How many rows of tiles there are: a multiple of [`ROWS`].
    n_rows: usize,
}

impl Block {
    fn all(length: usize) -> impl Iterator<Item = Block> {
        (0..length).step_by(BLOCK).map(move |begin| {
            let positions = begin..length.min(begin + BLOCK);
            let n_rows = positions.len().next_multiple_of(ROWS);
            Block { positions, n_rows }
        })
    }

    fn tiles(&self) -> impl Iterator<Item = usize> + use<> {
        (0..self.n_rows).step_by(ROWS)
    }

    /// How many positions the last row of the tile at `row` may look at: the tile needs no more of them.
    fn n_seen(&self, row: usize) -> usize {
        self.positions.start + row + ROWS
    }
}

/// See [`super::mix`].
#[inline(always)]
pub fn forward<T: Number, const WIDE: bool>(projected: &[T], mixed: &mut [T], shape: Shape, scratch: &mut Scratch) {
    let size = shape.head_size;
    for head in 0..shape.n_heads {
        if head.is_multiple_of(shape.n_heads / shape.kv_heads) {
            load_keys(projected, head, shape, scratch);
            scratch.v_panels.fill(&scratch.v, size);
        }
        for block in Block::all(shape.length) {
            let sums = weigh::<T, WIDE>(projected, head, &block, shape, scratch);
            let weights = Rows { numbers: &scratch.weights, width: width(shape) };
            for row in block.tiles() {
                let seen = 0..block.n_seen(row);
                let place = Place { numbers: &mut scratch.mixed, width: size, row };
                product::<WIDE, false>(weights.of(row, seen.clone()), &scratch.v_panels, seen, size, place);
            }
            let rows = scratch.mixed.chunks_exact(size).zip(sums);
            for (position, (row, sum)) in block.positions.clone().zip(rows) {
                let factor = 1.0 / sum;
                store(&mut mixed[position * shape.mixed() + head * size..][..size], row, factor);
            }
        }
    }
}

/// See [`super::mix_backward`].
#[inline(always)]
pub fn backward<T: Number, const WIDE: bool>(
    projected: &[T],
    grad_mixed: &[T],
    grad_projected: &mut [T],
    shape: Shape,
    scratch: &mut Scratch,
) {
    let group = shape.n_heads / shape.kv_heads;
    for head in 0..shape.n_heads {
        if head.is_multiple_of(group) {
            load_keys(projected, head, shape, scratch);
            scratch.k_panels.fill(&scratch.k, shape.head_size);
            scratch.v_transposed.fill_transposed(&scratch.v, shape.head_size);
            scratch.grad_k.fill(0.0);
            scratch.grad_v.fill(0.0);
        }
        for block in Block::all(shape.length) {
            let sums = weigh::<T, WIDE>(projected, head, &block, shape, scratch);
            load_grads(grad_mixed, head, &block, shape, scratch);
            to_scores::<WIDE>(&block, &sums, shape, scratch);
            add_to_keys::<WIDE>(&block, shape, scratch);
            to_queries::<T, WIDE>(grad_projected, head, &block, shape, scratch);
        }
        if (head + 1).is_multiple_of(group) {
            store_keys(grad_projected, head, shape, scratch);
        }
    }
}

/// Where a head of keys stands in a position's row; values are `kv_heads` heads behind it.
fn key_column(head: usize, shape: Shape) -> usize {
    (shape.n_heads + head / (shape.n_heads / shape.kv_heads)) * shape.head_size
}

/// One head of one position. The same of a position further on is called into the caches: rows are far apart.
#[inline(always)]
fn head_of<T: Number>(rows: &[T], width: usize, position: usize, column: usize, size: usize) -> &[T] {
    const AHEAD: usize = 8;
    let place = position * width + column;
    for offset in (0..size).step_by(LINE_BYTES / size_of::<T>()) {
        memory::prefetch(rows, place + AHEAD * width + offset);
    }
    &rows[place..][..size]
}

#[inline(always)]
fn load_keys<T: Number>(projected: &[T], head: usize, shape: Shape, scratch: &mut Scratch) {
    let size = shape.head_size;
    let (key, value) = (key_column(head, shape), key_column(head, shape) + shape.kv_heads * size);
    let row = |position, column| head_of(projected, shape.projected(), position, column, size);
    let places =
        scratch.k.chunks_exact_mut(size).zip(scratch.v.chunks_exact_mut(size)).zip(scratch.inverse_k.iter_mut());
    for (position, ((k, v), inverse)) in (0..shape.length).zip(places) {
        *inverse = normalise(row(position, key), shape.norm, k);
        if let Some(turns) = &scratch.turns {
            turns.turn(k, position);
        }
        load(v, row(position, value));
    }
    scratch.k_transposed.fill_transposed(&scratch.k, size);
}

/// Leaves in `weights` the exponentials of each query's scores less the largest, 0 behind its own position. Returns the
/// sums of them, by row.
#[inline(always)]
fn weigh<T: Number, const WIDE: bool>(
    projected: &[T],
    head: usize,
    block: &Block,
    shape: Shape,
    scratch: &mut Scratch,
) -> [f32; BLOCK] {
    let (size, width) = (shape.head_size, width(shape));
    let rows = scratch.q.chunks_exact_mut(size).zip(scratch.inverse_q.iter_mut());
    for (position, (q, inverse)) in block.positions.clone().zip(rows) {
        *inverse = normalise(head_of(projected, shape.projected(), position, head * size, size), shape.norm, q);
        if let Some(turns) = &scratch.turns {
            turns.turn(q, position);
        }
    }
    scratch.q[block.positions.len() * size..block.n_rows * size].fill(0.0);
    let q = Rows { numbers: &scratch.q, width: size };
    let (scale, most) = (scale(shape), most(shape));
    let mut sums = [0.0; BLOCK];
    for row in block.tiles() {
        let place = Place { numbers: &mut scratch.weights, width, row };
        product::<WIDE, false>(q.of(row, 0..size), &scratch.k_transposed, 0..size, block.n_seen(row), place);
        let n_columns = block.n_seen(row).next_multiple_of(LANES);
        let (first, rest) = scratch.weights[row * width..].split_at_mut(width);
        let (second, rest) = rest.split_at_mut(width);
        let (third, rest) = rest.split_at_mut(width);
        let rows = [first, second, third, &mut rest[..width]].map(|row| row[..n_columns].as_chunks_mut::<LANES>().0);
        sums[row..row + ROWS].copy_from_slice(&softmax(rows, row % LANES + 1, scale, most));
    }
    sums
}

/// What the product of a query and a key is multiplied by.
fn scale(shape: Shape) -> f32 {
    1.0 / (shape.head_size as f32).sqrt()
}

/// What no score is above, where heads are normalised: a query's length, at most sqrt(d), times a key's, by sqrt(d). Heads
/// so large that e^-2 sqrt(d) would be next to nothing have none.
fn most(shape: Shape) -> Option<f32> {
    const LARGEST: usize = 1024;
    (shape.norm != Norm::None && shape.head_size <= LARGEST).then(|| (shape.head_size as f32).sqrt())
}

/// Exponentials of each row's numbers times `scale` less the largest, or less what none is above, in place; of the last
/// sixteen only the first `n_last` count, of each row one more, and the others become 0. Returns their sums.
#[inline(always)]
fn softmax(rows: [&mut [[f32; LANES]]; ROWS], n_last: usize, scale: f32, most: Option<f32>) -> [f32; ROWS] {
    let last = rows[0].len() - 1;
    let [a, b, c, d] = rows;
    hide(&mut a[last], n_last);
    hide(&mut b[last], n_last + 1);
    hide(&mut c[last], n_last + 2);
    hide(&mut d[last], n_last + 3);
    let largest = match most {
        Some(most) => [most; ROWS],
        None => [scale * largest(a), scale * largest(b), scale * largest(c), scale * largest(d)],
    };
    let mut lanes = [[0.0; LANES]; ROWS];
    // Four rows at once, for an exponential is a dozen steps that wait for each other.
    for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
        weigh_lanes(a, scale, largest[0], &mut lanes[0]);
        weigh_lanes(b, scale, largest[1], &mut lanes[1]);
        weigh_lanes(c, scale, largest[2], &mut lanes[2]);
        weigh_lanes(d, scale, largest[3], &mut lanes[3]);
    }
    [
        reduce!(lanes[0], |a, b| a + b),
        reduce!(lanes[1], |a, b| a + b),
        reduce!(lanes[2], |a, b| a + b),
        reduce!(lanes[3], |a, b| a + b),
    ]
}

/// Makes those from `n_seen` on ones whose exponential is 0.
#[inline(always)]
fn hide(numbers: &mut [f32; LANES], n_seen: usize) {
    *numbers = each!(LANES, |lane| if lane < n_seen { numbers[lane] } else { f32::NEG_INFINITY });
}

#[inline(always)]
fn largest(chunks: &[[f32; LANES]]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        lanes = each!(LANES, |lane| if chunk[lane] > lanes[lane] { chunk[lane] } else { lanes[lane] });
    }
    reduce!(lanes, |a, b| if a > b { a } else { b })
}

#[inline(always)]
fn weigh_lanes(numbers: &mut [f32; LANES], scale: f32, largest: f32, sums: &mut [f32; LANES]) {
    *numbers = each!(LANES, |lane| exponential(numbers[lane].mul_add(scale, -largest)));
    *sums = each!(LANES, |lane| sums[lane] + numbers[lane]);
}

/// The gradients of a block's mixed values.
#[inline(always)]
fn load_grads<T: Number>(grad_mixed: &[T], head: usize, block: &Block, shape: Shape, scratch: &mut Scratch) {
    let size = shape.head_size;
    for (position, place) in block.positions.clone().zip(scratch.mixed.chunks_exact_mut(size)) {
        let row = head_of(grad_mixed, shape.mixed(), position, head * size, size);
        load(place, row);
    }
    scratch.mixed[block.positions.len() * size..block.n_rows * size].fill(0.0);
}

/// Weights become those that add up to 1, and `grads` the gradients of the products of queries and keys.
#[inline(always)]
fn to_scores<const WIDE: bool>(block: &Block, sums: &[f32; BLOCK], shape: Shape, scratch: &mut Scratch) {
    let (size, width, scale) = (shape.head_size, width(shape), scale(shape));
    let grad_mixed = Rows { numbers: &scratch.mixed, width: size };
    for row in block.tiles() {
        let of_values = grad_mixed.of(row, 0..size);
        let place = Place { numbers: &mut scratch.grads, width, row };
        product::<WIDE, false>(of_values, &scratch.v_transposed, 0..size, block.n_seen(row), place);
        let n_columns = block.n_seen(row).next_multiple_of(LANES);
        for (offset, total) in sums.iter().enumerate().skip(row).take(ROWS) {
            let weights = &mut scratch.weights[offset * width..][..n_columns];
            let grads = &mut scratch.grads[offset * width..][..n_columns];
            let factor = 1.0 / total;
            let along = factor * sum!(weights, grads, |weight, grad| weight * grad);
            for (weights, grads) in weights.as_chunks_mut::<LANES>().0.iter_mut().zip(grads.as_chunks_mut::<LANES>().0)
            {
                *weights = each!(LANES, |lane| weights[lane] * factor);
                *grads = each!(LANES, |lane| scale * weights[lane] * (grads[lane] - along));
                black_box(());
            }
        }
    }
}

/// Adds what a block's queries give to the gradients of the keys and values that they saw.
#[inline(always)]
fn add_to_keys<const WIDE: bool>(block: &Block, shape: Shape, scratch: &mut Scratch) {
    let (size, width) = (shape.head_size, width(shape));
    scratch.q_panels.fill(&scratch.q, size);
    scratch.mixed_panels.fill(&scratch.mixed, size);
    let weights = Rows { numbers: &scratch.weights, width };
    let grads = Rows { numbers: &scratch.grads, width };
    for key in (0..block.positions.start + block.n_rows).step_by(ROWS) {
        // Rows before it did not see it.
        let rows = key.saturating_sub(block.positions.start)..block.n_rows;
        let to_k = Place { numbers: &mut scratch.grad_k, width: size, row: key };
        product::<WIDE, true>(grads.transposed(key, rows.clone()), &scratch.q_panels, rows.clone(), size, to_k);
        let to_v = Place { numbers: &mut scratch.grad_v, width: size, row: key };
        product::<WIDE, true>(weights.transposed(key, rows.clone()), &scratch.mixed_panels, rows, size, to_v);
    }
}

/// The gradients of a block's queries, back to those of their projections.
#[inline(always)]
fn to_queries<T: Number, const WIDE: bool>(
    grad_projected: &mut [T],
    head: usize,
    block: &Block,
    shape: Shape,
    scratch: &mut Scratch,
) {
    let (size, width) = (shape.head_size, width(shape));
    let grads = Rows { numbers: &scratch.grads, width };
    for row in block.tiles() {
        let seen = 0..block.n_seen(row);
        let place = Place { numbers: &mut scratch.grad_q, width: size, row };
        product::<WIDE, false>(grads.of(row, seen.clone()), &scratch.k_panels, seen, size, place);
    }
    let rows = scratch.grad_q.chunks_exact_mut(size).zip(scratch.q.chunks_exact(size)).zip(scratch.inverse_q.iter());
    for (position, ((grad, q), inverse)) in block.positions.clone().zip(rows) {
        take_along(grad, q, shape.norm); // a turn changes no product of two heads
        if let Some(turns) = &scratch.turns {
            turns.turn_back(grad, position);
        }
        to_source(grad, *inverse, shape.norm);
        let place = &mut grad_projected[position * shape.projected() + head * size..][..size];
        store(place, grad, 1.0);
    }
}

/// The gradients of keys and values, back to those of their projections.
#[inline(always)]
fn store_keys<T: Number>(grad_projected: &mut [T], head: usize, shape: Shape, scratch: &mut Scratch) {
    let size = shape.head_size;
    let (key, value) = (key_column(head, shape), key_column(head, shape) + shape.kv_heads * size);
    let rows = scratch.grad_k.chunks_exact_mut(size).zip(scratch.k.chunks_exact(size)).zip(scratch.inverse_k.iter());
    let places = grad_projected.chunks_mut(shape.projected()).zip(scratch.grad_v.chunks_exact(size));
    for (position, ((place, grad_v), ((grad_k, k), inverse))) in places.zip(rows).enumerate() {
        take_along(grad_k, k, shape.norm);
        if let Some(turns) = &scratch.turns {
            turns.turn_back(grad_k, position);
        }
        to_source(grad_k, *inverse, shape.norm);
        for (column, grads) in [(key, &*grad_k), (value, grad_v)] {
            let place = &mut place[column..][..size];
            store(place, grads, 1.0);
        }
    }
}
