//! Ridge-regularised linear discriminant analysis (Friedman 1989; Hastie, Buja and Tibshirani 1995), in closed form.
//!
//! With class means `μ_k`, within-class scatter `S = Σ_i d_i d_iᵀ`, `d_i = x_i - μ_{c(i)}`, and `A = (S + λI)⁻¹`, a sample goes to the class with
//! the smallest `(x - μ_k)ᵀ A (x - μ_k)`; dropping what all classes share, `f_k(x) = μ_kᵀ A x - ½ μ_kᵀ A μ_k`, which is linear. Classes count
//! alike, however many samples they have. As λ grows this becomes the nearest class mean. One eigendecomposition of `S`, in the smaller of
//! sample and feature space, serves every λ.
//!
//! Leaving out a group `G` of `m` rows (a sample with its copies) of a class with `N` rows changes `S` by `-D_GᵀBD_G`, `B = I + 11ᵀ/(N - m)`, and the
//! class mean by `-D_Gᵀ1/(N - m)`, so that with `Q = D_GAD_Gᵀ` the squared distance of `u` becomes `uᵀAu + wᵀ(B⁻¹ - Q)⁻¹w`, `w = D_GAu` and
//! `B⁻¹ = I - 11ᵀ/N` (Woodbury). Scores are minus half the squared distance.
//!
//! A sample that was left out is farther from its own class than a new one would be from the fitted head's: a mean of `n` samples is off by a spread
//! of `1/n`, so a new sample is at `1 + 1/n` times the distance within the class, one that was left out at `1 + 1/(n - 1)` times, and at
//! `1 + 1/n` times from the other classes. Without a correction samples look less certain, and more often wrong, than frames will be. Scores of samples left
//! out have their own class's squared distance times the quotient, `1 - 1/n²`.

use super::ridge::Ridge;
use super::statistics::Statistics;
use crate::blocks;
use crate::error::AdaptError;
use crate::linalg::{Matrix, eigen};
use crate::support::Support;
use std::ops::Range;

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

    /// Scores `[N, C]` of each sample under the head fitted without it, for `lambda` > 0, corrected for the smaller class. A class without
    /// another sample scores minus infinity.
    pub fn leave_one_out(&self, lambda: f64) -> Vec<f64> {
        let groups: Vec<_> = (0..self.support.len()).map(|i| i..i + 1).collect();
        self.leave_out(lambda, &groups)
    }

    /// Scores `[G, C]` of the first row of each group under the head fitted without the group, as [`Self::leave_one_out`]. The support's rows are
    /// groups of `sizes` rows each, one after the other, each of one class.
    ///
    /// # Errors
    ///
    /// [`AdaptError::Shape`] when the sizes do not add up to the rows, a group is empty or has rows of two classes.
    pub fn leave_groups_out(&self, lambda: f64, sizes: &[usize]) -> Result<Vec<f64>, AdaptError> {
        let mut end = 0;
        let mut groups = Vec::with_capacity(sizes.len());
        for size in sizes {
            groups.push(end..end + size);
            end += size;
        }
        let shape = |what, expected, got| AdaptError::Shape {
            what,
            expected,
            got,
        };
        if end != self.support.len() {
            return Err(shape("rows of all groups", self.support.len(), end));
        }
        for group in &groups {
            let labels = &self.support.labels()[group.clone()];
            let classes = labels.chunk_by(|a, b| a == b).count();
            if classes != 1 {
                return Err(shape("classes of a group", 1, classes));
            }
        }
        Ok(self.leave_out(lambda, &groups))
    }

    fn leave_out(&self, lambda: f64, groups: &[Range<usize>]) -> Vec<f64> {
        let forms = self.forms(lambda);
        let labels = self.support.labels();
        let mut n_groups = vec![0; self.support.n_classes()];
        groups
            .iter()
            .for_each(|group| n_groups[labels[group.start]] += 1);
        let blocks = blocks::map(groups.len(), |block| {
            let groups = &groups[block];
            let first = groups[0].start;
            let rows = first..groups[groups.len() - 1].end;
            let products = forms.factor.rows_times(rows, &forms.scaled);
            let scores = groups.iter().flat_map(|group| {
                let label = labels[group.start];
                let left_out = LeftOut {
                    label,
                    n: n_groups[label] as f64,
                    n_rows: self.support.counts()[label] as f64,
                    within: Matrix::symmetric(group.len(), |r, s| {
                        forms.of_rows(group.start + r, group.start + s)
                    }),
                };
                let rows = products.picked(group.start - first..group.end - first);
                left_out.scores(&rows, &forms.of_means)
            });
            scores.collect::<Vec<_>>()
        });
        blocks.concat()
    }

    fn forms(&self, lambda: f64) -> Forms<'_> {
        let inverse: Vec<f64> = self.values.iter().map(|s| 1.0 / (s + lambda)).collect();
        let scaled = self.moments.scaled_rows(|j| inverse[j]);
        let spanned = self.moments.transposed_times(&scaled);
        let (factor, filter, of_means) = match &self.factors {
            Factors::Sample { vectors, .. } => {
                let mut means = self.class_means.times(&self.class_means.transposed());
                let pairs = means.data.iter_mut().zip(&spanned.data);
                pairs.for_each(|(m, s)| *m = (*m - s) / lambda);
                let filter = self.values.iter().zip(&inverse).map(|(s, i)| s * i);
                (vectors, filter.collect(), means)
            }
            Factors::Feature { projected, .. } => (projected, inverse, spanned),
        };
        Forms {
            factor,
            filter,
            scaled,
            of_means,
        }
    }
}

