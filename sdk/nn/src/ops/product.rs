//! Matrix products, as Goto and van de Geijn lay them out (<https://doi.org/10.1145/1356052.1356053>): both factors are packed for the kernels, B once
//! for all threads, A by every task for its own rows.
//!
//! The sum of an element runs over k in order, in blocks of a fixed depth that are added to the result one after the other. So its bits do not depend on
//! how rows and columns are cut into tasks, and the cut may depend on the number of threads.

mod packing;

use rayon::prelude::*;

use self::packing::{Packing, Panels, STRIDE};
use super::OneByOne;
use super::scratch::scratch;
use crate::compute::Precision;
use crate::kernels::{Ahead, FloatTile, Kernels, Out};

/// Rows of a task: packed, they fit in half of a second-level cache of 512 KiB.
const TASK_ROWS: usize = 120;

/// Products of fewer multiplications stay on the calling thread.
const SMALL: usize = 1 << 18;

/// A matrix inside a slice.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    stride: usize,
    /// Whether neighbours in memory are in a column, and `stride` is between columns.
    transposed: bool,
}

/// A row-major matrix inside a slice, to be written to.
pub(crate) struct MatrixMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    columns: usize,
    stride: usize,
}

/// What a product is added to.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Accum<'a> {
    /// Nothing; it takes the place of what is there.
    Replace,
    /// What is there.
    Add,
    /// One value for each column.
    Bias(&'a [f32]),
}

/// A row-major matrix; `stride` is the distance between rows.
pub(crate) fn rows(data: &[f32], n_rows: usize, n_columns: usize, stride: usize) -> Matrix<'_> {
    assert!(fits(data.len(), n_rows, n_columns, stride));
    Matrix {
        data,
        rows: n_rows,
        columns: n_columns,
        stride,
        transposed: false,
    }
}

/// The same, to be written to.
pub(crate) fn rows_mut(
    data: &mut [f32],
    n_rows: usize,
    n_columns: usize,
    stride: usize,
) -> MatrixMut<'_> {
    assert!(fits(data.len(), n_rows, n_columns, stride));
    MatrixMut {
        data,
        rows: n_rows,
        columns: n_columns,
        stride,
    }
}

fn fits(len: usize, rows: usize, columns: usize, stride: usize) -> bool {
    rows == 0 || columns == 0 || stride >= columns && len >= (rows - 1) * stride + columns
}

impl<'a> Matrix<'a> {
    pub(crate) fn transpose(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            transposed: !self.transposed,
            ..self
        }
    }

    /// `count` rows of a row-major matrix.
    pub(crate) fn subrows(self, first: usize, count: usize) -> Self {
        debug_assert!(!self.transposed);
        rows(
            &self.data[first * self.stride..],
            count,
            self.columns,
            self.stride,
        )
    }
}

/// What all tasks write to.
#[derive(Clone, Copy)]
struct Target<'a> {
    data: *mut f32,
    stride: usize,
    columns: usize,
    accum: Accum<'a>,
}

// SAFETY: tasks write to rows and panels of their own.
unsafe impl Send for Target<'_> {}
// SAFETY: as above.
unsafe impl Sync for Target<'_> {}

/// Rows and panels of one task.
struct Part {
    rows: [usize; 2],
    panels: [usize; 2],
}

impl Part {
    /// What these rows of A and panels of B add to `target`.
    ///
    /// # Safety
    /// `target` has as many rows as A and as many columns as B, and nobody else uses this part meanwhile.
    unsafe fn multiply(&self, target: Target<'_>, a: &Matrix, b: &Panels) {
        let kernels = &b.kernels;
        let [first, end] = self.rows;
        let count = end - first;
        let mut packed = (!b.packing.in_place(a)).then(|| scratch(count * STRIDE));
        for (k, depth) in b.blocks() {
            let (rows, lda) = match &mut packed {
                Some(packed) => {
                    b.packing.rows(packed, a, [first, count], [k, depth]);
                    (&packed[..], STRIDE)
                }
                None => (&a.data[first * a.stride + k..], a.stride),
            };
            for panel in self.panels[0]..self.panels[1] {
                let values = b.panel((k, depth), panel);
                for cut in kernels.cuts(count) {
                    let tile = FloatTile {
                        rows: cut.rows,
                        k: depth,
                        a: rows[cut.first * lda..].as_ptr(),
                        lda,
                        b: values.as_ptr(),
                        ldb: kernels.columns,
                        bias: std::ptr::null(),
                        c: std::ptr::null_mut(),
                        ldc: 0,
                        add: false,
                        ahead: Ahead::behind(values, depth, &cut),
                    };
                    let at = [first + cut.first, panel * kernels.columns];
                    // SAFETY: the tile's rows of A and its panel of B are there, and the caller answers for C.
                    unsafe { target.add(kernels, tile, at, k == 0) }
                }
            }
        }
    }
}

