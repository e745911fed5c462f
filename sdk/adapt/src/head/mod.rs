//! Heads over embeddings, their leave-one-out scores included: closed forms, but for logistic regression.

pub mod discriminant;
pub mod knn;
mod lbfgs;
pub mod logistic;
pub mod prototype;
pub mod ridge;
pub mod statistics;

use crate::error::AdaptError;
use knn::Knn;
use prototype::Prototype;
use ridge::Ridge;
use serde::{Deserialize, Serialize};

/// The heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeadKind {
    /// [`discriminant`] with λ by leave-one-out: the best one as a rule; classes count alike, however many samples they have.
    Discriminant,
    /// [`ridge`]: classes with more samples are favoured in doubt.
    Ridge,
    /// [`prototype`]: nothing to choose; good at one sample a class.
    Prototype,
    /// [`discriminant`] with λ by shrinkage (OAS) instead of leave-one-out.
    Lda,
    /// [`logistic`]: the slowest to fit.
    Logistic,
    /// [`knn`]: keeps all samples; for classes of many looks.
    Knn,
}

impl HeadKind {
    /// All heads.
    pub const ALL: [Self; 6] = [
        Self::Discriminant,
        Self::Lda,
        Self::Ridge,
        Self::Logistic,
        Self::Prototype,
        Self::Knn,
    ];

    /// Name in tables, JSON and options.
    pub fn name(self) -> &'static str {
        match self {
            Self::Discriminant => "discriminant",
            Self::Ridge => "ridge",
            Self::Prototype => "prototype",
            Self::Lda => "lda",
            Self::Logistic => "logistic",
            Self::Knn => "knn",
        }
    }
}

impl std::str::FromStr for HeadKind {
    type Err = AdaptError;

    fn from_str(name: &str) -> Result<Self, AdaptError> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| AdaptError::BadOption {
            name: "head",
            value: name.into(),
            range: "discriminant, lda, ridge, logistic, prototype or knn",
        })
    }
}

/// A fitted head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Head {
    Linear(Ridge),
    Prototype(Prototype),
    Knn(Knn),
    /// Of a job with one class.
    One,
}

impl Head {
    /// Scores of an embedding `[D]`, one for each class.
    pub(crate) fn scores(&self, embedding: &[f32]) -> Vec<f64> {
        match self {
            Self::Linear(head) => head.scores(embedding),
            Self::Prototype(head) => head.scores(embedding),
            Self::Knn(head) => head.scores(embedding),
            Self::One => vec![0.0],
        }
    }

    /// Whether it is a head for `n_classes` classes of features `[dim]`; if not, what does not hold.
    pub(crate) fn check(&self, n_classes: usize, dim: usize) -> Result<(), String> {
        let weights = n_classes.checked_mul(dim).ok_or("sizes overflow")?;
        let (sizes, finite) = match self {
            Self::Linear(head) => (
                head.weights.len() == weights && head.bias.len() == n_classes,
                head.weights.iter().chain(&head.bias).all(|x| x.is_finite()),
            ),
            Self::Prototype(head) => (
                head.directions.len() == weights,
                head.directions.iter().all(|x| x.is_finite()),
            ),
            Self::Knn(head) => (
                head.n_classes == n_classes
                    && Some(head.units.len()) == head.labels.len().checked_mul(dim)
                    && head
                        .labels
                        .iter()
                        .all(|&label| (label as usize) < n_classes),
                head.units.iter().all(|x| x.is_finite()),
            ),
            Self::One => (n_classes == 1, true),
        };
        if !sizes {
            return Err("the head does not fit the classes and features".into());
        }
        if !finite {
            return Err("the head has numbers that are not finite".into());
        }
        Ok(())
    }
}

/// Candidates for λ: 25 values from 10⁻⁴ to 10⁴ times `unit`, evenly spaced in the logarithm, rising.
///
/// `unit` is [`discriminant::DiscriminantProblem::unit`] or [`ridge::RidgeProblem::unit`].
pub fn lambda_grid(unit: f64) -> Vec<f64> {
    (0..25)
        .map(|i| unit * 10f64.powf(f64::from(i - 12) / 3.0))
        .collect()
}
