//! Detection from good parts alone: some good parts are learned, all others and the bad ones are scored.

use std::path::{Path, PathBuf};

use ssl_edge_adapt::anomaly::{Method, NeighbourOptions, NormalModel, NormalOptions, TokenGrid};
use ssl_edge_adapt::eval::{auroc, auroc_standard_error};
use ssl_edge_bundle::AnomalyFigures;
use ssl_edge_runtime::Embedding;
use ssl_edge_vision::{ClassFolder, Preprocess};

use super::QuantizeError;
use super::frames::each_input;
use super::measure::Embed;

/// The folder of good parts.
const GOOD: &str = "good";
/// Good parts that are learned at most.
const LEARNED: usize = 16;
/// Fewest parts of a kind that give an interval.
const FEWEST: usize = 2;

/// Photos of good and bad parts.
pub(super) struct Parts {
    learned: Vec<PathBuf>,
    good: Vec<PathBuf>,
    bad: Vec<PathBuf>,
}

/// Area under the ROC curve, with half of its 95 % interval.
pub(super) struct Area {
    auroc: f64,
    ci95: f64,
    learned: usize,
    good: usize,
    bad: usize,
}

impl Parts {
    /// Lists a folder with a folder `good` and others, whose parts are bad. Every second good part is learned, up to [`LEARNED`].
    ///
    /// # Errors
    /// No `good`, or too few parts of a kind.
    pub(super) fn scan(folder: &Path) -> Result<Self, QuantizeError> {
        let failed = |reason: String| QuantizeError::Parts {
            folder: folder.to_owned(),
            reason,
        };
        let found = ClassFolder::scan(folder)?;
        let Some(good) = found.classes.iter().position(|name| name == GOOD) else {
            return Err(failed(format!("has no folder {GOOD}")));
        };
        let (goods, bads): (Vec<_>, Vec<_>) = found
            .samples
            .into_iter()
            .partition(|(_, class)| *class == good);
        let mut parts = Self {
            learned: Vec::new(),
            good: Vec::new(),
            bad: bads.into_iter().map(|(file, _)| file).collect(),
        };
        for (index, (file, _)) in goods.into_iter().enumerate() {
            if index % 2 == 0 && parts.learned.len() < LEARNED {
                parts.learned.push(file);
            } else {
                parts.good.push(file);
            }
        }
        if parts.good.len() < FEWEST || parts.bad.len() < FEWEST {
            return Err(failed(format!(
                "has {} good and {} bad parts to score; there must be {FEWEST} of each beside the good ones that are learned",
                parts.good.len(),
                parts.bad.len()
            )));
        }
        Ok(parts)
    }

    /// Learns and scores the patch tokens that `embed` gives.
    pub(super) fn area(
        &self,
        preprocess: &Preprocess,
        embed: &Embed<'_>,
    ) -> Result<Area, QuantizeError> {
        let mut learned = Vec::new();
        each_input(&self.learned, preprocess, |_, input| {
            learned.push(embed(input)?);
            Ok(())
        })?;
        let grids = learned.iter().map(grid).collect::<Result<Vec<_>, _>>()?;
        let options = NormalOptions {
            method: Method::Neighbours(NeighbourOptions::default()),
            ..NormalOptions::default()
        };
        let model = NormalModel::fit(&grids, &options)?;
        let (mut scores, mut is_bad) = (Vec::new(), Vec::new());
        for (files, bad) in [(&self.good, false), (&self.bad, true)] {
            each_input(files, preprocess, |_, input| {
                let embedding = embed(input)?;
                scores.push(model.image_score(&model.score(&grid(&embedding)?)?));
                is_bad.push(bad);
                Ok(())
            })?;
        }
        let bad = is_bad.iter().filter(|bad| **bad).count();
        let area = auroc(&scores, &is_bad).zip(auroc_standard_error(&scores, &is_bad));
        let (auroc, error) = area.ok_or_else(|| QuantizeError::Parts {
            folder: self.bad[0].clone(),
            reason: "and those beside it leave too few images that can be decoded".to_owned(),
        })?;
        Ok(Area {
            auroc,
            ci95: 1.96 * error,
            learned: learned.len(),
            good: is_bad.len() - bad,
            bad,
        })
    }
}

impl Area {
    /// This area beside that of f32 on the same parts.
    pub(super) fn beside(&self, float: &Self) -> AnomalyFigures {
        AnomalyFigures {
            learned: self.learned as u64,
            good: self.good as u64,
            bad: self.bad as u64,
            auroc: self.auroc,
            ci95: self.ci95,
            f32_auroc: float.auroc,
            f32_ci95: float.ci95,
        }
    }
}

fn grid(embedding: &Embedding) -> Result<TokenGrid<'_>, QuantizeError> {
    Ok(TokenGrid::new(
        &embedding.patches,
        embedding.grid,
        embedding.cls.len(),
    )?)
}

#[cfg(test)]
mod tests {
    use ssl_edge_vision::{Fit, Station, Surface};

    use super::*;

    /// Tokens that are the mean brightness of quarters of the image.
    fn brightness(input: &[f32]) -> Result<Embedding, QuantizeError> {
        let side = 32;
        let mut patches = vec![0.0; 16];
        for (i, value) in input[..side * side].iter().enumerate() {
            let quarter = i / side / 16 * 2 + i % side / 16;
            patches[4 * quarter] += value / 256.0;
        }
        patches.iter_mut().skip(1).step_by(4).for_each(|v| *v = 1.0);
        Ok(Embedding {
            cls: vec![0.0; 4],
            mean: vec![0.0; 4],
            patches,
            grid: [2, 2],
        })
    }

    #[test]
    fn half_of_the_good_parts_are_learned_and_the_others_scored() {
        let folder = tempfile::tempdir().unwrap();
        let surfaces = [Surface::Clean, Surface::Stain];
        let station = Station::new(1);
        station.write(folder.path(), &surfaces, 10, 32, 0).unwrap();
        let error = Parts::scan(folder.path())
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(error.contains("no folder good"), "{error}");
        std::fs::rename(folder.path().join("clean"), folder.path().join("good")).unwrap();
        let parts = Parts::scan(folder.path()).unwrap();
        let preprocess = Preprocess::imagenet(32, 32, Fit::Squash);
        let area = parts.area(&preprocess, &brightness).unwrap();
        assert_eq!((area.learned, area.good, area.bad), (5, 5, 10));
        assert!(area.auroc > 0.0 && area.auroc <= 1.0 && area.ci95.is_finite());
        let figures = area.beside(&area);
        assert_eq!(figures.auroc, figures.f32_auroc);
    }

    #[test]
    fn too_few_parts_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let surfaces = [Surface::Clean, Surface::Stain];
        Station::new(1)
            .write(folder.path(), &surfaces, 3, 32, 0)
            .unwrap();
        std::fs::rename(folder.path().join("clean"), folder.path().join("good")).unwrap();
        let error = Parts::scan(folder.path())
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(error.contains("1 good and 3 bad"), "{error}");
    }
}
