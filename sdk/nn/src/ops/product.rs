//! Matrix products on row-major slices, through faer.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

/// Tasks that one product is cut into.
const TASKS: usize = 16;

/// Rows or columns of a task are a multiple of this, the height of faer's widest micro-kernel.
const TILE: usize = 96;

/// Products of fewer multiplications stay on the calling thread.
const SMALL: usize = 1 << 18;

/// A row-major matrix inside a slice; `stride` is the distance between rows.
pub(crate) fn rows(data: &[f32], n_rows: usize, n_cols: usize, stride: usize) -> MatRef<'_, f32> {
    MatRef::from_row_major_slice_with_stride(data, n_rows, n_cols, stride).as_dyn_stride()
}

/// The same, to be written to.
pub(crate) fn rows_mut(
    data: &mut [f32],
    n_rows: usize,
    n_cols: usize,
    stride: usize,
) -> MatMut<'_, f32> {
    // faer 0.24.4's own row-major constructor for mutable slices mixes up its strides.
    MatMut::from_column_major_slice_with_stride_mut(data, n_cols, n_rows, stride)
        .transpose_mut()
        .as_dyn_stride_mut()
}

/// `dst = alpha * a * b` on the calling thread.
pub(crate) fn product(dst: MatMut<'_, f32>, a: MatRef<'_, f32>, b: MatRef<'_, f32>, alpha: f32) {
    matmul(dst, Accum::Replace, a, b, alpha, Par::Seq);
}

/// `dst = a * b`, or `dst += a * b`, over all threads of the current rayon pool.
///
/// The longer side of `dst` is cut into tasks of their own. faer's parallel product meets at spinning barriers, which cost
/// many times the product as soon as another program wants a core. The cut depends on the shape alone, and so do the bits.
pub(crate) fn product_parallel(
    dst: MatMut<'_, f32>,
    accum: Accum,
    a: MatRef<'_, f32>,
    b: MatRef<'_, f32>,
) {
    let (m, n) = dst.shape();
    if m * n * a.ncols() < SMALL {
        return matmul(dst, accum, a, b, 1.0, Par::Seq);
    }
    let chunk = |side: usize| side.div_ceil(TASKS).next_multiple_of(TILE);
    if m >= n {
        let rows = chunk(m);
        dst.par_row_chunks_mut(rows)
            .zip(a.par_row_chunks(rows))
            .for_each(|(dst, a)| matmul(dst, accum, a, b, 1.0, Par::Seq));
    } else {
        let columns = chunk(n);
        dst.par_col_chunks_mut(columns)
            .zip(b.par_col_chunks(columns))
            .for_each(|(dst, b)| matmul(dst, accum, a, b, 1.0, Par::Seq));
    }
}
