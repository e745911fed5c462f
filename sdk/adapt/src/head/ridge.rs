//! Ridge regression on one-hot targets, with intercept, in closed form.
//!
//! With `Xc = X - 1 x̄ᵀ` `[N, D]`, one-hot `Y` `[N, C]` and `ȳ` its column means,
//!
//! `W = (XcᵀXc + λI)⁻¹ XcᵀY` (feature space) `= Xcᵀ (XcXcᵀ + λI)⁻¹ Y` (sample space), `f(x) = ȳ + Wᵀ(x - x̄)`.
//!
//! The intercept is not penalised, which is what centring does. One eigendecomposition in the smaller space serves every λ: `XcXcᵀ = U S Uᵀ`
//! or `XcᵀXc = V S Vᵀ`. The hat matrix is `H = 11ᵀ/N + Xc (XcᵀXc + λI)⁻¹ Xcᵀ`, and the score of sample `i` under the head fitted without it is
//! `y_i - (y_i - f(x_i)) / (1 - H_ii)` (Allen 1974; Cawley and Talbot 2003), for the same λ.

use super::statistics::Statistics;
use crate::blocks;
use crate::error::AdaptError;
use crate::linalg::{Matrix, dot, eigen};
use crate::support::Support;
use serde::{Deserialize, Serialize};

/// A fitted linear head: `scores = weights · x + bias`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ridge {
    /// `[C, D]`, row-major.
    pub weights: Vec<f64>,
    /// `[C]`.
    pub bias: Vec<f64>,
}

impl Ridge {
    /// Scores of an embedding `[D]`, one for each class; near 1 for the class and near 0 for the others.
    pub fn scores(&self, embedding: &[f32]) -> Vec<f64> {
        self.weights
            .chunks_exact(embedding.len())
            .zip(&self.bias)
            .map(|(w, b)| dot(w, embedding) + b)
            .collect()
    }
}

/// Where the linear system is solved; the solution is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// N×N system from the samples: the smaller one when N ≤ D.
    Sample,
    /// D×D system from [`Statistics`].
    Feature,
}

impl Space {
    /// The space with the smaller system.
    pub fn smaller(n_samples: usize, dim: usize) -> Self {
        if n_samples <= dim {
            Self::Sample
        } else {
            Self::Feature
        }
    }
}

/// The decomposed problem: heads and leave-one-out scores for any λ, without solving again.
pub struct RidgeProblem<'s> {
    support: &'s Support<'s>,
    mean: Vec<f64>,
    /// `ȳ`, `[C]`.
    shares: Vec<f64>,
    /// Eigenvalues, `[R]`.
    values: Vec<f64>,
    /// `UᵀY` or `VᵀXcᵀY`, `[R, C]`.
    moments: Matrix,
    factors: Factors,
}

enum Factors {
    /// `Xc` `[N, D]` and `U` `[N, R]`.
    Sample { centred: Matrix, vectors: Matrix },
    /// `V` `[D, R]` and `Xc V` `[N, R]`.
    Feature { vectors: Matrix, projected: Matrix },
}

impl<'s> RidgeProblem<'s> {
    /// Decomposes in sample space.
    ///
    /// # Errors
    ///
    /// [`AdaptError::Degenerate`] when all embeddings are the same.
    pub fn in_sample_space(support: &'s Support<'s>) -> Result<Self, AdaptError> {
        let mean = support.mean();
        let centred = support.centred(&mean);
        let (values, vectors) = eigen(&centred.row_gram())?;
        let mut moments = Matrix::zeros(support.len(), support.n_classes());
        for (i, &label) in support.labels().iter().enumerate() {
            for (j, u) in vectors.row(i).iter().enumerate() {
                moments.row_mut(j)[label] += u;
            }
        }
        Self::new(
            support,
            mean,
            values,
            moments,
            Factors::Sample { centred, vectors },
        )
    }

