//! Ridge-regularised linear discriminant analysis (Friedman 1989; Hastie, Buja and Tibshirani 1995), in closed form.
//!
//! With class means `μ_k`, within-class scatter `S = Σ_i d_i d_iᵀ`, `d_i = x_i - μ_{c(i)}`, and `A = (S + λI)⁻¹`, a sample goes to the class with
//! the smallest `(x - μ_k)ᵀ A (x - μ_k)`; dropping what all classes share, `f_k(x) = μ_kᵀ A x - ½ μ_kᵀ A μ_k`, which is linear. Classes count
//! alike, however many samples they have. As λ grows this becomes the nearest class mean. One eigendecomposition of `S`, in the smaller of
//! sample and feature space, serves every λ.
//!
//! Leaving out sample `i` of class `c` with `n_c` samples changes `S` by `-a d dᵀ`, `a = n_c / (n_c - 1)`, and `μ_c` by `-d / (n_c - 1)`, so that
//! with `q = dᵀAd` and `u_k = x_i - μ_k` (Sherman and Morrison) its squared distance to class `k ≠ c` becomes
//! `u_kᵀAu_k + a (u_kᵀAd)² / (1 - a q)`, and to its own class `a² q / (1 - a q)`. Scores are minus half the squared distance.

use super::ridge::Ridge;
use super::statistics::Statistics;
use crate::blocks;
use crate::error::AdaptError;
use crate::linalg::{Matrix, eigen};
use crate::support::Support;

/// The decomposed problem: heads and leave-one-out scores for any λ, without solving again.
pub struct DiscriminantProblem<'s> {
    support: &'s Support<'s>,
    mean: Vec<f64>,
    /// Class means less the mean, `[C, D]`.
    class_means: Matrix,
    /// Eigenvalues of `S`, `[R]`.
    values: Vec<f64>,
    /// `UᵀDM ᵀ` (sample space) or `VᵀMᵀ` (feature space), `M` being the class means: `[R, C]`.
    moments: Matrix,
    factors: Factors,
    unit: f64,
}

enum Factors {
    /// `D` (rows `d_i`) `[N, D]` and `U` `[N, R]` of `DDᵀ = U S Uᵀ`.
    Sample { within: Matrix, vectors: Matrix },
    /// `V` `[D, R]` of `DᵀD = V S Vᵀ` and `D V` `[N, R]`.
    Feature { vectors: Matrix, projected: Matrix },
}

