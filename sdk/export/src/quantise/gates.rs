//! What a variant must reach to be written.

use std::fmt;
use std::str::FromStr;

use ssl_edge_bundle::QualityFigures;

/// What a gate looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GateMetric {
    /// Mean cosine between the features of both precisions.
    Cosine,
    /// The cosine that 1 % of the frames are below.
    Worst,
    /// Points of 20-NN accuracy lost against f32.
    Knn,
    /// Points of few-shot accuracy lost against f32, at the number of shots that loses most.
    Fewshot,
    /// Points of recall lost against f32, of the class and score that lose most.
    Recall,
    /// Points of AUROC lost against f32 when good parts alone are learned.
    Auroc,
}

/// What a figure is measured on beside frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    Nothing,
    Labels,
    Parts,
}

/// A bound that a figure must keep: `cosine>=0.995`, `worst>=0.97`, `knn<=0.5`, `fewshot<=1`, `recall<=2`, `auroc<=0.5`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gate {
    /// What it looks at.
    pub metric: GateMetric,
    /// The least cosine, or the most points lost.
    pub bound: f64,
}

impl GateMetric {
    const ALL: [Self; 6] = [
        Self::Cosine,
        Self::Worst,
        Self::Knn,
        Self::Fewshot,
        Self::Recall,
        Self::Auroc,
    ];

    /// `cosine`, `worst`, `knn`, `fewshot`, `recall` or `auroc`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Worst => "worst",
            Self::Knn => "knn",
            Self::Fewshot => "fewshot",
            Self::Recall => "recall",
            Self::Auroc => "auroc",
        }
    }

    pub(super) fn needs(self) -> Needs {
        match self {
            Self::Cosine | Self::Worst => Needs::Nothing,
            Self::Knn | Self::Fewshot | Self::Recall => Needs::Labels,
            Self::Auroc => Needs::Parts,
        }
    }

    /// Whether the figure counts points lost, so that less is better.
    pub fn is_loss(self) -> bool {
        self.needs() != Needs::Nothing
    }

    fn sign(self) -> &'static str {
        if self.is_loss() { "<=" } else { ">=" }
    }

    /// The figure, or `None` where it was not measured.
    pub fn of(self, figures: &QualityFigures) -> Option<f64> {
        let scores = || figures.scores.iter();
        let points = |own: f64, float: f64| 100.0 * (float - own);
        let lost = |prefix: &str| {
            scores()
                .filter(|s| s.name.starts_with(prefix))
                .map(|s| points(s.accuracy, s.f32_accuracy))
                .max_by(f64::total_cmp)
        };
        match self {
            Self::Cosine => Some(figures.cosine_mean),
            Self::Worst => Some(figures.cosine_worst),
            Self::Knn => lost("knn"),
            Self::Fewshot => lost("fewshot"),
            Self::Recall => scores()
                .flat_map(|score| &score.classes)
                .map(|class| points(class.recall, class.f32_recall))
                .max_by(f64::total_cmp),
            Self::Auroc => figures.anomaly.map(|a| points(a.auroc, a.f32_auroc)),
        }
    }
}

impl Gate {
    /// Gates that hold where the caller gave none for the same figure.
    pub const DEFAULT: [Self; 2] = [
        Self {
            metric: GateMetric::Cosine,
            bound: 0.995,
        },
        Self {
            metric: GateMetric::Worst,
            bound: 0.97,
        },
    ];

    /// The caller's gates, and the default ones for all else.
    pub(super) fn with_defaults(gates: &[Self]) -> Vec<Self> {
        let unnamed = |gate: &&Self| gates.iter().all(|own| own.metric != gate.metric);
        let defaults = Self::DEFAULT.iter().filter(unnamed);
        defaults.chain(gates).copied().collect()
    }

    /// Whether the figures keep the bound; not measured is not kept.
    pub fn holds(&self, figures: &QualityFigures) -> bool {
        self.metric.of(figures).is_some_and(|value| {
            if self.metric.is_loss() {
                value <= self.bound
            } else {
                value >= self.bound
            }
        })
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { metric, bound } = self;
        write!(f, "{}{}{bound}", metric.name(), metric.sign())
    }
}

impl FromStr for Gate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        GateMetric::ALL
            .into_iter()
            .find_map(|metric| {
                let rest = text.trim().strip_prefix(metric.name())?.trim_start();
                let bound: f64 = rest.strip_prefix(metric.sign())?.trim().parse().ok()?;
                bound.is_finite().then_some(Self { metric, bound })
            })
            .ok_or_else(|| {
                format!(
                    "{text:?} is no gate; write cosine>=0.995, worst>=0.97, knn<=0.5, fewshot<=0.5, recall<=2 or auroc<=0.5 (points lost)"
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use ssl_edge_bundle::{AnomalyFigures, ClassFigures, ScoreFigures};

    use super::*;

    fn figures() -> QualityFigures {
        let score = |name: &str, accuracy: f64, recalls: &[f64]| ScoreFigures {
            name: name.to_owned(),
            accuracy,
            ci95: 0.01,
            f32_accuracy: 0.80,
            f32_ci95: 0.01,
            classes: recalls
                .iter()
                .map(|recall| ClassFigures {
                    frames: 50,
                    recall: *recall,
                    f32_recall: 0.80,
                })
                .collect(),
        };
        QualityFigures {
            frames: 100,
            cosine_mean: 0.998,
            cosine_worst: 0.96,
            scores: vec![
                score("knn", 0.796, &[0.82, 0.772]),
                score("fewshot-1", 0.81, &[0.80, 0.82]),
                score("fewshot-5", 0.78, &[0.75, 0.81]),
            ],
            anomaly: Some(AnomalyFigures {
                learned: 8,
                good: 8,
                bad: 30,
                auroc: 0.912,
                ci95: 0.03,
                f32_auroc: 0.915,
                f32_ci95: 0.03,
            }),
        }
    }

    #[test]
    fn gates_are_read_and_hold_as_written() {
        for (text, holds) in [
            ("cosine>=0.995", true),
            ("worst>=0.97", false),
            ("knn<=0.5", true),
            ("knn <= 0.3", false),
            ("fewshot<=2.1", true),
            ("fewshot<=1.9", false),
            ("recall<=5.1", true),
            ("recall<=4.9", false),
            ("auroc<=0.31", true),
            ("auroc<=0.29", false),
        ] {
            let gate: Gate = text.parse().unwrap();
            assert_eq!(gate.holds(&figures()), holds, "{text}");
            assert_eq!(gate.to_string(), text.replace(' ', ""));
        }
        let mut unlabelled = figures();
        unlabelled.scores.clear();
        unlabelled.anomaly = None;
        for text in ["knn<=50", "fewshot<=50", "recall<=50", "auroc<=50"] {
            assert!(!text.parse::<Gate>().unwrap().holds(&unlabelled), "{text}");
        }
    }

    #[test]
    fn what_is_no_gate_is_refused() {
        for text in [
            "",
            "knn",
            "knn>=0.5",
            "cosine<=1",
            "knn<=x",
            "auroc>=1",
            "precision<=1",
            "knn<=NaN",
        ] {
            assert!(text.parse::<Gate>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_gate_of_the_caller_replaces_the_default() {
        let own: Gate = "cosine>=0.9".parse().unwrap();
        let all = Gate::with_defaults(&[own]);
        assert_eq!(all, [Gate::DEFAULT[1], own]);
    }
}
