//! Products of matrices in tiles that stay in registers: 4 rows of 16 columns, a rank-one update at a time.

use std::ops::Range;

use crate::kernels::lanes::{Aligned, LANES, each};
#[cfg(target_arch = "x86_64")]
use crate::kernels::vectors::transpose;
#[cfg(target_arch = "x86_64")]
use crate::processor::Avx512;

pub const ROWS: usize = 4;

type Tile = [[f32; LANES]; ROWS];

/// Rows of `width` numbers, one after another: what stands left in a product.
#[derive(Clone, Copy)]
pub struct Rows<'m> {
    pub numbers: &'m [f32],
    pub width: usize,
}

impl<'m> Rows<'m> {
    /// For each of `columns`: its numbers in [`ROWS`] rows from `first` on.
    #[inline(always)]
    pub fn of(self, first: usize, columns: Range<usize>) -> impl Iterator<Item = [f32; ROWS]> + Clone {
        let row = |offset: usize| self.numbers[(first + offset) * self.width..][columns.clone()].iter();
        row(0).zip(row(1)).zip(row(2)).zip(row(3)).map(|(((&a, &b), &c), &d)| [a, b, c, d])
    }

    /// The same of the transposed matrix. For each of `rows`: its [`ROWS`] numbers from `first` on.
    #[inline(always)]
    pub fn transposed(self, first: usize, rows: Range<usize>) -> impl Iterator<Item = [f32; ROWS]> + Clone + use<'m> {
        let rows = &self.numbers[rows.start * self.width..rows.end * self.width];
        rows.chunks_exact(self.width).map(move |row| *row[first..].first_chunk().expect("within the row"))
    }
}

/// A matrix as it stands right in a product: [`LANES`] columns of all rows, then the next ones. So a product reads memory
/// from one end to the other, where rows of a power of two would share a few places of the cache.
pub struct Panels {
    numbers: Aligned,
    n_rows: usize,
}

impl Panels {
    /// Zeros; `n_columns` is a multiple of [`LANES`].
    pub fn new(n_rows: usize, n_columns: usize) -> Self {
        Self { numbers: Aligned::zeros(n_rows * n_columns), n_rows }
    }

    /// Puts a matrix there, row by row; rows behind it stay.
    #[inline(always)]
    pub fn fill(&mut self, rows: &[f32], width: usize) {
        for (panel, column) in
            self.numbers.as_chunks_mut::<LANES>().0.chunks_exact_mut(self.n_rows).zip((0..width).step_by(LANES))
        {
            for (place, row) in panel.iter_mut().zip(rows.chunks_exact(width)) {
                place.copy_from_slice(&row[column..][..LANES]);
            }
        }
    }

    /// The same of the transposed matrix, of as many rows as there are columns here.
    #[inline(always)]
    pub fn fill_transposed(&mut self, rows: &[f32], width: usize) {
        #[cfg(target_arch = "x86_64")]
        let avx512 = Avx512::detect();
        let panels = self.numbers.as_chunks_mut::<LANES>().0.chunks_exact_mut(self.n_rows);
        for (panel, rows) in panels.zip(rows.chunks_exact(width * LANES)) {
            #[cfg(target_arch = "x86_64")]
            if let Some(avx512) = avx512 {
                for (column, places) in panel.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                    transpose(avx512, &rows[column * LANES..], width, places);
                }
                continue;
            }
            for (row, place) in panel.iter_mut().enumerate() {
                for (column, place) in place.iter_mut().enumerate() {
                    *place = rows[column * width + row];
                }
            }
        }
    }

    /// [`LANES`] columns from `column` on, a multiple of that, of each of `rows`.
    #[inline(always)]
    pub fn of(&self, column: usize, rows: Range<usize>) -> &[[f32; LANES]] {
        &self.numbers.as_chunks::<LANES>().0[column / LANES * self.n_rows..][rows]
    }
}

/// Where a product belongs: rows of `width` numbers, from `row` on, in the columns of the same number.
pub struct Place<'m> {
    pub numbers: &'m mut [f32],
    pub width: usize,
    pub row: usize,
}

impl Place<'_> {
    /// Puts a tile there, or adds it.
    #[inline(always)]
    fn take<const ADD: bool>(&mut self, column: usize, tile: Tile) {
        let mut rows = self.numbers[self.row * self.width..].chunks_exact_mut(self.width);
        let [first, second, third, fourth] = tile; // not a loop, which the compiler would keep, and the tile in memory
        take_row::<ADD>(rows.next(), column, first);
        take_row::<ADD>(rows.next(), column, second);
        take_row::<ADD>(rows.next(), column, third);
        take_row::<ADD>(rows.next(), column, fourth);
    }
}

#[inline(always)]
fn take_row<const ADD: bool>(row: Option<&mut [f32]>, column: usize, sums: [f32; LANES]) {
    let row = row.expect("as many rows");
    let place: &mut [f32; LANES] = row[column..].first_chunk_mut().expect("within the row");
    *place = if ADD { each!(LANES, |lane| place[lane] + sums[lane]) } else { sums };
}

/// The product of four numbers (`left`) with `n_columns` columns (`right`), for each of `rows`, put at its place or added
/// to it. `WIDE` is for registers that hold the numbers of a row of a tile: two tiles are made at once then, for four sums
/// alone wait for the ones before.
#[inline(always)]
pub fn product<const WIDE: bool, const ADD: bool>(
    left: impl Iterator<Item = [f32; ROWS]> + Clone,
    right: &Panels,
    rows: Range<usize>,
    n_columns: usize,
    mut place: Place,
) {
    let mut column = 0;
    while WIDE && column + LANES < n_columns {
        let (mut first, mut second) = ([[0.0; LANES]; ROWS], [[0.0; LANES]; ROWS]);
        let panels = right.of(column, rows.clone()).iter().zip(right.of(column + LANES, rows.clone()));
        for (left, (numbers, next)) in left.clone().zip(panels) {
            add(&mut first, left, numbers);
            add(&mut second, left, next);
        }
        place.take::<ADD>(column, first);
        place.take::<ADD>(column + LANES, second);
        column += 2 * LANES;
    }
    while column < n_columns {
        let mut tile = [[0.0; LANES]; ROWS];
        for (left, numbers) in left.clone().zip(right.of(column, rows.clone())) {
            add(&mut tile, left, numbers);
        }
        place.take::<ADD>(column, tile);
        column += LANES;
    }
}

#[inline(always)]
fn add(tile: &mut Tile, left: [f32; ROWS], right: &[f32; LANES]) {
    add_row(&mut tile[0], left[0], right); // not a loop, as above
    add_row(&mut tile[1], left[1], right);
    add_row(&mut tile[2], left[2], right);
    add_row(&mut tile[3], left[3], right);
}

#[inline(always)]
fn add_row(sums: &mut [f32; LANES], factor: f32, numbers: &[f32; LANES]) {
    *sums = each!(LANES, |lane| factor.mul_add(numbers[lane], sums[lane]));
}
