//! Matrix products, as Goto and van de Geijn lay them out (<https://doi.org/10.1145/1356052.1356053>): both factors are packed for the kernels, B once
//! for all threads, A by every task for its own rows.
//!
//! The sum of an element runs over k in order, in blocks of a fixed depth that are added to the result one after the other. So its bits do not depend on
//! how rows and columns are cut into tasks, and the cut may depend on the number of threads.

mod left;
mod packing;

use std::marker::PhantomData;

use rayon::prelude::*;

use self::left::Left;
use self::packing::{Packing, Panels};
use super::OneByOne;
use crate::compute::Precision;
use crate::kernels::{Ahead, Cut, FloatTile, Kernels, Out};

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
    data: *mut f32,
    rows: usize,
    columns: usize,
    stride: usize,
    borrowed: PhantomData<&'a mut [f32]>,
}

// SAFETY: its elements are borrowed, and no other matrix has one of them.
unsafe impl Send for MatrixMut<'_> {}

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
        data: data.as_mut_ptr(),
        rows: n_rows,
        columns: n_columns,
        stride,
        borrowed: PhantomData,
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
        let cuts: Vec<Cut> = kernels.cuts(end - first).collect();
        let mut left = Left::new(b.packing, a, first, &cuts, kernels);
        for (k, depth) in b.blocks() {
            left.load([k, depth]);
            let [lda, ka] = left.distances();
            for panel in self.panels[0]..self.panels[1] {
                let values = b.panel((k, depth), panel);
                let column = panel * kernels.columns;
                let width = kernels.columns.min(target.columns - column);
                let bias = target.bias(column, width, k == 0);
                let mut tile = FloatTile {
                    rows: 0,
                    k: depth,
                    a: std::ptr::null(),
                    lda,
                    ka,
                    b: values.as_ptr(),
                    ldb: kernels.columns,
                    bias: bias.as_ref().map_or(std::ptr::null(), |bias| bias.as_ptr()),
                    c: std::ptr::null_mut(),
                    ldc: target.stride,
                    add: k > 0 || target.accum == Accum::Add,
                    ahead: Ahead::behind(values, depth, &cuts[0]),
                };
                for cut in &cuts {
                    tile.rows = cut.rows;
                    tile.a = left.at(cut);
                    // SAFETY: inside the matrix, for which the caller answers, as for A and B.
                    unsafe {
                        tile.c = target.at(first + cut.first, column);
                        run(kernels, &tile, width);
                    }
                    tile.ahead.advance(depth);
                }
            }
        }
    }
}

/// Runs a kernel for the first `width` columns of a panel.
///
/// # Safety
/// A and B of the tile reach as far as it says, C has its rows of `width` columns, and nobody else uses them.
#[inline(always)]
unsafe fn run(kernels: &Kernels, tile: &FloatTile, width: usize) {
    if width == kernels.columns {
        // SAFETY: the caller's.
        return unsafe { kernels.float(tile) };
    }
    let out = Out {
        c: tile.c,
        ldc: tile.ldc,
        add: tile.add,
    };
    let call = |Out { c, ldc, add }| {
        let tile = FloatTile {
            c,
            ldc,
            add,
            ..*tile
        };
        // SAFETY: A and B are the caller's, C has room for a whole panel.
        unsafe { kernels.float(&tile) }
    };
    // SAFETY: the caller's.
    unsafe { out.panel(kernels, [tile.rows, width], call) }
}

impl Target<'_> {
    /// # Safety
    /// The element is there.
    unsafe fn at(&self, row: usize, column: usize) -> *mut f32 {
        // SAFETY: the caller's.
        unsafe { self.data.add(row * self.stride + column) }
    }

    /// What the first block of a sum is added to, in a whole panel.
    fn bias(
        &self,
        column: usize,
        width: usize,
        first: bool,
    ) -> Option<[f32; Kernels::MOST_COLUMNS]> {
        let (Accum::Bias(values), true) = (self.accum, first) else {
            return None;
        };
        let mut bias = [0.0; Kernels::MOST_COLUMNS];
        bias[..width].copy_from_slice(&values[column..][..width]);
        Some(bias)
    }
}

impl<'a> MatrixMut<'a> {
    /// Parts of `width` columns, side by side.
    pub(crate) fn split_columns(self, width: usize) -> impl Iterator<Item = MatrixMut<'a>> {
        assert!(self.columns.is_multiple_of(width));
        (0..self.columns)
            .step_by(width)
            .map(move |column| MatrixMut {
                // SAFETY: the column is there, and every part has elements of its own.
                data: unsafe { self.data.add(column) },
                columns: width,
                ..self
            })
    }

    /// `count` of its rows.
    pub(crate) fn subrows(&mut self, first: usize, count: usize) -> MatrixMut<'_> {
        assert!(first + count <= self.rows);
        MatrixMut {
            // SAFETY: the row is there, and `self` is borrowed as long as the part lives.
            data: unsafe { self.data.add(first * self.stride) },
            rows: count,
            ..*self
        }
    }

    fn target<'b>(&mut self, accum: Accum<'b>) -> Target<'b> {
        Target {
            data: self.data,
            stride: self.stride,
            columns: self.columns,
            accum,
        }
    }

    /// Whether there is nothing to sum; what is there has been replaced then.
    fn is_done(&mut self, accum: Accum<'_>, a: &Matrix, b: [usize; 2]) -> bool {
        assert!([a.columns, self.columns] == b && self.rows == a.rows);
        if let Accum::Bias(bias) = accum {
            assert_eq!(bias.len(), self.columns);
        }
        if self.rows > 0 && self.columns > 0 && a.columns > 0 {
            return false;
        }
        for row in 0..self.rows {
            // SAFETY: the row is there and borrowed.
            let row = unsafe {
                std::slice::from_raw_parts_mut(self.data.add(row * self.stride), self.columns)
            };
            match accum {
                Accum::Replace => row.fill(0.0),
                Accum::Add => {}
                Accum::Bias(bias) => row.copy_from_slice(bias),
            }
        }
        true
    }
}

/// A right factor that is packed once for several products on the calling thread, in f32.
pub(crate) struct Factor<'a> {
    b: Matrix<'a>,
    panels: Panels,
}

impl<'a> Factor<'a> {
    pub(crate) fn new(b: Matrix<'a>) -> Self {
        let mut panels = Panels::whole(&b, Packing::Whole);
        panels.pack(&b, 0, false);
        Self { b, panels }
    }

    /// Its columns in whole panels.
    pub(crate) fn padded(&self) -> usize {
        self.panels.count * self.panels.kernels.columns
    }

    /// `dst = a * b`, or `dst += a * b`, or `dst = bias + a * b`. `dst` may have [`Factor::padded`] columns, the last of which become zero.
    pub(crate) fn product(&self, mut dst: MatrixMut<'_>, accum: Accum<'_>, a: Matrix<'_>) {
        let columns = match dst.columns == self.padded() {
            true => self.padded(),
            false => self.b.columns,
        };
        if dst.is_done(accum, &a, [self.b.rows, columns]) {
            return;
        }
        let part = Part {
            rows: [0, a.rows],
            panels: [0, self.panels.count],
        };
        // SAFETY: the sizes were compared, and `dst` is ours.
        unsafe { part.multiply(dst.target(accum), &a, &self.panels) }
    }
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
    if dst.is_done(accum, &a, [b.rows, b.columns]) {
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
