//! Matrix products, as Goto and van de Geijn lay them out (<https://doi.org/10.1145/1356052.1356053>): both factors are packed for the kernels, B once
//! for all threads, A by every task for its own rows.
//!
//! The sum of an element runs over k in order, in blocks of [`DEPTH`] that are added to the result one after the other. So its bits do not depend on
//! how rows and columns are cut into tasks, and the cut may depend on the number of threads.

use std::ops::Range;

use rayon::prelude::*;

use super::scratch::{Scratch, scratch};
use crate::kernels::{Ahead, COLUMNS, FloatTile, Isa, Kernels, transpose};

/// Steps along K between two visits of the result: a panel of B is then 64 KiB.
const DEPTH: usize = 512;

/// Rows that are multiples of so many values apart (4 KiB) share one set of a first-level cache, which holds eight of them.
const SAME_SET: usize = 1024;

/// Distance between packed rows of A.
const STRIDE: usize = DEPTH + 16;

/// Rows of a task: packed, they fit in half of a second-level cache of 512 KiB.
const TASK_ROWS: usize = 120;

/// Values of B that are packed before they are used: 4 MiB, so that they are still in the last-level cache then.
const PACKED: usize = 1 << 20;

/// Products of fewer multiplications stay on the calling thread.
const SMALL: usize = 1 << 18;

/// Values of a cache line.
const LINE: usize = 16;

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

    /// Columns `k..k + depth` of rows `first..first + count`, row-major, with the distance between rows: where they are, or packed into `to`.
    fn row_block<'t>(
        &self,
        to: &'t mut Scratch,
        [first, count]: [usize; 2],
        [k, depth]: [usize; 2],
    ) -> (&'t [f32], usize)
    where
        'a: 't,
    {
        if self.transposed {
            let from = &self.data[k * self.stride + first..];
            transpose((to, STRIDE), (from, self.stride), [depth, count]);
            return (to, STRIDE);
        }
        if !self.stride.is_multiple_of(SAME_SET) {
            return (&self.data[first * self.stride + k..], self.stride);
        }
        for (row, to) in to.chunks_exact_mut(STRIDE).take(count).enumerate() {
            let from = &self.data[(first + row) * self.stride + k..][..depth];
            to[..depth].copy_from_slice(from);
        }
        (to, STRIDE)
    }

    /// Rows `k..` of as many as fill `to [depth, 32]`, of the panel's columns; zeros where there is none.
    fn pack_panel(&self, to: &mut [f32], panel: usize, k: usize) {
        let depth = to.len() / COLUMNS;
        let first = panel * COLUMNS;
        let width = COLUMNS.min(self.columns - first);
        if width < COLUMNS {
            to.fill(0.0);
        }
        if self.transposed {
            let from = &self.data[first * self.stride + k..];
            return transpose((to, COLUMNS), (from, self.stride), [width, depth]);
        }
        let (rows, _) = to.as_chunks_mut::<COLUMNS>();
        for (row, to) in rows.iter_mut().enumerate() {
            let from = &self.data[(k + row) * self.stride + first..];
            match from.first_chunk::<COLUMNS>() {
                Some(whole) if width == COLUMNS => *to = *whole,
                _ => to[..width].copy_from_slice(&from[..width]),
            }
        }
    }
}

/// `[block][panel][depth][32]` of some rows of B, on cache lines: blocks of [`DEPTH`], as many as stay in the last-level cache until they are used.
struct Panels {
    memory: Scratch,
    start: usize,
    /// Panels of a block.
    count: usize,
    /// Rows of B.
    rows: Range<usize>,
}

impl Panels {
    /// Room for [`PACKED`] values at least, or for all of `b`.
    fn new(b: &Matrix) -> Self {
        let count = b.columns.div_ceil(COLUMNS);
        let blocks = (PACKED / (DEPTH * count * COLUMNS)).max(1);
        let rows = 0..(blocks * DEPTH).min(b.rows);
        let memory = scratch(rows.len() * count * COLUMNS + LINE);
        // A pointer to f32 can always be aligned so.
        let start = memory.as_ptr().align_offset(LINE * size_of::<f32>());
        Self {
            memory,
            start,
            count,
            rows,
        }
    }

