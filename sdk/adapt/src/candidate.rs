//! One head fitted on one support, with all that leave-one-out says about it.

use crate::calibrate::{Calibration, calibrate};
use crate::error::AdaptError;
use crate::fitted::argmax;
use crate::head::discriminant::DiscriminantProblem;
use crate::head::knn::Knn;
use crate::head::logistic::LogisticProblem;
use crate::head::prototype::Prototype;
use crate::head::ridge::{Ridge, RidgeProblem, Space};
use crate::head::statistics::Statistics;
use crate::head::{Head, HeadKind, lambda_grid};
use crate::support::Support;
use std::borrow::Cow;
use std::cell::OnceCell;

/// A fitted head with its leave-one-out scores.
pub(crate) struct Candidate {
    pub(crate) kind: HeadKind,
    pub(crate) head: Head,
    pub(crate) lambda: Option<f64>,
    /// `[N, C]`.
    pub(crate) loo_scores: Vec<f64>,
    /// `None` when no class has two samples.
    pub(crate) calibration: Option<Calibration>,
    /// Temperature where there is no calibration.
    pub(crate) prior: f64,
}

impl Candidate {
    /// Its scores become probabilities by `softmax(scores / temperature)`.
    pub(crate) fn temperature(&self) -> f64 {
        match &self.calibration {
            Some(calibration) => calibration.temperature,
            None => self.prior,
        }
    }

    /// Samples, of those whose class has another one, that the head fitted without them gets right.
    pub(crate) fn hits(&self, support: &Support) -> usize {
        hits(&self.loo_scores, support)
    }

    /// Negative log-likelihood of their labels, summed; infinite when there are none.
    pub(crate) fn loss(&self) -> f64 {
        loss(&self.calibration)
    }
}

/// The head alone, without leave-one-out, and its λ: the one given, or the one that needs no search.
pub(crate) fn head_alone(
    kind: HeadKind,
    support: &Support,
    lambda: Option<f64>,
) -> Result<(Head, Option<f64>), AdaptError> {
    Ok(match kind {
        HeadKind::Discriminant | HeadKind::Lda | HeadKind::Ridge => {
            let problem = Closed::new(kind, support, || Cow::Owned(Statistics::of(support)))?;
            let lambda = lambda.or(problem.shrinkage());
            let lambda = lambda.unwrap_or(problem.unit());
            (Head::Linear(problem.solve(lambda)), Some(lambda))
        }
        HeadKind::Logistic => {
            let problem = LogisticProblem::new(support)?;
            let lambda = lambda.unwrap_or(0.01 * problem.unit());
            (Head::Linear(problem.solve(lambda)), Some(lambda))
        }
        HeadKind::Prototype => (Head::Prototype(Prototype::fit(support)), None),
        HeadKind::Knn => (Head::Knn(Knn::fit(support)), None),
    })
}

/// A discriminant on rows in groups of `sizes`, each a sample with its copies, its λ (by shrinkage if none is given), and scores `[G, C]` of the samples,
/// each left out with its copies.
pub(crate) fn in_groups(
    support: &Support,
    sizes: &[usize],
    lambda: Option<f64>,
) -> Result<(Head, f64, Vec<f64>), AdaptError> {
    let problem = discriminant(support, || Cow::Owned(Statistics::of(support)))?;
    let lambda = lambda.unwrap_or(problem.shrinkage());
    let scores = problem.leave_groups_out(lambda, sizes)?;
    Ok((Head::Linear(problem.solve(lambda)), lambda, scores))
}

/// Used when no class has two samples, so that nothing is known about the scores' reliability: for heads whose scores differ by about 1 between
/// a sample's own class and another one, a quarter of that; for cosines DINO's 0.07; logits as they are.
fn default_temperature(head: HeadKind) -> f64 {
    match head {
        HeadKind::Prototype => 0.07,
        HeadKind::Logistic => 1.0,
        _ => 0.25,
    }
}

/// Fits on `support`; `statistics` are those of `support`, asked for only when there are more samples than features.
pub(crate) fn fit<'s>(
    kind: HeadKind,
    support: &Support,
    statistics: impl FnOnce() -> Cow<'s, Statistics>,
    lambda: Option<f64>,
) -> Result<Candidate, AdaptError> {
    if let Some(value) = lambda.filter(|lambda| !(*lambda > 0.0 && lambda.is_finite())) {
        return Err(AdaptError::BadOption {
            name: "lambda",
            value: value.to_string(),
            range: "above 0 and finite",
        });
    }
    match kind {
        HeadKind::Discriminant | HeadKind::Lda | HeadKind::Ridge => {
            let problem = Closed::new(kind, support, statistics)?;
            let lambda = match kind {
                HeadKind::Lda => lambda.or(problem.shrinkage()),
                _ => lambda,
            };
            Ok(match lambda {
                Some(lambda) => problem.at(kind, lambda, support),
                None => problem.best(kind, support),
            })
        }
        HeadKind::Logistic => logistic(support, lambda),
        HeadKind::Prototype => {
            let scores = Prototype::leave_one_out(support);
            let head = Head::Prototype(Prototype::fit(support));
            Ok(candidate(kind, head, None, scores, support))
        }
        HeadKind::Knn => {
            let scores = Knn::leave_one_out(support);
            let head = Head::Knn(Knn::fit(support));
            Ok(candidate(kind, head, None, scores, support))
        }
    }
}

