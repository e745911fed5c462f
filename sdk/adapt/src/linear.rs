//! Fits a linear head: space, λ by leave-one-out.

use crate::calibrate::{Calibration, calibrate};
use crate::error::AdaptError;
use crate::fitted::argmax;
use crate::head::discriminant::DiscriminantProblem;
use crate::head::lambda_grid;
use crate::head::ridge::{Ridge, RidgeProblem, Space};
use crate::head::statistics::Statistics;
use crate::support::Support;

/// The linear heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinearKind {
    Discriminant,
    Ridge,
}

/// A fitted linear head with its leave-one-out scores.
pub(crate) struct LinearFit {
    pub(crate) head: Ridge,
    pub(crate) lambda: f64,
    /// `[N, C]`.
    pub(crate) loo_scores: Vec<f64>,
    /// `None` when no class has two samples.
    pub(crate) calibration: Option<Calibration>,
}

enum Problem<'s> {
    Discriminant(DiscriminantProblem<'s>),
    Ridge(RidgeProblem<'s>),
}

/// Fits on `support`; `statistics` are those of `support`, asked for only when there are more samples than features.
pub(crate) fn fit<'s>(
    kind: LinearKind,
    support: &Support,
    statistics: impl FnOnce() -> std::borrow::Cow<'s, Statistics>,
    lambda: Option<f64>,
) -> Result<LinearFit, AdaptError> {
    if let Some(value) = lambda.filter(|lambda| !(*lambda > 0.0 && lambda.is_finite())) {
        return Err(AdaptError::BadOption {
            name: "lambda",
            value: value.to_string(),
            range: "above 0 and finite",
        });
    }
    let problem = match (Space::smaller(support.len(), support.dim()), kind) {
        (Space::Sample, LinearKind::Discriminant) => {
            Problem::Discriminant(DiscriminantProblem::in_sample_space(support)?)
        }
        (Space::Sample, LinearKind::Ridge) => {
            Problem::Ridge(RidgeProblem::in_sample_space(support)?)
        }
        (Space::Feature, kind) => {
            let statistics = statistics();
            match kind {
                LinearKind::Discriminant => Problem::Discriminant(
                    DiscriminantProblem::in_feature_space(&statistics, support)?,
                ),
                LinearKind::Ridge => {
                    Problem::Ridge(RidgeProblem::in_feature_space(&statistics, support)?)
                }
            }
        }
    };
    let (lambda, loo_scores, calibration) = match lambda {
        Some(lambda) => problem.at(lambda, support),
        None => problem.best(support),
    };
    Ok(LinearFit {
        head: problem.solve(lambda),
        lambda,
        loo_scores,
        calibration,
    })
}

type Candidate = (f64, Vec<f64>, Option<Calibration>);

impl Problem<'_> {
    fn solve(&self, lambda: f64) -> Ridge {
        match self {
            Self::Discriminant(problem) => problem.solve(lambda),
            Self::Ridge(problem) => problem.solve(lambda),
        }
    }

    fn leave_one_out(&self, lambda: f64) -> Vec<f64> {
        match self {
            Self::Discriminant(problem) => problem.leave_one_out(lambda),
            Self::Ridge(problem) => problem.leave_one_out(lambda),
        }
    }

    fn unit(&self) -> f64 {
        match self {
            Self::Discriminant(problem) => problem.unit(),
            Self::Ridge(problem) => problem.unit(),
        }
    }

    fn at(&self, lambda: f64, support: &Support) -> Candidate {
        let scores = self.leave_one_out(lambda);
        let calibration = calibrate(&scores, support);
        (lambda, scores, calibration)
    }

    /// The λ of the grid whose leave-one-out scores are right most often; among equals the one with the highest likelihood (after
    /// calibration), then the largest. The unit when no class has two samples.
    fn best(&self, support: &Support) -> Candidate {
        if support.n_evaluable() == 0 {
            return self.at(self.unit(), support);
        }
        let grid = lambda_grid(self.unit());
        let hits: Vec<usize> = grid
            .iter()
            .map(|lambda| hits(&self.leave_one_out(*lambda), support))
            .collect();
        let most = hits.iter().max();
        let mut best: Option<Candidate> = None;
        for (lambda, _) in grid
            .iter()
            .zip(&hits)
            .rev()
            .filter(|(_, hits)| Some(*hits) == most)
        {
            let candidate = self.at(*lambda, support);
            let loss = |(_, _, calibration): &Candidate| {
                calibration.as_ref().map_or(f64::INFINITY, |c| c.loss)
            };
            if best
                .as_ref()
                .is_none_or(|best| loss(&candidate) < loss(best))
            {
                best = Some(candidate);
            }
        }
        best.unwrap_or_else(|| self.at(self.unit(), support))
    }
}

/// Samples whose class has another one and that their leave-one-out scores get right.
fn hits(scores: &[f64], support: &Support) -> usize {
    let rows = scores
        .chunks_exact(support.n_classes())
        .zip(support.labels())
        .enumerate();
    rows.filter(|(i, (row, label))| support.evaluable(*i) && argmax(row) == **label)
        .count()
}