impl Target<'_> {
    /// Runs a kernel whose result goes to a row and a column: with what the product is added to in the first block, and onto the block before in the
    /// others.
    ///
    /// # Safety
    /// A and B of the tile reach as far as it says, and nobody else uses its part of C.
    #[inline]
    unsafe fn add(
        &self,
        kernels: &Kernels,
        mut tile: FloatTile,
        [row, column]: [usize; 2],
        first: bool,
    ) {
        let width = kernels.columns.min(self.columns - column);
        let mut bias = [0.0; Kernels::MOST_COLUMNS];
        if let (Accum::Bias(values), true) = (self.accum, first) {
            bias[..width].copy_from_slice(&values[column..][..width]);
            tile.bias = bias.as_ptr();
        }
        // SAFETY: inside the matrix, for which the caller answers.
        let c = unsafe { self.data.add(row * self.stride + column) };
        let out = Out {
            c,
            ldc: self.stride,
            add: !first || self.accum == Accum::Add,
        };
        let run = |Out { c, ldc, add }| {
            let tile = FloatTile {
                c,
                ldc,
                add,
                ..tile
            };
            // SAFETY: A and B are the caller's, C has room for a whole panel.
            unsafe { kernels.float(&tile) }
        };
        // SAFETY: the caller's.
        unsafe { out.panel(kernels, [tile.rows, width], run) }
    }
}

impl MatrixMut<'_> {
    fn target<'b>(&mut self, accum: Accum<'b>) -> Target<'b> {
        Target {
            data: self.data.as_mut_ptr(),
            stride: self.stride,
            columns: self.columns,
            accum,
        }
    }

    /// Whether there is nothing to sum; what is there has been replaced then.
    fn is_done(&mut self, accum: Accum<'_>, a: &Matrix, b: &Matrix) -> bool {
        assert!(a.columns == b.rows && self.rows == a.rows && self.columns == b.columns);
        if let Accum::Bias(bias) = accum {
            assert_eq!(bias.len(), self.columns);
        }
        if self.rows > 0 && self.columns > 0 && a.columns > 0 {
            return false;
        }
        let rows = self.data.chunks_mut(self.stride.max(1)).take(self.rows);
        rows.for_each(|row| match accum {
            Accum::Replace => row[..self.columns].fill(0.0),
            Accum::Add => {}
            Accum::Bias(bias) => row[..self.columns].copy_from_slice(bias),
        });
        true
    }
}

/// `dst = a * b` on the calling thread, in f32.
pub(crate) fn product(dst: MatrixMut<'_>, a: Matrix<'_>, b: Matrix<'_>) {
    multiply(dst, Accum::Replace, [a, b], Packing::Whole, 1);
}

/// `dst = a * b`, or `dst += a * b`, or `dst = bias + a * b`, over all threads of the current rayon pool. In bf16 both factors are rounded to it
/// and their products summed in f32.
pub(crate) fn product_parallel(
    dst: MatrixMut<'_>,
    accum: Accum<'_>,
    a: Matrix<'_>,
    b: Matrix<'_>,
    precision: Precision,
) {
    let threads = match a.rows * b.columns * b.rows < SMALL {
        true => 1,
        false => rayon::current_num_threads(),
    };
    multiply(dst, accum, [a, b], Packing::of(precision), threads);
}

/// With tasks for so many threads of the pool; one is the calling thread.
fn multiply(
    mut dst: MatrixMut<'_>,
    accum: Accum<'_>,
    [a, b]: [Matrix<'_>; 2],
    packing: Packing,
    threads: usize,
) {
    if dst.is_done(accum, &a, &b) {
        return;
    }
    let mut panels = Panels::new(&b, packing);
    let n_rows = a.rows.div_ceil(TASK_ROWS).next_multiple_of(threads);
    let rows: Vec<_> = cut(a.rows, n_rows, panels.kernels.rows).collect();
    let n_columns = threads.div_ceil(rows.len());
    let parts: Vec<_> = rows
        .into_iter()
        .flat_map(|rows| cut(panels.count, n_columns, 1).map(move |panels| Part { rows, panels }))
        .collect();
    let target = dst.target(accum);
    for k in panels.groups() {
        panels.pack(&b, k, threads > 1);
        // SAFETY: the sizes were compared, `dst` is ours, and no two parts share rows and panels.
        let run = |part: &Part| unsafe { part.multiply(target, &a, &panels) };
        match threads {
            1 => parts.iter().for_each(run),
            _ => parts.par_iter().one_by_one().for_each(run),
        }
    }
}

/// Cuts `0..len` into at most `parts` ranges of whole multiples of `unit`, as equal as can be.
fn cut(len: usize, parts: usize, unit: usize) -> impl Iterator<Item = [usize; 2]> {
    let units = len.div_ceil(unit);
    let parts = parts.clamp(1, units.max(1));
    (0..parts).map(move |i| {
        let at = |i: usize| (i * units / parts * unit).min(len);
        [at(i), at(i + 1)]
    })
}

#[cfg(test)]
mod tests;