fn candidate(
    kind: HeadKind,
    head: Head,
    lambda: Option<f64>,
    loo_scores: Vec<f64>,
    support: &Support,
) -> Candidate {
    let calibration = calibrate(&loo_scores, support);
    Candidate {
        kind,
        head,
        lambda,
        loo_scores,
        calibration,
        prior: default_temperature(kind),
    }
}

/// The λ of the grid whose leave-one-out scores are right most often, then likeliest, then the largest; a hundredth of the unit when no
/// class has two samples.
fn logistic(support: &Support, lambda: Option<f64>) -> Result<Candidate, AdaptError> {
    let problem = LogisticProblem::new(support)?;
    let grid = match lambda {
        Some(lambda) => vec![lambda],
        None if support.n_evaluable() == 0 => vec![0.01 * problem.unit()],
        None => problem.grid(),
    };
    let mut best: Option<Candidate> = None;
    for (&lambda, (head, scores)) in grid.iter().zip(problem.path(&grid)) {
        let next = candidate(
            HeadKind::Logistic,
            Head::Linear(head),
            Some(lambda),
            scores,
            support,
        );
        let key = |c: &Candidate| (c.hits(support), -c.loss());
        if best.as_ref().is_none_or(|best| key(&next) > key(best)) {
            best = Some(next);
        }
    }
    best.ok_or(AdaptError::Degenerate { n: support.len() })
}

fn discriminant<'s, 't>(
    support: &'s Support<'s>,
    statistics: impl FnOnce() -> Cow<'t, Statistics>,
) -> Result<DiscriminantProblem<'s>, AdaptError> {
    match Space::smaller(support.len(), support.dim()) {
        Space::Sample => DiscriminantProblem::in_sample_space(support),
        Space::Feature => DiscriminantProblem::in_feature_space(&statistics(), support),
    }
}

/// The heads with a closed form for every λ.
enum Closed<'s> {
    Discriminant(DiscriminantProblem<'s>),
    Ridge(RidgeProblem<'s>),
}

impl<'s> Closed<'s> {
    fn new<'t>(
        kind: HeadKind,
        support: &'s Support<'s>,
        statistics: impl FnOnce() -> Cow<'t, Statistics>,
    ) -> Result<Self, AdaptError> {
        if kind != HeadKind::Ridge {
            return discriminant(support, statistics).map(Self::Discriminant);
        }
        let problem = match Space::smaller(support.len(), support.dim()) {
            Space::Sample => RidgeProblem::in_sample_space(support),
            Space::Feature => RidgeProblem::in_feature_space(&statistics(), support),
        };
        problem.map(Self::Ridge)
    }

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

    fn shrinkage(&self) -> Option<f64> {
        match self {
            Self::Discriminant(problem) => Some(problem.shrinkage()),
            Self::Ridge(_) => None,
        }
    }

    fn at(&self, kind: HeadKind, lambda: f64, support: &Support) -> Candidate {
        let scores = self.leave_one_out(lambda);
        let head = Head::Linear(self.solve(lambda));
        candidate(kind, head, Some(lambda), scores, support)
    }

    /// The λ of the grid whose leave-one-out scores are right most often; among equals the one with the highest likelihood (after
    /// calibration), then the largest. The unit when no class has two samples.
    fn best(&self, kind: HeadKind, support: &Support) -> Candidate {
        if support.n_evaluable() == 0 {
            return self.at(kind, self.unit(), support);
        }
        let mut best: Option<Tried> = None;
        for lambda in lambda_grid(self.unit()).into_iter().rev() {
            let scores = self.leave_one_out(lambda);
            let next = Tried {
                lambda,
                hits: hits(&scores, support),
                scores,
                calibration: OnceCell::new(),
            };
            if best
                .as_ref()
                .is_none_or(|best| next.is_better(best, support))
            {
                best = Some(next);
            }
        }
        match best {
            Some(best) => Candidate {
                kind,
                head: Head::Linear(self.solve(best.lambda)),
                lambda: Some(best.lambda),
                calibration: best.calibration(support).clone(),
                loo_scores: best.scores,
                prior: default_temperature(kind),
            },
            None => self.at(kind, self.unit(), support),
        }
    }
}

/// What leave-one-out says about one λ; only the best one is kept, since the scores of many samples and classes are large.
struct Tried {
    lambda: f64,
    scores: Vec<f64>,
    hits: usize,
    calibration: OnceCell<Option<Calibration>>,
}

impl Tried {
    fn calibration(&self, support: &Support) -> &Option<Calibration> {
        self.calibration
            .get_or_init(|| calibrate(&self.scores, support))
    }

    fn is_better(&self, best: &Self, support: &Support) -> bool {
        let likelier = || loss(self.calibration(support)) < loss(best.calibration(support));
        self.hits > best.hits || self.hits == best.hits && likelier()
    }
}

fn loss(calibration: &Option<Calibration>) -> f64 {
    calibration.as_ref().map_or(f64::INFINITY, |c| c.loss)
}

fn hits(scores: &[f64], support: &Support) -> usize {
    let rows = scores
        .chunks_exact(support.n_classes())
        .zip(support.labels())
        .enumerate();
    rows.filter(|(i, (row, label))| support.evaluable(*i) && argmax(row) == **label)
        .count()
}
