//! What every variant is measured on, and what f32 makes of it.

use std::path::Path;

use ssl_edge_bundle::{Pooling, QualityFigures};
use ssl_edge_vision::{ClassFolder, Preprocess};

use super::QuantizeError;
use super::labelled::{Labelled, Score, beside};
use super::measure::{Embed, cosines};
use super::parts::{Area, Parts};

/// Frames and what f32 makes of them.
pub(super) struct Yardstick<'a> {
    preprocess: &'a Preprocess,
    pooling: Pooling,
    /// `[F, 3, H, W]`.
    held_out: Vec<f32>,
    want: Vec<Vec<f32>>,
    labelled: Option<(ClassFolder, Vec<Score>)>,
    parts: Option<(Parts, Area)>,
}

impl<'a> Yardstick<'a> {
    /// Measures `float` on held-out frames, and on labelled ones and parts where there are folders of them.
    pub(super) fn new(
        (preprocess, pooling): (&'a Preprocess, Pooling),
        held_out: Vec<f32>,
        labelled: Option<&Path>,
        parts: Option<&Path>,
        float: &Embed<'_>,
    ) -> Result<Self, QuantizeError> {
        let mut found = Self {
            preprocess,
            pooling,
            held_out,
            want: Vec::new(),
            labelled: None,
            parts: None,
        };
        found.want = found.features(found.want_len(), float)?;
        if let Some(folder) = labelled {
            let folder = ClassFolder::scan(folder)?;
            let features = Labelled::embed(&folder, preprocess, pooling, float)?;
            found.labelled = Some((folder, features.scores()?));
        }
        if let Some(folder) = parts {
            let parts = Parts::scan(folder)?;
            let area = parts.area(preprocess, float)?;
            found.parts = Some((parts, area));
        }
        Ok(found)
    }

    /// One frame to time with.
    pub(super) fn frame(&self) -> &[f32] {
        &self.held_out[..self.preprocess.len()]
    }

    /// Names of the labelled frames' classes.
    pub(super) fn class_names(&self) -> Vec<String> {
        let labelled = self.labelled.as_ref();
        labelled.map_or(Vec::new(), |(folder, _)| folder.classes.clone())
    }

    /// Mean cosine that `embed` costs on the first `frames` frames.
    pub(super) fn loss(&self, frames: usize, embed: &Embed<'_>) -> Result<f64, QuantizeError> {
        let found = self.features(frames.min(self.want.len()), embed)?;
        Ok(1.0 - cosines(&found, &self.want[..found.len()]).0)
    }

    /// The figures that need no labels.
    pub(super) fn nearness(&self, embed: &Embed<'_>) -> Result<QualityFigures, QuantizeError> {
        let found = self.features(self.want.len(), embed)?;
        let (cosine_mean, cosine_worst) = cosines(&found, &self.want);
        Ok(QualityFigures {
            frames: self.want.len() as u64,
            cosine_mean,
            cosine_worst,
            scores: Vec::new(),
            anomaly: None,
        })
    }

    /// Adds the figures of labelled frames and of parts, where there are any.
    pub(super) fn verdicts(
        &self,
        embed: &Embed<'_>,
        figures: &mut QualityFigures,
    ) -> Result<(), QuantizeError> {
        if let Some((folder, float)) = &self.labelled {
            let own = Labelled::embed(folder, self.preprocess, self.pooling, embed)?;
            figures.scores = beside(own.scores()?, float);
        }
        if let Some((parts, float)) = &self.parts {
            figures.anomaly = Some(parts.area(self.preprocess, embed)?.beside(float));
        }
        Ok(())
    }

    fn want_len(&self) -> usize {
        self.held_out.len() / self.preprocess.len()
    }

    /// Features of the first `count` held-out frames.
    fn features(&self, count: usize, embed: &Embed<'_>) -> Result<Vec<Vec<f32>>, QuantizeError> {
        let inputs = self.held_out.chunks_exact(self.preprocess.len());
        inputs
            .take(count)
            .map(|input| Ok(embed(input)?.feature(self.pooling)))
            .collect()
    }
}
