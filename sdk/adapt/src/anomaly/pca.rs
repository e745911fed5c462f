//! Residual of tokens outside the principal subspace of good tokens (SubspaceAD, arXiv 2602.23013), from exact statistics: constant memory,
//! and a frame is added or forgotten exactly.

use crate::blocks;
use crate::error::AdaptError;
use crate::linalg::{Matrix, eigen};
use serde::{Deserialize, Serialize};

/// Number, sum and second moments of tokens in `f64`. Adding and removing are exact and free of order up to `f64` rounding.
///
/// Memory: `D (D + 3) / 2` numbers, whatever the number of frames.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenStatistics {
    dim: usize,
    tokens: u64,
    sum: Vec<f64>,
    /// Lower triangle of `Σ x xᵀ` by rows, `[D (D + 1) / 2]`.
    moments: Vec<f64>,
}

impl TokenStatistics {
    /// Statistics of no token of `dim` values.
    pub fn new(dim: usize) -> Self {
        Self {
            dim,
            tokens: 0,
            sum: vec![0.0; dim],
            moments: vec![0.0; dim * (dim + 1) / 2],
        }
    }

    /// Values of a token.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Tokens held.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Adds what `other` holds; statistics of two stations sum up to those of both.
    ///
    /// # Errors
    ///
    /// Another dimension.
    pub fn merge(&mut self, other: &Self) -> Result<(), AdaptError> {
        self.combine(other, 1.0)?;
        self.tokens += other.tokens;
        Ok(())
    }

    /// Takes out what `other` holds, which must have been added before.
    ///
    /// # Errors
    ///
    /// Another dimension, or more tokens than are held.
    pub fn subtract(&mut self, other: &Self) -> Result<(), AdaptError> {
        let left = self.tokens.checked_sub(other.tokens);
        let left = left.ok_or(AdaptError::NotLearned {
            removed: other.tokens,
            held: self.tokens,
        })?;
        self.combine(other, -1.0)?;
        self.tokens = left;
        Ok(())
    }

    fn combine(&mut self, other: &Self, sign: f64) -> Result<(), AdaptError> {
        if self.dim != other.dim || other.moments.len() != self.moments.len() {
            return Err(AdaptError::WrongDimension {
                what: "token statistics".into(),
                expected: self.dim,
                got: other.dim,
            });
        }
        let pairs = self.sum.iter_mut().zip(&other.sum);
        pairs
            .chain(self.moments.iter_mut().zip(&other.moments))
            .for_each(|(a, b)| *a += sign * b);
        Ok(())
    }

    /// Statistics of the rows of `tokens`.
    pub(crate) fn of(tokens: &Matrix<f32>) -> Self {
        let dim = tokens.cols;
        let mut out = Self::new(dim);
        out.tokens = tokens.rows as u64;
        let wide = Matrix {
            rows: tokens.rows,
            cols: dim,
            data: tokens.data.iter().map(|x| f64::from(*x)).collect(),
        };
        for row in 0..wide.rows {
            for (s, x) in out.sum.iter_mut().zip(wide.row(row)) {
                *s += x;
            }
        }
        let gram = wide.column_gram();
        let mut start = 0;
        for i in 0..dim {
            out.moments[start..=start + i].copy_from_slice(&gram.row(i)[..=i]);
            start += i + 1;
        }
        out
    }

    /// Mean, `[D]`.
    fn mean(&self) -> Vec<f64> {
        let n = self.tokens.max(1) as f64;
        self.sum.iter().map(|s| s / n).collect()
    }

    /// Lower triangle of the covariance (divided by n), `[D, D]`.
    fn covariance(&self, mean: &[f64]) -> Matrix {
        let n = self.tokens.max(1) as f64;
        let mut out = Matrix::zeros(self.dim, self.dim);
        let mut start = 0;
        for i in 0..self.dim {
            let moments = &self.moments[start..=start + i];
            for (j, (o, m)) in out.row_mut(i).iter_mut().zip(moments).enumerate() {
                *o = m / n - mean[i] * mean[j];
            }
            start += i + 1;
        }
        out
    }
}

