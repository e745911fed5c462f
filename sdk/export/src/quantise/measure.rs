//! Features of any mixture of precisions, and how they compare with those of f32.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use candle_core::{Device, Tensor};
use ssl_edge_adapt::HeadKind;
use ssl_edge_adapt::eval::{FewshotOptions, HeadChoice, LabelledSet, fewshot, knn_accuracy};
use ssl_edge_bundle::{Bundle, Manifest, ScoreFigures};
use ssl_edge_nn::infer::{EncoderWeights, Isa, PackedOptions, PackedVit};
use ssl_edge_nn::{VitConfig, tensors_to_bytes};
use ssl_edge_runtime::{Embedding, GoldenVectors, Precision};
use ssl_edge_vision::{ClassFolder, Preprocess};

use super::QuantizeError;
use super::frames::each_input;

const NEIGHBOURS: usize = 20;
const TEMPERATURE: f64 = 0.07;
const SHOTS: [usize; 3] = [1, 5, 10];
const DRAWS: usize = 30;
const RUNS: usize = 15;

/// Runs encoders of one shape.
pub(super) struct Bench<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) config: &'a VitConfig,
    pub(super) preprocess: &'a Preprocess,
    pub(super) threads: usize,
}

/// Features of labelled frames.
pub(super) struct Labelled {
    values: Vec<f32>,
    labels: Vec<usize>,
    dim: usize,
}

/// An accuracy with half of its 95 % interval.
struct Score {
    name: String,
    accuracy: f64,
    ci95: f64,
}

impl Bench<'_> {
    pub(super) fn pack(&self, weights: &EncoderWeights) -> Result<PackedVit, QuantizeError> {
        let options = PackedOptions {
            threads: self.threads,
            images: 1,
            isa: Isa::detect(),
        };
        Ok(PackedVit::new(self.config, weights, &options)?)
    }

    /// CLS `[D]` and patch tokens `[N, D]` of one input.
    pub(super) fn tokens(
        &self,
        encoder: &PackedVit,
        input: &[f32],
    ) -> Result<Embedding, QuantizeError> {
        let grid = self.manifest.grid();
        let mut cls = vec![0.0; self.config.dim];
        let mut patches = vec![0.0; grid[0] * grid[1] * self.config.dim];
        encoder.run(input, 1, &mut cls, &mut patches)?;
        Ok(Embedding::new(&cls, &patches, grid))
    }

    /// The feature that heads see.
    pub(super) fn feature(
        &self,
        encoder: &PackedVit,
        input: &[f32],
    ) -> Result<Vec<f32>, QuantizeError> {
        Ok(self.tokens(encoder, input)?.feature(self.manifest.pooling))
    }

    /// Features of `inputs [F, 3, H, W]`.
    pub(super) fn features(
        &self,
        encoder: &PackedVit,
        inputs: &[f32],
    ) -> Result<Vec<Vec<f32>>, QuantizeError> {
        inputs
            .chunks_exact(self.preprocess.len())
            .map(|input| self.feature(encoder, input))
            .collect()
    }

    /// Features of all images in class folders.
    pub(super) fn labelled(
        &self,
        encoder: &PackedVit,
        folder: &Path,
    ) -> Result<Labelled, QuantizeError> {
        let folder = ClassFolder::scan(folder)?;
        let files: Vec<_> = folder
            .samples
            .iter()
            .map(|(file, _)| file.clone())
            .collect();
        let mut found = Labelled {
            values: Vec::new(),
            labels: Vec::new(),
            dim: 0,
        };
        let mut failed = None;
        each_input(&files, self.preprocess, |index, input| {
            match self.feature(encoder, input) {
                Ok(feature) => {
                    found.dim = feature.len();
                    found.values.extend(feature);
                    found.labels.push(folder.samples[index].1);
                }
                Err(error) => failed = Some(error),
            }
        })?;
        failed.map_or(Ok(found), Err)
    }

    /// What an int8 encoder makes of the bundle's golden inputs.
    pub(super) fn golden(
        &self,
        bundle: &Bundle,
        int8: &EncoderWeights,
    ) -> Result<Vec<u8>, QuantizeError> {
        let read = GoldenVectors::read(bundle, Precision::F32);
        let golden = read.map_err(|reason| QuantizeError::Manifest {
            path: bundle.path().to_owned(),
            reason,
        })?;
        let encoder = self.pack(int8)?;
        let (mut cls, mut means) = (Vec::new(), Vec::new());
        for input in golden.input.chunks_exact(self.preprocess.len()) {
            let embedding = self.tokens(&encoder, input)?;
            cls.extend(embedding.cls);
            means.extend(embedding.mean);
        }
        let shape = (golden.count, self.config.dim);
        let tensors = BTreeMap::from([
            (
                "cls".to_owned(),
                Tensor::from_vec(cls, shape, &Device::Cpu)?,
            ),
            (
                "patch_mean".to_owned(),
                Tensor::from_vec(means, shape, &Device::Cpu)?,
            ),
        ]);
        Ok(tensors_to_bytes(&tensors)?)
    }

    /// Median milliseconds of a frame through each encoder, in turns.
    pub(super) fn time(
        &self,
        encoders: [&PackedVit; 2],
        input: &[f32],
    ) -> Result<[f64; 2], QuantizeError> {
        let mut times = [Vec::new(), Vec::new()];
        for run in 0..RUNS + 2 {
            for (encoder, times) in encoders.iter().zip(&mut times) {
                let start = Instant::now();
                self.tokens(encoder, input)?;
                if run >= 2 {
                    times.push(1e3 * start.elapsed().as_secs_f64());
                }
            }
        }
        Ok(times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            times[RUNS / 2]
        }))
    }
}