    /// Decomposes in feature space. `statistics` must be those of `support`, whose samples only leave-one-out needs.
    ///
    /// # Errors
    ///
    /// Statistics of other samples (another dimension or other class counts); [`AdaptError::Degenerate`] when all embeddings are the same.
    pub fn in_feature_space(
        statistics: &Statistics,
        support: &'s Support<'s>,
    ) -> Result<Self, AdaptError> {
        statistics.check_against(support)?;
        let mean = statistics.mean();
        let (values, vectors) = eigen(&statistics.scatter())?;
        let moments = vectors.transposed_times(&statistics.class_scatter().transposed());
        let projected = support.centred(&mean).times(&vectors);
        Self::new(
            support,
            mean,
            values,
            moments,
            Factors::Feature { vectors, projected },
        )
    }

    fn new(
        support: &'s Support<'s>,
        mean: Vec<f64>,
        values: Vec<f64>,
        moments: Matrix,
        factors: Factors,
    ) -> Result<Self, AdaptError> {
        let shares = support
            .counts()
            .iter()
            .map(|&n| n as f64 / support.len() as f64)
            .collect();
        let out = Self {
            support,
            mean,
            shares,
            values,
            moments,
            factors,
        };
        let mean_square: f64 = out.mean.iter().map(|m| m * m).sum();
        // Differences at the level of f32 rounding carry no information.
        if out.unit() <= 1e-13 * mean_square || out.unit() == 0.0 {
            return Err(AdaptError::Degenerate { n: support.len() });
        }
        Ok(out)
    }

    /// Mean squared distance of the samples from their mean: the unit in which λ is natural.
    pub fn unit(&self) -> f64 {
        self.values.iter().sum::<f64>() / self.support.len() as f64
    }

    /// The head for `lambda` > 0.
    pub fn solve(&self, lambda: f64) -> Ridge {
        let scaled = self
            .moments
            .scaled_rows(|j| 1.0 / (self.values[j] + lambda));
        let weights = match &self.factors {
            Factors::Sample { centred, vectors } => {
                vectors.times(&scaled).transposed_times(centred)
            }
            Factors::Feature { vectors, .. } => scaled.transposed_times(&vectors.transposed()),
        };
        let bias = (0..self.shares.len())
            .map(|c| {
                self.shares[c]
                    - weights
                        .row(c)
                        .iter()
                        .zip(&self.mean)
                        .map(|(w, m)| w * m)
                        .sum::<f64>()
            })
            .collect();
        Ridge {
            weights: weights.data,
            bias,
        }
    }

    /// Scores `[N, C]` of each sample under the head fitted without it, for `lambda` > 0.
    pub fn leave_one_out(&self, lambda: f64) -> Vec<f64> {
        let (factor, filter): (_, Vec<f64>) = match &self.factors {
            Factors::Sample { vectors, .. } => (
                vectors,
                self.values.iter().map(|s| s / (s + lambda)).collect(),
            ),
            Factors::Feature { projected, .. } => (
                projected,
                self.values.iter().map(|s| 1.0 / (s + lambda)).collect(),
            ),
        };
        let scaled = self.moments.scaled_rows(|j| filter[j]);
        let n = self.support.len();
        let blocks = blocks::map(n, |rows| {
            let mut scores = factor.rows_times(rows.clone(), &scaled);
            for (i, sample) in rows.enumerate() {
                let leverage = 1.0 / n as f64
                    + factor
                        .row(sample)
                        .iter()
                        .zip(&filter)
                        .map(|(f, q)| f * f * q)
                        .sum::<f64>();
                let rest = (1.0 - leverage).max(f64::EPSILON);
                let label = self.support.labels()[sample];
                for (c, score) in scores.row_mut(i).iter_mut().enumerate() {
                    let target = f64::from(u8::from(c == label));
                    *score = target - (target - self.shares[c] - *score) / rest;
                }
            }
            scores.data
        });
        blocks.concat()
    }
}