impl<'s> DiscriminantProblem<'s> {
    /// Decomposes in sample space.
    ///
    /// # Errors
    ///
    /// [`AdaptError::Degenerate`] when all embeddings are the same.
    pub fn in_sample_space(support: &'s Support<'s>) -> Result<Self, AdaptError> {
        let mean = support.mean();
        let mut within = support.centred(&mean);
        let mut class_means = Matrix::zeros(support.n_classes(), support.dim());
        for (i, &label) in support.labels().iter().enumerate() {
            let n = support.counts()[label] as f64;
            add_scaled(class_means.row_mut(label), within.row(i), 1.0 / n);
        }
        for (i, &label) in support.labels().iter().enumerate() {
            add_scaled(within.row_mut(i), class_means.row(label), -1.0);
        }
        let (values, vectors) = eigen(&within.row_gram())?;
        let moments = vectors.transposed_times(&within.times(&class_means.transposed()));
        Self::new(
            support,
            mean,
            class_means,
            values,
            moments,
            Factors::Sample { within, vectors },
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
        let class_means = statistics.class_means();
        let (values, vectors) = eigen(&statistics.within_scatter())?;
        let moments = vectors.transposed_times(&class_means.transposed());
        let mut within = support.centred(&mean);
        for (i, &label) in support.labels().iter().enumerate() {
            add_scaled(within.row_mut(i), class_means.row(label), -1.0);
        }
        let projected = within.times(&vectors);
        Self::new(
            support,
            mean,
            class_means,
            values,
            moments,
            Factors::Feature { vectors, projected },
        )
    }

    fn new(
        support: &'s Support<'s>,
        mean: Vec<f64>,
        class_means: Matrix,
        values: Vec<f64>,
        moments: Matrix,
        factors: Factors,
    ) -> Result<Self, AdaptError> {
        let square = |x: &[f64]| x.iter().map(|v| v * v).sum::<f64>();
        let n = support.len() as f64;
        let within = values.iter().sum::<f64>() / n;
        let between = support
            .counts()
            .iter()
            .enumerate()
            .map(|(c, &count)| count as f64 * square(class_means.row(c)))
            .sum::<f64>()
            / n;
        // Differences at the level of f32 rounding carry no information.
        let noise = 1e-13 * square(&mean);
        if within + between <= noise || within + between == 0.0 {
            return Err(AdaptError::Degenerate { n: support.len() });
        }
        let unit = if within > noise {
            within
        } else {
            within + between
        };
        Ok(Self {
            support,
            mean,
            class_means,
            values,
            moments,
            factors,
            unit,
        })
    }

    /// The unit in which λ is natural: mean squared distance of the samples from their class means, or, where each class has one sample,
    /// from the mean of all.
    pub fn unit(&self) -> f64 {
        self.unit
    }

    /// The λ for which `S + λI` is, up to scale, the oracle approximating shrinkage of the within-class covariance (Chen, Wiesel, Eldar and Hero
    /// 2010, equation 23), with `N - C` degrees of freedom: `(1 - ρ) Σ + ρ tr(Σ)/D I`. The unit where no class has two samples.
    pub fn shrinkage(&self) -> f64 {
        let freedom = self.support.len() - self.support.n_classes();
        let (n, p) = (freedom.max(1) as f64, self.support.dim() as f64);
        let trace = self.values.iter().sum::<f64>() / n;
        let square = self.values.iter().map(|v| v * v).sum::<f64>() / (n * n);
        if freedom == 0 || trace <= 0.0 {
            return self.unit;
        }
        let above = (1.0 - 2.0 / p) * square + trace * trace;
        let below = (n + 1.0 - 2.0 / p) * (square - trace * trace / p);
        // Near 1 nothing is left of the covariance, and λ would be infinite.
        let rho = if below > above { above / below } else { 1.0 }.min(1.0 - 1e-6);
        n * rho / (1.0 - rho) * trace / p
    }

    /// The head for `lambda` > 0: `weights` are `A μ_k`, with `μ_k` less the mean of all.
    pub fn solve(&self, lambda: f64) -> Ridge {
        let scaled = self
            .moments
            .scaled_rows(|j| 1.0 / (self.values[j] + lambda));
        let weights = match &self.factors {
            Factors::Sample { within, vectors } => {
                let mut weights = vectors.times(&scaled).transposed_times(within);
                for (w, m) in weights.data.iter_mut().zip(&self.class_means.data) {
                    *w = (m - *w) / lambda;
                }
                weights
            }
            Factors::Feature { vectors, .. } => scaled.transposed_times(&vectors.transposed()),
        };
        let bias = (0..weights.rows)
            .map(|c| {
                let products = weights
                    .row(c)
                    .iter()
                    .zip(&self.mean)
                    .zip(self.class_means.row(c));
                -products.map(|((w, m), mu)| w * (m + 0.5 * mu)).sum::<f64>()
            })
            .collect();
        Ridge {
            weights: weights.data,
            bias,
        }
    }

    /// Scores `[N, C]` of each sample under the head fitted without it, for `lambda` > 0, up to one number for each sample. A class without
    /// another sample scores minus infinity.
    pub fn leave_one_out(&self, lambda: f64) -> Vec<f64> {
        let inverse: Vec<f64> = self.values.iter().map(|s| 1.0 / (s + lambda)).collect();
        let scaled = self.moments.scaled_rows(|j| inverse[j]);
        let (factor, filter, mean_products) = match &self.factors {
            Factors::Sample { vectors, .. } => {
                let mut products = self.class_means.times(&self.class_means.transposed());
                let spanned = self.moments.transposed_times(&scaled);
                products
                    .data
                    .iter_mut()
                    .zip(&spanned.data)
                    .for_each(|(p, s)| *p = (*p - s) / lambda);
                (
                    vectors,
                    self.values
                        .iter()
                        .zip(&inverse)
                        .map(|(s, i)| s * i)
                        .collect(),
                    products,
                )
            }
            Factors::Feature { projected, .. } => {
                (projected, inverse, self.moments.transposed_times(&scaled))
            }
        };
        let blocks = blocks::map(self.support.len(), |rows| {
            let mut scores = factor.rows_times(rows.clone(), &scaled);
            for (i, sample) in rows.enumerate() {
                let q = factor
                    .row(sample)
                    .iter()
                    .zip(&filter)
                    .map(|(f, w)| f * f * w)
                    .sum();
                self.leave_out(scores.row_mut(i), sample, q, &mean_products);
            }
            scores.data
        });
        blocks.concat()
    }

    /// Turns `dᵀAμ_k` into the scores of a sample left out; `mean_products` are `μ_kᵀAμ_l`.
    fn leave_out(&self, row: &mut [f64], sample: usize, q: f64, mean_products: &Matrix) {
        let label = self.support.labels()[sample];
        let n = self.support.counts()[label] as f64;
        let (own, own_square) = (row[label], mean_products.row(label)[label]);
        let a = n / (n - 1.0);
        let rest = (1.0 - a * q).max(f64::EPSILON);
        for (k, product) in row.iter_mut().enumerate() {
            let square = if k == label {
                if n > 1.0 {
                    a * a * q / rest
                } else {
                    f64::INFINITY
                }
            } else {
                let along = own - *product;
                let between =
                    own_square - 2.0 * mean_products.row(label)[k] + mean_products.row(k)[k];
                let update = if n > 1.0 {
                    a * (q + along) * (q + along) / rest
                } else {
                    0.0
                };
                q + 2.0 * along + between + update
            };
            *product = -0.5 * square;
        }
    }
}

fn add_scaled(out: &mut [f64], x: &[f64], factor: f64) {
    for (o, v) in out.iter_mut().zip(x) {
        *o += factor * v;
    }
}