/// Mean cosine, and the cosine that 1 % of the pairs are below (of few pairs, the least).
pub(super) fn cosines(found: &[Vec<f32>], want: &[Vec<f32>]) -> (f64, f64) {
    let mut cosines: Vec<f64> = found
        .iter()
        .zip(want)
        .map(|(a, b)| {
            let dot = |a: &[f32], b: &[f32]| -> f64 {
                a.iter()
                    .zip(b)
                    .map(|(a, b)| f64::from(*a) * f64::from(*b))
                    .sum()
            };
            dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE)
        })
        .collect();
    cosines.sort_by(f64::total_cmp);
    let n = cosines.len().max(1);
    let mean = cosines.iter().sum::<f64>() / n as f64;
    (mean, cosines.get(n / 100).copied().unwrap_or(f64::NAN))
}

impl Labelled {
    /// Accuracies of these features beside those of f32.
    pub(super) fn beside(&self, float: &Self) -> Result<Vec<ScoreFigures>, QuantizeError> {
        let pairs = self.scores()?.into_iter().zip(float.scores()?);
        Ok(pairs
            .map(|(own, float)| ScoreFigures {
                name: own.name,
                accuracy: own.accuracy,
                ci95: own.ci95,
                f32_accuracy: float.accuracy,
                f32_ci95: float.ci95,
            })
            .collect())
    }

    /// 20-NN of every second frame of a class among the others, and few-shot episodes.
    fn scores(&self) -> Result<Vec<Score>, QuantizeError> {
        let set = LabelledSet::new(&self.values, &self.labels, self.dim)?;
        let [train, val] = [0, 1].map(|part| self.part(part));
        let (train, val) = (
            LabelledSet::new(&train.values, &train.labels, self.dim)?,
            LabelledSet::new(&val.values, &val.labels, self.dim)?,
        );
        let k = NEIGHBOURS.min(train.len());
        let accuracy = knn_accuracy(&train, &val, k, TEMPERATURE)?.accuracy;
        let variance = accuracy * (1.0 - accuracy) / val.len() as f64;
        let mut scores = vec![Score {
            name: "knn".to_owned(),
            accuracy,
            ci95: 1.96 * variance.sqrt(),
        }];
        let smallest = self.smallest_class();
        let options = FewshotOptions {
            shots: SHOTS
                .into_iter()
                .filter(|shots| *shots < smallest)
                .collect(),
            draws: DRAWS,
            seed: 0,
            heads: vec![HeadChoice::One(HeadKind::Lda)],
        };
        scores.extend(fewshot(&set, &options)?.into_iter().map(|score| Score {
            name: format!("fewshot-{}", score.shots),
            accuracy: score.mean,
            ci95: score.ci95,
        }));
        Ok(scores)
    }

    /// Every second row of each class.
    fn part(&self, part: usize) -> Self {
        let mut seen = vec![0; self.labels.iter().max().map_or(0, |max| max + 1)];
        let mut found = Self {
            values: Vec::new(),
            labels: Vec::new(),
            dim: self.dim,
        };
        for (row, &label) in self.values.chunks_exact(self.dim).zip(&self.labels) {
            if seen[label] % 2 == part {
                found.values.extend(row);
                found.labels.push(label);
            }
            seen[label] += 1;
        }
        found
    }

    fn smallest_class(&self) -> usize {
        let n_classes = self.labels.iter().max().map_or(0, |max| max + 1);
        let size = |class| self.labels.iter().filter(|label| **label == class).count();
        (0..n_classes).map(size).min().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_are_of_pairs_and_the_worst_is_a_percentile() {
        let want = vec![vec![1.0, 0.0]; 200];
        let mut found = want.clone();
        found[7] = vec![0.0, 1.0];
        found[9] = vec![0.6, 0.8];
        found[11] = vec![0.8, 0.6];
        let (mean, worst) = cosines(&found, &want);
        assert!((mean - (197.0 + 1.4) / 200.0).abs() < 1e-6, "{mean}");
        assert!((worst - 0.8).abs() < 1e-6, "two of 200 are below, {worst}");
        assert!((cosines(&found[7..8], &want[..1]).1).abs() < 1e-12);
    }

    #[test]
    fn separate_classes_score_one_and_are_beside_themselves_equal() {
        let row = |i: usize| {
            if i.is_multiple_of(2) {
                [1.0, 0.01 * i as f32]
            } else {
                [0.01 * i as f32, 1.0]
            }
        };
        let labelled = Labelled {
            values: (0..40).flat_map(row).collect(),
            labels: (0..40).map(|i| i % 2).collect(),
            dim: 2,
        };
        let scores = labelled.beside(&labelled).unwrap();
        let names: Vec<&str> = scores.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["knn", "fewshot-1", "fewshot-5", "fewshot-10"]);
        assert!(scores.iter().all(|s| s.accuracy == s.f32_accuracy));
        assert_eq!(scores[0].accuracy, 1.0);
    }
}
