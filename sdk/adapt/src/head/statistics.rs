//! Sufficient statistics of the linear heads, for more samples than features.

use crate::error::AdaptError;
use crate::linalg::Matrix;
use crate::support::Support;

/// Counts, class sums and the Gram sum of `x - origin`, in `f64`.
///
/// The origin is the samples' mean, which keeps the subtraction in [`Statistics::scatter`] from losing digits. Memory is
/// `D (D + 1) / 2 + C D` numbers, whatever the number of samples.
#[derive(Clone, Debug)]
pub struct Statistics {
    origin: Vec<f64>,
    counts: Vec<usize>,
    sums: Matrix,
    /// Lower triangle by rows, `[D (D + 1) / 2]`.
    gram: Vec<f64>,
}

impl Statistics {
    fn empty(origin: Vec<f64>, n_classes: usize) -> Self {
        let dim = origin.len();
        Self {
            counts: vec![0; n_classes],
            sums: Matrix::zeros(n_classes, dim),
            gram: vec![0.0; dim * (dim + 1) / 2],
            origin,
        }
    }

    /// Statistics of all samples of `support` at once, around their mean.
    pub fn of(support: &Support) -> Self {
        let mut out = Self::empty(support.mean(), support.n_classes());
        let centred = support.centred(&out.origin);
        let gram = centred.column_gram();
        for (i, packed) in triangle_rows(&mut out.gram, support.dim()) {
            packed.copy_from_slice(&gram.row(i)[..=i]);
        }
        for (i, &label) in support.labels().iter().enumerate() {
            out.counts[label] += 1;
            for (sum, x) in out.sums.row_mut(label).iter_mut().zip(centred.row(i)) {
                *sum += x;
            }
        }
        out
    }

    /// Length of the embeddings.
    pub fn dim(&self) -> usize {
        self.origin.len()
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.counts.iter().sum()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Samples of each class.
    pub fn counts(&self) -> &[usize] {
        &self.counts
    }

    /// Mean of all samples less the origin, `[D]`.
    fn shift(&self) -> Vec<f64> {
        let mut shift = vec![0.0; self.dim()];
        for class in 0..self.counts.len() {
            for (s, x) in shift.iter_mut().zip(self.sums.row(class)) {
                *s += x;
            }
        }
        let n = self.len().max(1) as f64;
        shift.iter_mut().for_each(|s| *s /= n);
        shift
    }

    /// Mean of all samples, `[D]`.
    pub fn mean(&self) -> Vec<f64> {
        self.shift()
            .iter()
            .zip(&self.origin)
            .map(|(s, o)| s + o)
            .collect()
    }

    /// Whether these can be the statistics of `support`.
    pub(crate) fn check_against(&self, support: &Support) -> Result<(), AdaptError> {
        if self.dim() != support.dim() {
            return Err(AdaptError::Shape {
                what: "dimension of the statistics",
                expected: support.dim(),
                got: self.dim(),
            });
        }
        if self.counts != support.counts() {
            return Err(AdaptError::Shape {
                what: "samples in the statistics",
                expected: support.len(),
                got: self.len(),
            });
        }
        Ok(())
    }

    /// Lower triangle of `Σ (x - mean)(x - mean)ᵀ`, `[D, D]`.
    pub(crate) fn scatter(&self) -> Matrix {
        let shift = self.shift();
        self.gram_less(&[(self.len() as f64, &shift)])
    }

    /// Lower triangle of `Σ (x - μ)(x - μ)ᵀ`, `μ` being the mean of the sample's class: `[D, D]`.
    pub(crate) fn within_scatter(&self) -> Matrix {
        let means = self.shifted_class_means();
        let terms: Vec<(f64, &[f64])> = self
            .counts
            .iter()
            .enumerate()
            .map(|(c, &n)| (n as f64, means.row(c)))
            .collect();
        self.gram_less(&terms)
    }

    /// Class means less the mean of all, `[C, D]`.
    pub(crate) fn class_means(&self) -> Matrix {
        let shift = self.shift();
        let mut means = self.shifted_class_means();
        for class in 0..means.rows {
            means
                .row_mut(class)
                .iter_mut()
                .zip(&shift)
                .for_each(|(m, s)| *m -= s);
        }
        means
    }

    /// Class means less the origin, `[C, D]`.
    fn shifted_class_means(&self) -> Matrix {
        self.sums
            .scaled_rows(|class| 1.0 / self.counts[class].max(1) as f64)
    }

    /// Lower triangle of the Gram sum less `Σ factor · v vᵀ`.
    fn gram_less(&self, terms: &[(f64, &[f64])]) -> Matrix {
        let dim = self.dim();
        let mut out = Matrix::zeros(dim, dim);
        let mut start = 0;
        for i in 0..dim {
            let row = &mut out.row_mut(i)[..=i];
            row.copy_from_slice(&self.gram[start..=start + i]);
            for (factor, v) in terms {
                let factor = factor * v[i];
                row.iter_mut().zip(*v).for_each(|(o, x)| *o -= factor * x);
            }
            start += i + 1;
        }
        out
    }

    /// `Σ (x - mean) yᵀ` for one-hot targets `y`, transposed: `[C, D]`.
    pub(crate) fn class_scatter(&self) -> Matrix {
        let shift = self.shift();
        let mut out = self.sums.clone();
        for (class, &count) in self.counts.iter().enumerate() {
            for (o, s) in out.row_mut(class).iter_mut().zip(&shift) {
                *o -= count as f64 * s;
            }
        }
        out
    }
}

/// Rows of a packed lower triangle with their index.
fn triangle_rows(packed: &mut [f64], dim: usize) -> impl Iterator<Item = (usize, &mut [f64])> {
    let mut rest = packed;
    (0..dim).map(move |i| {
        let (row, tail) = std::mem::take(&mut rest).split_at_mut(i + 1);
        rest = tail;
        (i, row)
    })
}
