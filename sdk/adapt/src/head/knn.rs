//! The nearest taught samples, weighted by `exp(cos / 0.07)` (Wu et al. 2018): every sample stays visible in the verdict.

use crate::blocks;
use crate::linalg::dot32;
use crate::support::{Support, inverse_norm};
use serde::{Deserialize, Serialize};

/// Neighbours that vote.
pub const NEIGHBOURS: usize = 5;
/// Temperature of their cosines.
pub const TEMPERATURE: f64 = 0.07;

/// A fitted k-NN head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Knn {
    /// Samples of norm 1 (or zero), `[N, D]` row-major.
    pub units: Vec<f32>,
    /// Class of each, `[N]`.
    pub labels: Vec<u32>,
    /// Number of classes C.
    pub n_classes: usize,
}

impl Knn {
    /// Keeps the samples.
    pub fn fit(support: &Support) -> Self {
        Self {
            units: support.normalised().data,
            labels: support.labels().iter().map(|label| *label as u32).collect(),
            n_classes: support.n_classes(),
        }
    }

    /// Share of each class in the votes, 0..1.
    pub fn scores(&self, embedding: &[f32]) -> Vec<f64> {
        let inverse = inverse_norm(embedding);
        let cosines = self
            .units
            .chunks_exact(embedding.len())
            .map(|unit| dot32(unit, embedding) * inverse);
        self.votes(
            cosines
                .zip(&self.labels)
                .map(|(cosine, label)| (cosine, *label)),
        )
    }

    /// Scores `[N, C]` of each sample with itself left out.
    pub fn leave_one_out(support: &Support) -> Vec<f64> {
        let head = Self::fit(support);
        let unit = support.normalised();
        let blocks = blocks::map(support.len(), |rows| {
            let cosines = unit.rows_times_transposed(rows.clone(), &unit);
            let scores = rows.enumerate().flat_map(|(i, sample)| {
                let others = cosines.row(i).iter().zip(&head.labels).enumerate();
                let others = others.filter(|(other, _)| *other != sample);
                head.votes(others.map(|(_, (cosine, label))| (f64::from(*cosine), *label)))
            });
            scores.collect::<Vec<_>>()
        });
        blocks.concat()
    }

    /// The first among equal cosines are taken.
    fn votes(&self, cosines: impl Iterator<Item = (f64, u32)>) -> Vec<f64> {
        let mut nearest: Vec<(f64, u32)> = Vec::with_capacity(NEIGHBOURS + 1);
        for (cosine, label) in cosines {
            let place = nearest.partition_point(|(other, _)| *other >= cosine);
            if place < NEIGHBOURS {
                nearest.insert(place, (cosine, label));
                nearest.truncate(NEIGHBOURS);
            }
        }
        let mut scores = vec![0.0; self.n_classes];
        let best = nearest.first().map_or(0.0, |(cosine, _)| *cosine);
        let mut total = 0.0;
        for (cosine, label) in nearest {
            let weight = ((cosine - best) / TEMPERATURE).exp();
            scores[label as usize] += weight;
            total += weight;
        }
        if total > 0.0 {
            scores.iter_mut().for_each(|score| *score /= total);
        }
        scores
    }
}
