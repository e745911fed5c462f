//! The linear algebra this crate needs, on faer. Nothing else here names faer.

use crate::blocks;
use crate::error::AdaptError;
use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::linalg::matmul::matmul;
use faer::traits::{ComplexField, Conjugate};
use faer::{Accum, Mat, MatMut, MatRef, Par};

/// Row-major matrix.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Matrix<T = f64> {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) data: Vec<T>,
}

impl<T: Scalar> Matrix<T> {
    pub(crate) fn zeros(rows: usize, cols: usize) -> Self {
        Self {
            rows,
            cols,
            data: vec![T::default(); rows * cols],
        }
    }

    /// Whether the sizes fit together, which those read from a file need not.
    pub(crate) fn is_whole(&self) -> bool {
        self.rows.checked_mul(self.cols) == Some(self.data.len())
    }

    pub(crate) fn row(&self, i: usize) -> &[T] {
        &self.data[i * self.cols..(i + 1) * self.cols]
    }

    pub(crate) fn row_mut(&mut self, i: usize) -> &mut [T] {
        &mut self.data[i * self.cols..(i + 1) * self.cols]
    }

    fn view(&self) -> MatRef<'_, T> {
        MatRef::from_row_major_slice(&self.data, self.rows, self.cols)
    }

    /// `self · b`
    pub(crate) fn times(&self, b: &Self) -> Self {
        product(self.view(), b.view(), false)
    }

    /// `selfᵀ · b`
    pub(crate) fn transposed_times(&self, b: &Self) -> Self {
        product(self.view().transpose(), b.view(), false)
    }

    /// The rows of these indices.
    pub(crate) fn picked(&self, rows: impl ExactSizeIterator<Item = usize>) -> Self {
        Self {
            rows: rows.len(),
            cols: self.cols,
            data: rows.flat_map(|i| self.row(i)).copied().collect(),
        }
    }

    /// `self[rows] · bᵀ` on the calling thread.
    pub(crate) fn rows_times_transposed(&self, rows: std::ops::Range<usize>, b: &Self) -> Self {
        let mut out = Self::zeros(rows.len(), b.rows);
        let slice = self.view().subrows(rows.start, rows.len());
        multiply(&mut out.data, slice, b.view().transpose());
        out
    }

    /// `self[rows] · b` on the calling thread.
    pub(crate) fn rows_times(&self, rows: std::ops::Range<usize>, b: &Self) -> Self {
        let mut out = Self::zeros(rows.len(), b.cols);
        multiply(
            &mut out.data,
            self.view().subrows(rows.start, rows.len()),
            b.view(),
        );
        out
    }

    pub(crate) fn transposed(&self) -> Self {
        let mut out = Self::zeros(self.cols, self.rows);
        for i in 0..self.rows {
            for (j, x) in self.row(i).iter().enumerate() {
                out.data[j * self.rows + i] = *x;
            }
        }
        out
    }

    /// Lower triangle of `self · selfᵀ`; what is above it is unspecified.
    pub(crate) fn row_gram(&self) -> Self {
        product(self.view(), self.view().transpose(), true)
    }

    /// Lower triangle of `selfᵀ · self`; what is above it is unspecified.
    pub(crate) fn column_gram(&self) -> Self {
        product(self.view().transpose(), self.view(), true)
    }
}

impl Matrix {
    /// The symmetric matrix with `element(i, j)` for `j <= i`.
    pub(crate) fn symmetric(n: usize, element: impl Fn(usize, usize) -> f64) -> Self {
        let mut out = Self::zeros(n, n);
        for i in 0..n {
            for j in 0..=i {
                let value = element(i, j);
                out.row_mut(i)[j] = value;
                out.row_mut(j)[i] = value;
            }
        }
        out
    }

    /// `L⁻¹ b`, where this small positive definite matrix is `LLᵀ`. Where rounding leaves nothing of a pivot it counts as [`f64::EPSILON`].
    pub(crate) fn half_solve(mut self, mut b: Self) -> Self {
        for i in 0..self.rows {
            for j in 0..=i {
                let known: f64 = (0..j).map(|k| self.row(i)[k] * self.row(j)[k]).sum();
                let value = self.row(i)[j] - known;
                self.row_mut(i)[j] = match i == j {
                    true => value.max(f64::EPSILON).sqrt(),
                    false => value / self.row(j)[j],
                };
            }
            let (above, row) = b.data.split_at_mut(i * b.cols);
            let row = &mut row[..b.cols];
            for (solved, factor) in above.chunks_exact(b.cols).zip(self.row(i)) {
                row.iter_mut()
                    .zip(solved)
                    .for_each(|(x, y)| *x -= factor * y);
            }
            let pivot = 1.0 / self.row(i)[i];
            row.iter_mut().for_each(|x| *x *= pivot);
        }
        b
    }

