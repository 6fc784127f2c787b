//! Products of matrices in tiles that stay in registers: 4 rows of 16 columns, a rank-one update at a time.

use std::array;
use std::ops::Range;

pub const ROWS: usize = 4;
pub const LANES: usize = 16;

pub type Tile = [[f32; LANES]; ROWS];

/// Rows of `width` numbers, one after another: what stands left in a product.
#[derive(Clone, Copy)]
pub struct Rows<'m> {
    pub numbers: &'m [f32],
    pub width: usize,
}

impl<'m> Rows<'m> {
    /// For each of `columns`: its numbers in [`ROWS`] rows from `first` on.
    #[inline(always)]
    pub fn of(self, first: usize, columns: Range<usize>) -> impl Iterator<Item = [f32; ROWS]> {
        let row = |offset: usize| self.numbers[(first + offset) * self.width..][columns.clone()].iter();
        row(0).zip(row(1)).zip(row(2)).zip(row(3)).map(|(((&a, &b), &c), &d)| [a, b, c, d])
    }

    /// The same of the transposed matrix. For each of `rows`: its [`ROWS`] numbers from `first` on.
    #[inline(always)]
    pub fn transposed(self, first: usize, rows: Range<usize>) -> impl Iterator<Item = [f32; ROWS]> + use<'m> {
        let rows = &self.numbers[rows.start * self.width..rows.end * self.width];
        rows.chunks_exact(self.width).map(move |row| *row[first..].first_chunk().expect("within the row"))
    }
}

/// A matrix as it stands right in a product: [`LANES`] columns of all rows, then the next ones. So a product reads memory
/// from one end to the other, where rows of a power of two would share a few places of the cache.
pub struct Panels {
    numbers: Vec<[f32; LANES]>,
    n_rows: usize,
}

impl Panels {
    /// Zeros; `n_columns` is a multiple of [`LANES`].
    pub fn new(n_rows: usize, n_columns: usize) -> Self {
        Self { numbers: vec![[0.0; LANES]; n_rows * (n_columns / LANES)], n_rows }
    }

    /// Puts a matrix there, row by row; rows behind it stay.
    #[inline(always)]
    pub fn fill(&mut self, rows: &[f32], width: usize) {
        for (panel, column) in self.numbers.chunks_exact_mut(self.n_rows).zip((0..width).step_by(LANES)) {
            let places = panel.iter_mut().zip(rows.chunks_exact(width));
            places.for_each(|(place, row)| place.copy_from_slice(&row[column..][..LANES]));
        }
    }

    /// The same of the transposed matrix, of as many rows as there are columns here.
    #[inline(always)]
    pub fn fill_transposed(&mut self, rows: &[f32], width: usize) {
        let panels = self.numbers.chunks_exact_mut(self.n_rows);
        for (panel, rows) in panels.zip(rows.chunks_exact(width * LANES)) {
            for (row, place) in panel.iter_mut().enumerate() {
                place.iter_mut().enumerate().for_each(|(column, place)| *place = rows[column * width + row]);
            }
        }
    }

    /// [`LANES`] columns from `column` on, a multiple of that, of each of `rows`.
    #[inline(always)]
    pub fn of(&self, column: usize, rows: Range<usize>) -> &[[f32; LANES]] {
        &self.numbers[column / LANES * self.n_rows..][rows]
    }
}

/// The sum of the products of each four numbers with each sixteen.
#[inline(always)]
pub fn product(left: impl Iterator<Item = [f32; ROWS]>, right: &[[f32; LANES]]) -> Tile {
    let mut tile = [[0.0; LANES]; ROWS];
    for (left, right) in left.zip(right) {
        for (sums, factor) in tile.iter_mut().zip(left) {
            for (sum, number) in sums.iter_mut().zip(right) {
                *sum = factor.mul_add(*number, *sum);
            }
        }
    }
    tile
}

/// Hands out the places of a tile, row by row, in rows of `width` numbers.
#[inline(always)]
pub fn places(numbers: &mut [f32], width: usize, row: usize, column: usize) -> [&mut [f32; LANES]; ROWS] {
    let mut rows = numbers[row * width..].chunks_exact_mut(width);
    array::from_fn(|_| {
        let row = rows.next().expect("as many rows");
        row[column..].first_chunk_mut().expect("within the row")
    })
}

/// All lanes as one, halves by halves: one after another they would wait for each other.
#[inline(always)]
pub fn reduce(mut lanes: [f32; LANES], by: impl Fn(f32, f32) -> f32) -> f32 {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] = by(lanes[lane], lanes[lane + half]);
        }
    }
    lanes[0]
}