    /// The rows of B for which there is room, after the ones before.
    fn groups(&self, b: &Matrix) -> impl Iterator<Item = Range<usize>> + use<> {
        let (step, end) = (self.rows.len(), b.rows);
        (0..end).step_by(step).map(move |k| k..(k + step).min(end))
    }

    /// Packs these rows of B, on the threads of the pool or on this one.
    fn pack(&mut self, b: &Matrix, rows: Range<usize>, parallel: bool) {
        let (first, count) = (rows.start, self.count);
        let values = &mut self.memory[self.start..][..rows.len() * count * COLUMNS];
        self.rows = rows;
        for (block, values) in values.chunks_mut(DEPTH * count * COLUMNS).enumerate() {
            let (k, len) = (first + block * DEPTH, values.len() / count);
            if parallel {
                let panels = values.par_chunks_exact_mut(len).enumerate();
                panels.for_each(|(panel, to)| b.pack_panel(to, panel, k));
            } else {
                let panels = values.chunks_exact_mut(len).enumerate();
                panels.for_each(|(panel, to)| b.pack_panel(to, panel, k));
            }
        }
    }

    /// Where the packed blocks begin, and how many rows each has.
    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let end = self.rows.end;
        let first = self.rows.clone().step_by(DEPTH);
        first.map(move |k| (k, DEPTH.min(end - k)))
    }

    /// One panel of the block that begins at `k`.
    fn panel(&self, (k, depth): (usize, usize), panel: usize) -> &[f32] {
        let before = (k - self.rows.start) * self.count + panel * depth;
        &self.memory[self.start + before * COLUMNS..][..depth * COLUMNS]
    }
}

/// Where a task writes.
#[derive(Clone, Copy)]
struct Out<'a> {
    data: *mut f32,
    stride: usize,
    columns: usize,
    accum: Accum<'a>,
}

// SAFETY: tasks write to rows and panels of their own.
unsafe impl Send for Out<'_> {}
// SAFETY: as above.
unsafe impl Sync for Out<'_> {}

/// Rows and panels of one task.
struct Part {
    rows: [usize; 2],
    panels: [usize; 2],
}

impl Part {
    /// The part of `out` that these rows of A and panels of B make.
    ///
    /// # Safety
    /// `out` has as many rows as A and as many columns as B, and nobody else uses this part meanwhile.
    unsafe fn multiply(&self, kernels: &Kernels, out: Out<'_>, a: &Matrix, b: &Panels) {
        let [first, end] = self.rows;
        let mut packed = scratch((end - first) * STRIDE);
        for (k, depth) in b.blocks() {
            let (rows, lda) = a.row_block(&mut packed, [first, end - first], [k, depth]);
            for panel in self.panels[0]..self.panels[1] {
                let values = b.panel((k, depth), panel);
                for cut in kernels.cuts(end - first) {
                    let row = first + cut.first;
                    let tile = FloatTile {
                        rows: cut.rows,
                        k: depth,
                        a: rows[cut.first * lda..].as_ptr(),
                        lda,
                        b: values.as_ptr(),
                        ldb: COLUMNS,
                        bias: std::ptr::null(),
                        c: std::ptr::null_mut(),
                        ldc: COLUMNS,
                        add: k > 0,
                        ahead: Ahead::behind(values, depth, &cut),
                    };
                    // SAFETY: the tile's rows of A and its panel of B are packed, and the caller answers for C.
                    unsafe { out.write(kernels, tile, row, panel * COLUMNS) }
                }
            }
        }
    }
}

