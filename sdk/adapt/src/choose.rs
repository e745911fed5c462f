//! Choosing head and parts by leave-one-out.
//!
//! The reference is the shrinkage discriminant ([`HeadKind::Lda`]) on the preferred parts. Another candidate (the same head on other parts, another
//! head on the preferred ones) takes its place only if leave-one-out shows that it is better: of the samples that one of the two gets right
//! and the other does not, so many must speak for it that a fair coin would do so with a chance below 0.05 divided by the number of candidates
//! (sign test, one-sided, Bonferroni). Among several of those the one that is right most often is kept, then the likeliest. Taking the
//! candidate with the most hits instead costs accuracy with few samples: the luckiest of twenty wins, not the best.

use crate::candidate::{self, Candidate};
use crate::error::AdaptError;
use crate::fitted::argmax;
use crate::head::HeadKind;
use crate::head::statistics::Statistics;
use crate::parts::{Layout, Selection, View, combinations};
use crate::support::Support;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Chance of a false change of head and parts, over all candidates.
const SIGNIFICANCE: f64 = 0.05;
/// Logistic regression is tried up to this many samples: its leave-one-out has no closed form.
const MAX_LOGISTIC: usize = 128;

/// A candidate that was compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// The head.
    pub head: HeadKind,
    /// The parts that it saw.
    pub parts: Vec<String>,
    /// Share of the samples left out in turn that it got right.
    pub loo_accuracy: f64,
}

/// What was kept.
pub(crate) struct Choice {
    pub(crate) view: View,
    pub(crate) candidate: Candidate,
    pub(crate) tried: Vec<Tried>,
}

/// Labelled features of all parts.
pub(crate) struct Problem<'a> {
    pub(crate) rows: &'a [&'a [f32]],
    pub(crate) labels: &'a [usize],
    pub(crate) n_classes: usize,
    pub(crate) layout: &'a Layout,
    /// Features of copies of each row, `[N][K][D]`; empty if there are none at all.
    pub(crate) copies: &'a [&'a [Vec<f32>]],
}