    /// Row `j` times `factor(j)`.
    pub(crate) fn scaled_rows(&self, factor: impl Fn(usize) -> f64) -> Self {
        let mut out = self.clone();
        for j in 0..out.rows {
            let factor = factor(j);
            out.row_mut(j).iter_mut().for_each(|x| *x *= factor);
        }
        out
    }
}

/// `f32` and `f64`.
pub(crate) trait Scalar:
    ComplexField + Conjugate<Canonical = Self> + Default + Copy + Send + Sync
{
    const ONE: Self;
}

impl Scalar for f32 {
    const ONE: Self = 1.0;
}

impl Scalar for f64 {
    const ONE: Self = 1.0;
}

/// Eigenvalues, not decreasing and at least 0, and eigenvectors (columns) of the positive semi-definite matrix with lower triangle `a`.
pub(crate) fn eigen(a: &Matrix) -> Result<(Vec<f64>, Matrix), AdaptError> {
    let n = a.rows;
    let mut values = Diag::<f64>::zeros(n);
    let mut vectors = Mat::<f64>::zeros(n, n);
    let scratch =
        self_adjoint_evd_scratch::<f64>(n, ComputeEigenvectors::Yes, Par::Seq, Default::default());
    self_adjoint_evd(
        a.view(),
        values.as_mut(),
        Some(vectors.as_mut()),
        Par::Seq,
        MemStack::new(&mut MemBuffer::new(scratch)),
        Default::default(),
    )
    .map_err(|_| AdaptError::NoConvergence { size: n })?;
    let values = (0..n).map(|i| values.column_vector()[i].max(0.0)).collect();
    let mut out = Matrix::zeros(n, n);
    for i in 0..n {
        for j in 0..n {
            out.data[i * n + j] = vectors[(i, j)];
        }
    }
    Ok((values, out))
}

/// Sum of products in `f64`, in four interleaved partial sums.
pub(crate) fn dot(a: &[f64], b: &[f32]) -> f64 {
    let mut sums = [0.0; 4];
    let (a4, b4) = (a.chunks_exact(4), b.chunks_exact(4));
    let tail: f64 = a4
        .remainder()
        .iter()
        .zip(b4.remainder())
        .map(|(x, y)| x * f64::from(*y))
        .sum();
    for (x, y) in a4.zip(b4) {
        for lane in 0..4 {
            sums[lane] += x[lane] * f64::from(y[lane]);
        }
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + tail
}

/// As [`dot`], for two `f32` vectors.
pub(crate) fn dot32(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0.0; 4];
    let (a4, b4) = (a.chunks_exact(4), b.chunks_exact(4));
    let tail: f64 = a4
        .remainder()
        .iter()
        .zip(b4.remainder())
        .map(|(x, y)| f64::from(*x) * f64::from(*y))
        .sum();
    for (x, y) in a4.zip(b4) {
        for lane in 0..4 {
            sums[lane] += f64::from(x[lane]) * f64::from(y[lane]);
        }
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + tail
}

/// `a · b` in blocks of rows; with `lower_only`, each block stops at its last diagonal element.
fn product<T: Scalar>(a: MatRef<'_, T>, b: MatRef<'_, T>, lower_only: bool) -> Matrix<T> {
    let mut out = Matrix::zeros(a.nrows(), b.ncols());
    let cols = out.cols;
    blocks::fill(&mut out.data, cols, |rows, chunk| {
        let width = if lower_only { rows.end } else { cols };
        let a = a.subrows(rows.start, rows.len());
        let dst = MatMut::from_row_major_slice_mut(chunk, rows.len(), cols);
        matmul(
            dst.subcols_mut(0, width),
            Accum::Replace,
            a,
            b.subcols(0, width),
            T::ONE,
            Par::Seq,
        );
    });
    out
}

fn multiply<T: Scalar>(out: &mut [T], a: MatRef<'_, T>, b: MatRef<'_, T>) {
    let dst = MatMut::from_row_major_slice_mut(out, a.nrows(), b.ncols());
    matmul(dst, Accum::Replace, a, b, T::ONE, Par::Seq);
}
