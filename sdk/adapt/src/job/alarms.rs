//! What a fitted job says of its false alarms.
//!
//! Up to two tests look at a frame of a taught kind: how far it is from every sample ([`UnknownRule`](crate::UnknownRule)), and, in a job that
//! looks at surfaces, how unlike good patches its worst patches are ([`Normal`](crate::anomaly::Normal)). Either may raise an alarm, so the chance
//! of one is at most the sum of both chances, however they depend on each other (Boole); each is therefore given half of the rate that is allowed.

use super::Job;
use crate::anomaly::{NormalReport, Threshold, ThresholdSource};
use crate::unknown::UnknownRule;

/// Rate of false alarms on frames of the taught kinds, all tests together. A frame that the head takes for another class is none of them; leave-one-out
/// accuracy speaks of that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FalseAlarms {
    /// What was allowed.
    pub allowed: f64,
    /// Tests that share it.
    pub tests: usize,
    /// What holds without assumptions but that frames to come are like those taught: the sum of what each test promises, 1 at most.
    pub promised: f64,
    /// Whether a test's threshold lies beyond all taught frames, so that the allowed rate rests on an assumption
    /// ([`ThresholdSource::Prediction`], [`ThresholdSource::TailExtrapolation`]).
    pub extrapolated: bool,
}

impl Job {
    /// What the tests of the fitted job allow and promise; `None` without a test: a job that is not fitted, a rate of 0, or no class of two samples.
    pub fn false_alarms(&self) -> Option<FalseAlarms> {
        let fitted = self.fitted.as_ref()?;
        let tests = of_rule(&fitted.report.unknown)
            .into_iter()
            .chain(self.surface_report().map(of_surface));
        tests.reduce(|one, other| FalseAlarms {
            allowed: one.allowed + other.allowed,
            tests: one.tests + other.tests,
            promised: (one.promised + other.promised).min(1.0),
            extrapolated: one.extrapolated || other.extrapolated,
        })
    }
}

fn of_rule(rule: &UnknownRule) -> Option<FalseAlarms> {
    Some(one(rule.rate, rule.promised?, rule.source()?))
}

fn of_surface(report: &NormalReport) -> FalseAlarms {
    let Threshold { rate, source, .. } = report.frame;
    one(rate, rate.max(report.floor), source)
}

fn one(allowed: f64, promised: f64, source: ThresholdSource) -> FalseAlarms {
    FalseAlarms {
        allowed,
        tests: 1,
        promised,
        extrapolated: matches!(
            source,
            ThresholdSource::Prediction | ThresholdSource::TailExtrapolation
        ),
    }
}
