//! What a variant must reach to be written.

use std::fmt;
use std::str::FromStr;

use ssl_edge_bundle::VariantFigures;

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
}

/// A bound that a figure must keep: `cosine>=0.995`, `worst>=0.97`, `knn<=0.5`, `fewshot<=1`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gate {
    /// What it looks at.
    pub metric: GateMetric,
    /// The least cosine, or the most points lost.
    pub bound: f64,
}

impl GateMetric {
    const ALL: [Self; 4] = [Self::Cosine, Self::Worst, Self::Knn, Self::Fewshot];

    /// `cosine`, `worst`, `knn` or `fewshot`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Worst => "worst",
            Self::Knn => "knn",
            Self::Fewshot => "fewshot",
        }
    }

    /// Whether labelled frames are needed for it.
    pub fn needs_labels(self) -> bool {
        matches!(self, Self::Knn | Self::Fewshot)
    }

    fn sign(self) -> &'static str {
        if self.needs_labels() { "<=" } else { ">=" }
    }

    /// The figure, or `None` where it was not measured.
    pub fn of(self, figures: &VariantFigures) -> Option<f64> {
        let lost = |prefix: &str| {
            let scores = figures.scores.iter().filter(|s| s.name.starts_with(prefix));
            scores
                .map(|s| 100.0 * (s.f32_accuracy - s.accuracy))
                .max_by(f64::total_cmp)
        };
        match self {
            Self::Cosine => Some(figures.cosine_mean),
            Self::Worst => Some(figures.cosine_worst),
            Self::Knn => lost("knn"),
            Self::Fewshot => lost("fewshot"),
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
    pub fn holds(&self, figures: &VariantFigures) -> bool {
        self.metric.of(figures).is_some_and(|value| {
            if self.metric.needs_labels() {
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
                    "{text:?} is no gate; write cosine>=0.995, worst>=0.97, knn<=0.5 or fewshot<=0.5 (points lost)"
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use ssl_edge_bundle::ScoreFigures;

    use super::*;

    fn figures() -> VariantFigures {
        let score = |name: &str, accuracy: f64| ScoreFigures {
            name: name.to_owned(),
            accuracy,
            ci95: 0.01,
            f32_accuracy: 0.80,
            f32_ci95: 0.01,
        };
        VariantFigures {
            frames: 100,
            cosine_mean: 0.998,
            cosine_worst: 0.96,
            scores: vec![
                score("knn", 0.796),
                score("fewshot-1", 0.81),
                score("fewshot-5", 0.78),
            ],
            bytes: 1,
            f32_bytes: 4,
            ms: 1.0,
            f32_ms: 2.0,
            threads: 1,
            isa: "portable".to_owned(),
            memory: 1,
            f32_memory: 4,
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
        ] {
            let gate: Gate = text.parse().unwrap();
            assert_eq!(gate.holds(&figures()), holds, "{text}");
            assert_eq!(gate.to_string(), text.replace(' ', ""));
        }
        let mut unlabelled = figures();
        unlabelled.scores.clear();
        assert!(!"knn<=50".parse::<Gate>().unwrap().holds(&unlabelled));
    }

    #[test]
    fn what_is_no_gate_is_refused() {
        for text in [
            "",
            "knn",
            "knn>=0.5",
            "cosine<=1",
            "knn<=x",
            "auroc<=1",
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