/// How large the subspace of good tokens is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PcaOptions {
    /// Share of the variance of the good tokens that the subspace holds, above 0 and below 1.
    pub explained_variance: f64,
    /// Most directions; `None` for as many as the share asks for. There are never more than tokens less one.
    pub max_components: Option<usize>,
}

impl Default for PcaOptions {
    fn default() -> Self {
        Self {
            explained_variance: 0.99,
            max_components: None,
        }
    }
}

/// The principal subspace of good tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Pca {
    mean: Vec<f32>,
    /// Orthonormal rows, `[r, D]`.
    basis: Matrix<f32>,
    explained: f64,
}

impl Pca {
    /// Fits the subspace of what `statistics` hold. Cost: an eigendecomposition of order D.
    ///
    /// # Errors
    ///
    /// No token, an option out of range, or an eigendecomposition that does not converge.
    pub fn fit(statistics: &TokenStatistics, options: &PcaOptions) -> Result<Self, AdaptError> {
        let share = options.explained_variance;
        if !(share > 0.0 && share < 1.0) {
            return Err(AdaptError::BadOption {
                name: "explained_variance",
                value: share.to_string(),
                range: "above 0 and below 1",
            });
        }
        if statistics.tokens == 0 {
            return Err(AdaptError::NoGoodFrame);
        }
        let mean = statistics.mean();
        let (values, vectors) = eigen(&statistics.covariance(&mean))?;
        let total: f64 = values.iter().sum();
        let most = usize::try_from(statistics.tokens - 1)
            .unwrap_or(usize::MAX)
            .min(statistics.dim)
            .min(options.max_components.unwrap_or(usize::MAX));
        // Below the rounding of the second moments a direction is no direction.
        let noise = statistics.moment_scale() * statistics.dim as f64 * f64::EPSILON;
        let (mut held, mut n) = (0.0, 0);
        while n < most && held < share * total && values[statistics.dim - 1 - n] > noise {
            held += values[statistics.dim - 1 - n];
            n += 1;
        }
        let mut basis = Matrix::zeros(n, statistics.dim);
        for i in 0..n {
            let column = statistics.dim - 1 - i;
            for (j, o) in basis.row_mut(i).iter_mut().enumerate() {
                *o = vectors.row(j)[column] as f32;
            }
        }
        Ok(Self {
            mean: mean.iter().map(|m| *m as f32).collect(),
            basis,
            explained: if total > 0.0 { held / total } else { 1.0 },
        })
    }

    /// Directions of the subspace.
    pub fn components(&self) -> usize {
        self.basis.rows
    }

    /// Share of the variance of the good tokens that it holds.
    pub fn explained_variance(&self) -> f64 {
        self.explained
    }

    /// Bytes of mean and basis.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.mean[..]) + size_of_val(&self.basis.data[..])
    }

    pub(crate) fn dim(&self) -> usize {
        self.mean.len()
    }

    /// Squared norm of the part of `x - mean` outside the subspace, for each row of `tokens`.
    pub(crate) fn residuals(&self, tokens: &Matrix<f32>) -> Vec<f32> {
        let mut centred = tokens.clone();
        for row in 0..centred.rows {
            for (x, m) in centred.row_mut(row).iter_mut().zip(&self.mean) {
                *x -= m;
            }
        }
        let work = |rows: std::ops::Range<usize>| {
            let inside = centred.rows_times_transposed(rows.clone(), &self.basis);
            // Subtracting the vectors, not their norms, keeps the digits of small residuals.
            let inside = inside.rows_times(0..inside.rows, &self.basis);
            rows.enumerate()
                .map(|(i, row)| {
                    let pairs = centred.row(row).iter().zip(inside.row(i));
                    pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() as f32
                })
                .collect::<Vec<f32>>()
        };
        blocks::map(centred.rows, work).concat()
    }
}

impl TokenStatistics {
    /// Mean squared norm of the tokens: the size of the numbers whose rounding limits the covariance.
    fn moment_scale(&self) -> f64 {
        let mut start = 0;
        let mut trace = 0.0;
        for i in 0..self.dim {
            trace += self.moments[start + i];
            start += i + 1;
        }
        trace / self.tokens.max(1) as f64
    }
}