/// Products of samples less their means and of class means with `A` in between.
struct Forms<'a> {
    /// `[N, R]`
    factor: &'a Matrix,
    /// `[R]`
    filter: Vec<f64>,
    /// `[R, C]`: the rows of `factor` times it are `d_iᵀAμ_k`.
    scaled: Matrix,
    /// `μ_kᵀAμ_l`, `[C, C]`.
    of_means: Matrix,
}

impl Forms<'_> {
    /// `d_iᵀAd_j`
    fn of_rows(&self, i: usize, j: usize) -> f64 {
        let pairs = self.factor.row(i).iter().zip(self.factor.row(j));
        pairs.zip(&self.filter).map(|((a, b), w)| a * b * w).sum()
    }
}

/// A group of rows that is left out.
struct LeftOut {
    label: usize,
    /// Groups of its class.
    n: f64,
    /// Rows of its class.
    n_rows: f64,
    /// `Q`, `[M, M]`.
    within: Matrix,
}

impl LeftOut {
    /// Scores `[C]` of its first row; `products` are `D_GAμ_k`, `[M, C]`, `of_means` `μ_kᵀAμ_l`.
    fn scores(&self, products: &Matrix, of_means: &Matrix) -> Vec<f64> {
        let (q, own, m) = (&self.within, self.label, self.within.rows);
        let rest = self.n_rows - m as f64;
        // Q1 / (N - m): how far the class mean moves, seen from the rows. The only group of a class has no mean without it.
        let moved: Vec<f64> = match rest > 0.0 {
            true => (0..m)
                .map(|r| q.row(r).iter().sum::<f64>() / rest)
                .collect(),
            false => vec![0.0; m],
        };
        let mut along = products.clone();
        for (r, row) in along.data.chunks_exact_mut(products.cols).enumerate() {
            let to_own = row[own];
            row.iter_mut().for_each(|x| *x = q.row(r)[0] + to_own - *x);
            row[own] = q.row(r)[0] + moved[r];
        }
        let share = if rest > 0.0 { 1.0 / self.n_rows } else { 0.0 };
        let inverse =
            Matrix::symmetric(m, |r, s| f64::from(u8::from(r == s)) - share - q.row(r)[s]);
        let along = inverse.half_solve(along);
        let from_own = products.row(0)[own];
        let distance = |k: usize| {
            let straight = match k == own {
                true => q.row(0)[0] + 2.0 * moved[0] + moved.iter().sum::<f64>() / rest.max(1.0),
                false => {
                    let means = of_means.row(own);
                    let between = means[own] - 2.0 * means[k] + of_means.row(k)[k];
                    q.row(0)[0] + 2.0 * (from_own - products.row(0)[k]) + between
                }
            };
            straight + (0..m).map(|r| along.row(r)[k].powi(2)).sum::<f64>()
        };
        let score = |k: usize| match (k == own, self.n > 1.0) {
            (true, false) => f64::NEG_INFINITY,
            (true, true) => -0.5 * distance(k) * (1.0 - self.n.powi(-2)),
            (false, _) => -0.5 * distance(k),
        };
        (0..products.cols).map(score).collect()
    }
}

fn add_scaled(out: &mut [f64], x: &[f64], factor: f64) {
    for (o, v) in out.iter_mut().zip(x) {
        *o += factor * v;
    }
}