impl Out<'_> {
    /// Runs a kernel whose result goes to `row` and `column`, and is added to what blocks before it made if the tile says so. A panel that is not whole
    /// goes through a buffer.
    ///
    /// # Safety
    /// A and B of the tile reach as far as it says, and nobody else uses its part of C.
    #[inline]
    unsafe fn write(&self, kernels: &Kernels, mut tile: FloatTile, row: usize, column: usize) {
        // SAFETY: inside the matrix, for which the caller answers.
        let c = unsafe { self.data.add(row * self.stride + column) };
        let width = COLUMNS.min(self.columns - column);
        let bias = match self.accum {
            Accum::Bias(bias) if !tile.add => &bias[column..][..width],
            _ => &[],
        };
        let add = tile.add || self.accum == Accum::Add;
        if width == COLUMNS {
            (tile.c, tile.ldc, tile.add) = (c, self.stride, add);
            if !bias.is_empty() {
                tile.bias = bias.as_ptr();
            }
            // SAFETY: the caller's, and a bias has a whole panel.
            return unsafe { kernels.float(&tile) };
        }
        let mut whole = [[0.0f32; COLUMNS]; Kernels::MOST_ROWS];
        (tile.c, tile.add) = (whole.as_mut_ptr().cast(), false);
        // SAFETY: the buffer has room for the largest tile.
        unsafe { kernels.float(&tile) };
        for (r, values) in whole.iter_mut().take(tile.rows).enumerate() {
            values.iter_mut().zip(bias).for_each(|(v, b)| *v += b);
            // SAFETY: the caller's, `width` columns of this row.
            let to = unsafe { std::slice::from_raw_parts_mut(c.add(r * self.stride), width) };
            for (to, value) in to.iter_mut().zip(values) {
                *to = if add { *to + *value } else { *value };
            }
        }
    }
}

impl MatrixMut<'_> {
    fn out<'b>(&mut self, accum: Accum<'b>) -> Out<'b> {
        Out {
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

/// `dst = a * b` on the calling thread.
pub(crate) fn product(dst: MatrixMut<'_>, a: Matrix<'_>, b: Matrix<'_>) {
    sequential(dst, Accum::Replace, a, b);
}

fn sequential(mut dst: MatrixMut<'_>, accum: Accum<'_>, a: Matrix<'_>, b: Matrix<'_>) {
    if dst.is_done(accum, &a, &b) {
        return;
    }
    let kernels = Kernels::of(Isa::detect());
    let mut panels = Panels::new(&b);
    let out = dst.out(accum);
    for group in panels.groups(&b) {
        panels.pack(&b, group, false);
        for rows in cut(a.rows, a.rows.div_ceil(TASK_ROWS), kernels.rows) {
            let part = Part {
                rows,
                panels: [0, panels.count],
            };
            // SAFETY: the sizes were compared, and `dst` is ours.
            unsafe { part.multiply(&kernels, out, &a, &panels) };
        }
    }
}

/// `dst = a * b`, or `dst += a * b`, or `dst = bias + a * b`, over all threads of the current rayon pool.
pub(crate) fn product_parallel(
    mut dst: MatrixMut<'_>,
    accum: Accum<'_>,
    a: Matrix<'_>,
    b: Matrix<'_>,
) {
    let threads = rayon::current_num_threads();
    if threads == 1 || a.rows * b.columns * b.rows < SMALL {
        return sequential(dst, accum, a, b);
    }
    if dst.is_done(accum, &a, &b) {
        return;
    }
    let kernels = Kernels::of(Isa::detect());
    let mut panels = Panels::new(&b);
    let out = dst.out(accum);
    let n_rows = a.rows.div_ceil(TASK_ROWS).next_multiple_of(threads);
    let rows: Vec<_> = cut(a.rows, n_rows, kernels.rows).collect();
    let columns: Vec<_> = cut(panels.count, threads.div_ceil(rows.len()), 1).collect();
    let parts = rows.len() * columns.len();
    for group in panels.groups(&b) {
        panels.pack(&b, group, true);
        (0..parts).into_par_iter().for_each(|i| {
            let part = Part {
                rows: rows[i / columns.len()],
                panels: columns[i % columns.len()],
            };
            // SAFETY: the sizes were compared, `dst` is ours, and no two parts share rows and panels.
            unsafe { part.multiply(&kernels, out, &a, &panels) };
        });
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
