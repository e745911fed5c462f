//! Multinomial logistic regression with an L2 penalty, by L-BFGS.
//!
//! `min 1/N Σ_i w_i CE(softmax(Wᵀx_i + b), y_i) + λ/2 ‖W‖²`, with `w_i = N / (C n_c)`, so that classes count alike; `b` is not penalised. The
//! optimum lies in the span of the centred samples, so that with `XcXcᵀ = U S Uᵀ` the problem is solved for `Z = U S^½` `[N, R]`, `R < N`, and
//! mapped back; with more samples than features it is solved for `Xc` itself.
//!
//! Leave-one-out has no closed form here: each sample (or, beyond [`FOLDS`] samples, each of [`FOLDS`] groups, sample `i` being in group
//! `i mod FOLDS`) is left out and the optimum followed from that of all.

use super::lbfgs::{Curvature, Stop, dot, minimise};
use super::ridge::Ridge;
use crate::blocks;
use crate::error::AdaptError;
use crate::linalg::{Matrix, eigen};
use crate::support::Support;

/// Groups left out in turn when there are more samples than that.
pub const FOLDS: usize = 128;
/// Gradient at which a fit ends, as a share of the data's scale.
const PRECISION: f64 = 1e-7;
/// Gradient at which a fit that leaves samples out ends, as a share of what leaving them out made of it: any bound that does not depend on that
/// would let samples that are fitted well, whose gradient is small, keep the scores of the fit that has seen them.
const LOO_PRECISION: f64 = 0.02;

/// The problem in few coordinates: heads and leave-one-out scores for any λ.
pub struct LogisticProblem<'s> {
    support: &'s Support<'s>,
    mean: Vec<f64>,
    /// Centred samples in the smaller space, `[N, R]`.
    coordinates: Matrix,
    /// From coordinates back to features, `[R, D]`; `None` where they are the features.
    basis: Option<Matrix>,
    unit: f64,
}

/// `W` `[C, R]`, then `b` `[C]`.
type Theta = Vec<f64>;

impl<'s> LogisticProblem<'s> {
    /// Centres the samples and finds the coordinates.
    ///
    /// # Errors
    ///
    /// [`AdaptError::Degenerate`] when all embeddings are the same.
    pub fn new(support: &'s Support<'s>) -> Result<Self, AdaptError> {
        let mean = support.mean();
        let centred = support.centred(&mean);
        let total: f64 = centred.data.iter().map(|x| x * x).sum();
        let mean_square: f64 = mean.iter().map(|m| m * m).sum();
        let unit = total / support.len() as f64;
        // Differences at the level of f32 rounding carry no information.
        if unit <= 1e-13 * mean_square || unit == 0.0 {
            return Err(AdaptError::Degenerate { n: support.len() });
        }
        if support.len() > support.dim() {
            return Ok(Self {
                support,
                mean,
                coordinates: centred,
                basis: None,
                unit,
            });
        }
        let (values, vectors) = eigen(&centred.row_gram())?;
        let kept: Vec<usize> = (0..values.len())
            .filter(|&j| values[j] > 1e-10 * total)
            .collect();
        let mut coordinates = Matrix::zeros(support.len(), kept.len());
        let mut factors = Matrix::zeros(support.len(), kept.len());
        for i in 0..support.len() {
            for (k, &j) in kept.iter().enumerate() {
                let root = values[j].sqrt();
                coordinates.row_mut(i)[k] = vectors.row(i)[j] * root;
                factors.row_mut(i)[k] = vectors.row(i)[j] / root;
            }
        }
        let basis = Some(factors.transposed_times(&centred));
        Ok(Self {
            support,
            mean,
            coordinates,
            basis,
            unit,
        })
    }

    /// Mean squared distance of the samples from their mean: the unit in which λ is natural.
    pub fn unit(&self) -> f64 {
        self.unit
    }

    /// Candidates for λ: 10⁻¹ to 10⁻⁴ times the unit, falling: each optimum is where the search for the next begins. Above, the head is the
    /// nearest mean; below, it hardly changes any more.
    pub fn grid(&self) -> Vec<f64> {
        (1..5).map(|i| self.unit * 10f64.powi(-i)).collect()
    }

    /// The head for `lambda` > 0.
    pub fn solve(&self, lambda: f64) -> Ridge {
        self.head(&self.optimum(lambda, &self.origin()).0)
    }

    /// For each of `lambdas`: the head, and scores `[N, C]` of each sample under the head fitted without it (or its group). A class without
    /// another sample scores minus infinity.
    pub(crate) fn path(&self, lambdas: &[f64]) -> Vec<(Ridge, Vec<f64>)> {
        let mut theta = self.origin();
        let fit = |&lambda: &f64| {
            let curvature;
            (theta, curvature) = self.optimum(lambda, &theta);
            (
                self.head(&theta),
                self.leave_out(lambda, &theta, &curvature),
            )
        };
        lambdas.iter().map(fit).collect()
    }

    /// Scores `[N, C]` as [`Self::path`] gives them, for one `lambda` > 0.
    pub fn leave_one_out(&self, lambda: f64) -> Vec<f64> {
        let (optimum, curvature) = self.optimum(lambda, &self.origin());
        self.leave_out(lambda, &optimum, &curvature)
    }

