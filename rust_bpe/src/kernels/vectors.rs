//! Kernels compiled for AVX2 and for AVX-512: eight and sixteen numbers an instruction, with the same results.
//!
//! Attention with AVX-512 for AVX2, both passes, float32 (Intel Xeon): 12 x 64 positions, 4 heads of 32: 2.3 to 1.6 ms; 2 x 512,
//! 8 heads of 64: 36 to 22. In bfloat16 2.6 to 1.6, and 36 to 21. A third of it is two tiles of a product at a time, memory
//! that begins with a line of the cache a twentieth. Lost: tiles of eight rows, whose eight places leave no register free.

#![allow(unsafe_code)] // calls of functions compiled for a processor that was asked; a quarter of the time

use std::arch::x86_64::*;

use super::Kernel;
use super::lanes::LANES;
use crate::processor::{Avx2, Avx512};

/// [`Kernel::run`].
pub(super) fn run_avx2<K: Kernel>(_: Avx2, kernel: K) {
    // SAFETY: an `Avx2` exists only where the processor was found to have what this is compiled for.
    unsafe { enter_avx2(kernel) }
}

/// [`Kernel::run`].
pub(super) fn run_avx512<K: Kernel>(_: Avx512, kernel: K) {
    // SAFETY: an `Avx512` exists only where the processor was found to have what this is compiled for.
    unsafe { enter_avx512(kernel) }
}

#[target_feature(enable = "avx2,fma")]
fn enter_avx2<K: Kernel>(kernel: K) {
    kernel.run::<false>();
}

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
fn enter_avx512<K: Kernel>(kernel: K) {
    kernel.run::<true>();
}

/// Sixteen rows of sixteen numbers, `width` from one to the next, as columns.
pub(super) fn transpose(_: Avx512, rows: &[f32], width: usize, columns: &mut [[f32; LANES]; LANES]) {
    assert!(width <= rows.len() && rows.len() >= (LANES - 1) * width + LANES, "sixteen rows");
    // SAFETY: an `Avx512` exists only where the processor was found to have what this is compiled for, and the rows end
    // within the numbers.
    unsafe { transpose_avx512(rows.as_ptr(), width, columns) }
}

/// By pairs, by fours, and by fours of those. From numbers one at a time it took a twelfth of attention's time.
///
/// # Safety
///
/// There are sixteen rows.
#[target_feature(enable = "avx512f")]
unsafe fn transpose_avx512(rows: *const f32, width: usize, columns: &mut [[f32; LANES]; LANES]) {
    // SAFETY: as the caller says.
    let mut rows: [__m512; LANES] = std::array::from_fn(|row| unsafe { _mm512_loadu_ps(rows.add(row * width)) });
    for i in (0..LANES).step_by(2) {
        let (a, b) = (rows[i], rows[i + 1]);
        (rows[i], rows[i + 1]) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    }
    for i in (0..LANES).step_by(4) {
        let [a, b, c, d] = [rows[i], rows[i + 1], rows[i + 2], rows[i + 3]].map(|row| _mm512_castps_pd(row));
        let pairs = [(a, c), (b, d)].map(|(a, c)| [_mm512_unpacklo_pd(a, c), _mm512_unpackhi_pd(a, c)]);
        for (place, row) in rows[i..].iter_mut().zip(pairs.as_flattened()) {
            *place = _mm512_castpd_ps(*row);
        }
    }
    // Row 4 i + j has, in its fourth q, column 4 q + j of rows 4 i to 4 i + 3.
    for j in 0..4 {
        let [a, b, c, d] = [rows[j], rows[4 + j], rows[8 + j], rows[12 + j]];
        let (even_ab, odd_ab) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xDD>(a, b));
        let (even_cd, odd_cd) = (_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xDD>(c, d));
        let found = [
            _mm512_shuffle_f32x4::<0x88>(even_ab, even_cd),
            _mm512_shuffle_f32x4::<0x88>(odd_ab, odd_cd),
            _mm512_shuffle_f32x4::<0xDD>(even_ab, even_cd),
            _mm512_shuffle_f32x4::<0xDD>(odd_ab, odd_cd),
        ];
        for (q, column) in found.into_iter().enumerate() {
            // SAFETY: a column is sixteen numbers.
            unsafe { _mm512_storeu_ps(columns[4 * q + j].as_mut_ptr(), column) };
        }
    }
}
