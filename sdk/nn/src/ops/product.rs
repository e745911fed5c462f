//! Matrix products on row-major slices, through faer.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

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
pub(crate) fn product_parallel(
    dst: MatMut<'_, f32>,
    accum: Accum,
    a: MatRef<'_, f32>,
    b: MatRef<'_, f32>,
) {
    let par = match rayon::current_num_threads() {
        1 => Par::Seq,
        n => Par::rayon(n),
    };
    matmul(dst, accum, a, b, 1.0, par);
}