    fn origin(&self) -> Theta {
        vec![0.0; self.support.n_classes() * (self.coordinates.cols + 1)]
    }

    fn optimum(&self, lambda: f64, start: &[f64]) -> (Theta, Curvature) {
        let mut theta = start.to_vec();
        let stop = Stop {
            gradient: PRECISION * self.unit.sqrt(),
            share: 0.0,
            steps: 1000,
        };
        let all = self.weights(|_| true);
        let mut curvature = Curvature::default();
        minimise(&mut theta, &stop, &mut curvature, |theta, gradient| {
            self.loss(theta, gradient, lambda, &all)
        });
        (theta, curvature)
    }

    fn leave_out(&self, lambda: f64, optimum: &[f64], curvature: &Curvature) -> Vec<f64> {
        let n = self.support.len();
        let n_groups = n.min(FOLDS);
        let stop = Stop {
            gradient: PRECISION * self.unit.sqrt(),
            share: LOO_PRECISION,
            steps: 100,
        };
        let groups = blocks::each(n_groups, |group| {
            let weights = self.weights(|i| i % n_groups != group);
            let mut theta = optimum.to_vec();
            let mut curvature = curvature.clone();
            minimise(&mut theta, &stop, &mut curvature, |theta, gradient| {
                self.loss(theta, gradient, lambda, &weights)
            });
            let members = (group..n).step_by(n_groups);
            members.map(|i| self.logits(&theta, i)).collect::<Vec<_>>()
        });
        let row = |i: usize| {
            let mut row = groups[i % n_groups][i / n_groups].clone();
            if !self.support.evaluable(i) {
                row[self.support.labels()[i]] = f64::NEG_INFINITY;
            }
            row
        };
        (0..n).flat_map(row).collect()
    }

    /// `w_i / N` for the samples that count, 0 for the others.
    fn weights(&self, counts: impl Fn(usize) -> bool) -> Vec<f64> {
        let mut of_class = vec![0usize; self.support.n_classes()];
        let labels = self.support.labels();
        labels
            .iter()
            .enumerate()
            .filter(|(i, _)| counts(*i))
            .for_each(|(_, &label)| of_class[label] += 1);
        let present = of_class.iter().filter(|n| **n > 0).count() as f64;
        let weight = |(i, &label): (usize, &usize)| {
            if counts(i) {
                1.0 / (present * of_class[label] as f64)
            } else {
                0.0
            }
        };
        labels.iter().enumerate().map(weight).collect()
    }

    fn logits(&self, theta: &[f64], i: usize) -> Vec<f64> {
        let (weights, bias) = theta.split_at(self.support.n_classes() * self.coordinates.cols);
        let z = self.coordinates.row(i);
        let row = |c: usize| dot(&weights[c * z.len()..(c + 1) * z.len()], z) + bias[c];
        (0..bias.len()).map(row).collect()
    }

    /// Value and gradient of the penalised loss.
    fn loss(&self, theta: &[f64], gradient: &mut [f64], lambda: f64, weights: &[f64]) -> f64 {
        let (n_classes, width) = (self.support.n_classes(), self.coordinates.cols);
        let split = n_classes * width;
        let mut value = 0.5 * lambda * dot(&theta[..split], &theta[..split]);
        for (g, w) in gradient[..split].iter_mut().zip(theta) {
            *g = lambda * w;
        }
        gradient[split..].fill(0.0);
        let n = self.support.len();
        let matrix = Matrix {
            rows: n_classes,
            cols: width,
            data: theta[..split].to_vec(),
        };
        let mut residuals = self.coordinates.rows_times_transposed(0..n, &matrix);
        for (i, &weight) in weights.iter().enumerate() {
            let row = residuals.row_mut(i);
            if weight == 0.0 {
                row.fill(0.0);
                continue;
            }
            row.iter_mut()
                .zip(&theta[split..])
                .for_each(|(logit, bias)| *logit += bias);
            let label = self.support.labels()[i];
            let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let own = row[label];
            row.iter_mut()
                .for_each(|logit| *logit = (*logit - max).exp());
            let sum: f64 = row.iter().sum();
            value += weight * (sum.ln() + max - own);
            row.iter_mut().for_each(|exp| *exp *= weight / sum);
            row[label] -= weight;
            gradient[split..]
                .iter_mut()
                .zip(row.iter())
                .for_each(|(g, r)| *g += r);
        }
        let products = residuals.transposed_times(&self.coordinates);
        gradient
            .iter_mut()
            .zip(&products.data)
            .for_each(|(g, p)| *g += p);
        value
    }

    fn head(&self, theta: &[f64]) -> Ridge {
        let n_classes = self.support.n_classes();
        let (weights, bias) = theta.split_at(n_classes * self.coordinates.cols);
        let weights = Matrix {
            rows: n_classes,
            cols: self.coordinates.cols,
            data: weights.to_vec(),
        };
        let weights = match &self.basis {
            Some(basis) => weights.times(basis),
            None => weights,
        };
        let bias = (0..n_classes)
            .map(|c| bias[c] - dot(weights.row(c), &self.mean))
            .collect();
        Ridge {
            weights: weights.data,
            bias,
        }
    }
}
