//! Products of matrices of float32 by the BLAS that torch computes with, within the work of one thread.

#![allow(unsafe_code)] // a library that is loaded, asked for a function by its name

use std::ffi::{c_char, c_int};
use std::path::Path;
use std::sync::OnceLock;

/// `sgemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)`, as Fortran calls it, of matrices column by column. A
/// library reads sizes as 32 bits or as 64: where the lower ones come first, these are both.
type Sgemm = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    *const i64,
    *const i64,
    *const i64,
    *const f32,
    *const f32,
    *const i64,
    *const f32,
    *const i64,
    *const f32,
    *mut f32,
    *const i64,
);
/// Of MKL: how many threads this one's products take from now on, 0 for as many as others; returns how many it was.
type SetThreads = unsafe extern "C" fn(c_int) -> c_int;

/// A BLAS that the process has loaded.
#[derive(Clone, Copy, Debug)]
pub struct Blas {
    sgemm: Sgemm,
    set_threads: SetThreads,
}

static BLAS: OnceLock<Option<Blas>> = OnceLock::new();

/// What a product's place is multiplied by before the product is added: what is there is of no account, or stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beta {
    Zero,
    One,
}

impl Blas {
    /// From now on [`Blas::adopted`] is the MKL at `library`, if that is one and the process has loaded it.
    pub fn adopt(library: &Path) -> bool {
        BLAS.get_or_init(|| find(library)).is_some()
    }

    pub fn adopted() -> Option<Self> {
        *BLAS.get()?
    }

    /// Does it with products on this thread alone.
    pub fn alone<R>(self, work: impl FnOnce() -> R) -> R {
        // SAFETY: any number is allowed, and it is of this thread only.
        let before = unsafe { (self.set_threads)(1) };
        let result = work();
        // SAFETY: as above.
        unsafe { (self.set_threads)(before) };
        result
    }

    /// `out` (N, M) of x (N, K) times a matrix (M, K) transposed.
    pub fn times_transposed(self, x: &[f32], matrix: &[f32], k: usize, out: &mut [f32], beta: Beta) {
        let (n, m) = (x.len() / k, matrix.len() / k);
        // Of columns, it is the matrix (K, M) transposed times x (K, N).
        self.multiply([true, false], [m, n, k], (matrix, k), (x, k), (out, m), beta);
    }

    /// `out` (N, K) of x (N, M) times a matrix (M, K).
    pub fn times(self, x: &[f32], matrix: &[f32], k: usize, out: &mut [f32]) {
        let m = matrix.len() / k;
        self.multiply([false, false], [k, x.len() / m, m], (matrix, k), (x, m), (out, k), Beta::Zero);
    }

    /// `out` (M, K) of x (N, M) transposed times y (N, K).
    pub fn transposed_times(self, x: &[f32], y: &[f32], k: usize, out: &mut [f32], beta: Beta) {
        let n = y.len() / k;
        let m = x.len() / n;
        self.multiply([false, true], [k, m, n], (y, k), (x, m), (out, k), beta);
    }

    fn multiply(
        self,
        transposed: [bool; 2],
        [m, n, k]: [usize; 3],
        (a, column_of_a): (&[f32], usize),
        (b, column_of_b): (&[f32], usize),
        (c, column_of_c): (&mut [f32], usize),
        beta: Beta,
    ) {
        assert_eq!([a.len(), b.len(), c.len()], [m * k, k * n, m * n], "sizes of a product");
        let [transposed_a, transposed_b] = transposed.map(|yes| (if yes { b'T' } else { b'N' }) as c_char);
        let [m, n, k, a_step, b_step, c_step] =
            [m, n, k, column_of_a, column_of_b, column_of_c].map(|size| size as i64);
        let (one, beta) = (1.0, if beta == Beta::One { 1.0 } else { 0.0 });
        // SAFETY: the three matrices have the sizes that are said, which the slices were found to have.
        unsafe {
            (self.sgemm)(
                &raw const transposed_a,
                &raw const transposed_b,
                &raw const m,
                &raw const n,
                &raw const k,
                &raw const one,
                a.as_ptr(),
                &raw const a_step,
                b.as_ptr(),
                &raw const b_step,
                &raw const beta,
                c.as_mut_ptr(),
                &raw const c_step,
            );
        }
    }
}

fn find(library: &Path) -> Option<Blas> {
    let find = |name| super::loaded::function(library, name);
    let (sgemm, set_threads) = (find(c"sgemm_")?, find(c"MKL_Set_Num_Threads_Local")?);
    // SAFETY: functions of these names have these parameters: they are of BLAS and of MKL, whose interfaces do not change.
    Some(unsafe {
        Blas {
            sgemm: std::mem::transmute::<*mut std::ffi::c_void, Sgemm>(sgemm),
            set_threads: std::mem::transmute::<*mut std::ffi::c_void, SetThreads>(set_threads),
        }
    })
}
