//! Sixteen numbers at once, the same on every processor: so sums are added in the same order everywhere.
//!
//! Rows are as long as a multiple of that, and loops go over them by sixteen: a loop of any length the compiler makes one
//! of 64 numbers a turn, and the 32 of a short head go one by one then. What is done to each number is given to macros, not
//! as a closure: in kernels as large as these the compiler made functions of their own of closures, of `array::from_fn`
//! and of `for_each`, for any processor and one number at a time.

pub(super) use std::hint::black_box;
use std::ops::{Deref, DerefMut, Range};

use super::number::Number;
use crate::memory;

pub const LANES: usize = 16;

/// Zeros that begin with a line of the cache, so that sixteen of them are never of two.
pub struct Aligned {
    numbers: Vec<f32>,
    place: Range<usize>,
}

impl Aligned {
    pub fn zeros(n: usize) -> Self {
        let (numbers, first) = memory::zeroed_aligned(n);
        Self { numbers, place: first..first + n }
    }
}

impl Deref for Aligned {
    type Target = [f32];

    #[inline(always)]
    fn deref(&self) -> &[f32] {
        &self.numbers[self.place.clone()]
    }
}

impl DerefMut for Aligned {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.numbers[self.place.clone()]
    }
}

/// An array of what each lane's value is, all of it before the first is put anywhere.
macro_rules! each {
    ($n:expr, |$lane:ident| $value:expr) => {{
        let mut all = [Default::default(); $n];
        for $lane in 0..$n {
            all[$lane] = $value;
        }
        all
    }};
}

/// Makes of each number what the expression says.
macro_rules! update {
    ($numbers:expr, |$number:ident| $value:expr) => {
        for chunk in $numbers.as_chunks_mut::<LANES>().0 {
            *chunk = each!(LANES, |lane| {
                let $number = chunk[lane];
                $value
            });
            black_box(()); // or the compiler goes over chunks sixteen at a time, and gathers their first numbers
        }
    };
}

/// Makes of each number and its partner what the expression says.
macro_rules! combine {
    ($numbers:expr, $partners:expr, |$number:ident, $partner:ident| $value:expr) => {
        for (chunk, partners) in $numbers.as_chunks_mut::<LANES>().0.iter_mut().zip($partners.as_chunks::<LANES>().0) {
            *chunk = each!(LANES, |lane| {
                let ($number, $partner) = (chunk[lane], partners[lane]);
                $value
            });
            black_box(());
        }
    };
}

/// The sum over pairs of numbers.
macro_rules! sum {
    ($left:expr, $right:expr, |$a:pat_param, $b:pat_param| $value:expr) => {{
        let mut lanes = [0.0f32; LANES];
        for (left, right) in $left.as_chunks::<LANES>().0.iter().zip($right.as_chunks::<LANES>().0) {
            for lane in 0..LANES {
                let ($a, $b) = (left[lane], right[lane]);
                lanes[lane] += $value;
            }
        }
        reduce!(lanes, |a, b| a + b)
    }};
}

/// All lanes as one, halves by halves: one after another they would wait for each other.
macro_rules! reduce {
    ($lanes:expr, |$a:pat_param, $b:pat_param| $value:expr) => {{
        let lanes: [f32; LANES] = $lanes;
        // An array for each half: one that is cut in place goes through memory where it is one register wide.
        let eight: [f32; 8] = each!(8, |lane| {
            let ($a, $b) = (lanes[lane], lanes[lane + 8]);
            $value
        });
        let four: [f32; 4] = each!(4, |lane| {
            let ($a, $b) = (eight[lane], eight[lane + 4]);
            $value
        });
        let two: [f32; 2] = each!(2, |lane| {
            let ($a, $b) = (four[lane], four[lane + 2]);
            $value
        });
        let ($a, $b) = (two[0], two[1]);
        $value
    }};
}

pub(super) use {combine, each, reduce, sum, update};

/// Puts numbers, as float32, into as many places.
#[inline(always)]
pub fn load<T: Number>(places: &mut [f32], numbers: &[T]) {
    for (place, numbers) in places.as_chunks_mut::<LANES>().0.iter_mut().zip(numbers.as_chunks::<LANES>().0) {
        *place = each!(LANES, |lane| numbers[lane].to_f32());
        black_box(());
    }
}

/// Puts numbers times a factor into as many places.
#[inline(always)]
pub fn store<T: Number>(places: &mut [T], numbers: &[f32], factor: f32) {
    for (place, numbers) in places.as_chunks_mut::<LANES>().0.iter_mut().zip(numbers.as_chunks::<LANES>().0) {
        *place = each!(LANES, |lane| T::from_f32(numbers[lane] * factor));
        black_box(());
    }
}