impl Problem<'_> {
    /// Features of the copies of a row.
    pub(crate) fn copies_of(&self, row: usize) -> &[Vec<f32>] {
        self.copies.get(row).copied().unwrap_or_default()
    }

    /// What the view shows of all rows, one after the other.
    pub(crate) fn seen(&self, view: &View) -> Vec<f32> {
        self.rows
            .iter()
            .flat_map(|row| view.of(row, self.layout.parts()))
            .collect()
    }

    /// The support that [`Self::seen`] values make.
    pub(crate) fn support<'v>(&self, seen: &'v [f32]) -> Result<Support<'v>, AdaptError> {
        let dim = seen.len() / self.rows.len().max(1);
        let rows = seen.chunks_exact(dim.max(1)).collect();
        Support::new(rows, self.labels.to_vec(), self.n_classes)
    }

    /// One head on one selection of parts.
    pub(crate) fn fit(
        &self,
        kind: HeadKind,
        selection: &[usize],
        lambda: Option<f64>,
    ) -> Result<(View, Candidate), AdaptError> {
        let view = View::new(self.rows, self.layout.parts(), selection.to_vec());
        let seen = self.seen(&view);
        let support = self.support(&seen)?;
        let statistics = || Cow::Owned(Statistics::of(&support));
        let candidate = candidate::fit(kind, &support, statistics, lambda)?;
        Ok((view, candidate))
    }

    /// The head and the parts to use, by the rule above.
    pub(crate) fn choose(&self) -> Result<Choice, AdaptError> {
        let preferred = self.layout.preferred();
        let (view, reference) = self.fit(HeadKind::Lda, preferred, None)?;
        let right = self.right(&reference);
        let n = right.iter().flatten().count();
        let mut choice = Choice {
            tried: vec![self.tried(&view, &reference)],
            view,
            candidate: reference,
        };
        if n == 0 {
            choice.tried.clear();
            return Ok(choice);
        }
        let candidates = self.candidates();
        let bound = SIGNIFICANCE / candidates.len() as f64;
        let mut most = None;
        for (kind, selection) in &candidates {
            let (view, next) = match self.fit(*kind, selection, None) {
                // A part may be the same for all samples where another one is not.
                Err(AdaptError::Degenerate { .. }) => continue,
                next => next?,
            };
            choice.tried.push(self.tried(&view, &next));
            if chance(&right, &self.right(&next)) >= bound {
                continue;
            }
            let hits = self
                .right(&next)
                .into_iter()
                .flatten()
                .filter(|hit| *hit)
                .count();
            let better = most.is_none_or(|most| {
                hits > most || hits == most && next.loss() < choice.candidate.loss()
            });
            if better {
                (choice.view, choice.candidate, most) = (view, next, Some(hits));
            }
        }
        Ok(choice)
    }

    fn candidates(&self) -> Vec<(HeadKind, Selection)> {
        let preferred = self.layout.preferred();
        let heads = HeadKind::ALL.into_iter().filter(|kind| {
            *kind != HeadKind::Lda
                && (*kind != HeadKind::Logistic || self.rows.len() <= MAX_LOGISTIC)
        });
        let others = combinations(self.layout.parts().len()).into_iter();
        let others = others.filter(|selection| selection != preferred);
        others
            .map(|selection| (HeadKind::Lda, selection))
            .chain(heads.map(|kind| (kind, preferred.to_vec())))
            .collect()
    }

    /// Whether each sample is right when it is left out; `None` for the only one of its class.
    fn right(&self, candidate: &Candidate) -> Vec<Option<bool>> {
        let mut counts = vec![0; self.n_classes];
        self.labels.iter().for_each(|&label| counts[label] += 1);
        candidate
            .loo_scores
            .chunks_exact(self.n_classes)
            .zip(self.labels)
            .map(|(row, &label)| (counts[label] > 1).then(|| argmax(row) == label))
            .collect()
    }

    fn tried(&self, view: &View, candidate: &Candidate) -> Tried {
        let right: Vec<bool> = self.right(candidate).into_iter().flatten().collect();
        let hits = right.iter().filter(|hit| **hit).count();
        Tried {
            head: candidate.kind,
            parts: view
                .selection
                .iter()
                .map(|&part| self.layout.parts()[part].name.clone())
                .collect(),
            loo_accuracy: hits as f64 / right.len().max(1) as f64,
        }
    }
}

/// Chance that a fair coin speaks for `other` as often as the samples do that only one of both gets right.
fn chance(reference: &[Option<bool>], other: &[Option<bool>]) -> f64 {
    let pairs = || reference.iter().zip(other);
    let gained = pairs()
        .filter(|pair| matches!(pair, (Some(false), Some(true))))
        .count();
    let lost = pairs()
        .filter(|pair| matches!(pair, (Some(true), Some(false))))
        .count();
    sign_test(gained, lost)
}

/// Chance that of `speaking` + `against` throws of a fair coin so many speak for something.
pub(crate) fn sign_test(speaking: usize, against: usize) -> f64 {
    let n = speaking + against;
    // Σ_{k ≥ speaking} C(n, k) / 2ⁿ, from the smallest term on; ln C by sums of logarithms.
    let ln_choose = |k: usize| {
        (1..=k)
            .map(|i| ((n - k + i) as f64 / i as f64).ln())
            .sum::<f64>()
    };
    let ln_half = n as f64 * 0.5f64.ln();
    (speaking..=n).map(|k| (ln_choose(k) + ln_half).exp()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sign_test_counts_only_the_samples_that_differ() {
        let of = |bits: &[u8]| bits.iter().map(|bit| Some(*bit == 1)).collect::<Vec<_>>();
        // 5 gained, none lost: 1/32; the two that agree and the one that cannot be left out do not count
        let mut reference = of(&[0, 0, 0, 0, 0, 1, 0]);
        let mut other = of(&[1, 1, 1, 1, 1, 1, 0]);
        reference.push(None);
        other.push(None);
        assert!((chance(&reference, &other) - 1.0 / 32.0).abs() < 1e-12);
        // 3 gained, 1 lost: (4 + 1) / 16
        let chance = chance(&of(&[0, 0, 0, 1]), &of(&[1, 1, 1, 0]));
        assert!((chance - 5.0 / 16.0).abs() < 1e-12);
    }
}
