//! Accuracies on labelled frames: 20-NN and few-shot episodes, with the recall of every class.

use std::path::PathBuf;

use ssl_edge_adapt::eval::{FewshotOptions, HeadChoice, LabelledSet, fewshot, knn_accuracy};
use ssl_edge_adapt::{Confusion, HeadKind};
use ssl_edge_bundle::{ClassFigures, Pooling, ScoreFigures};
use ssl_edge_vision::{ClassFolder, Preprocess};

use super::QuantizeError;
use super::frames::each_input;
use super::measure::Embed;

const NEIGHBOURS: usize = 20;
const TEMPERATURE: f64 = 0.07;
const SHOTS: [usize; 3] = [1, 5, 10];
const DRAWS: usize = 30;

/// Features of labelled frames.
pub(super) struct Labelled {
    values: Vec<f32>,
    labels: Vec<usize>,
    dim: usize,
}

/// An accuracy with half of its 95 % interval.
pub(super) struct Score {
    name: String,
    accuracy: f64,
    ci95: f64,
    confusion: Confusion,
}

impl Labelled {
    /// Features of all images in class folders.
    pub(super) fn embed(
        folder: &ClassFolder,
        preprocess: &Preprocess,
        pooling: Pooling,
        embed: &Embed<'_>,
    ) -> Result<Self, QuantizeError> {
        let files: Vec<PathBuf> = folder
            .samples
            .iter()
            .map(|(file, _)| file.clone())
            .collect();
        let mut found = Self {
            values: Vec::new(),
            labels: Vec::new(),
            dim: 0,
        };
        each_input(&files, preprocess, |index, input| {
            let feature = embed(input)?.feature(pooling);
            found.dim = feature.len();
            found.values.extend(feature);
            found.labels.push(folder.samples[index].1);
            Ok(())
        })?;
        Ok(found)
    }

    /// 20-NN of every second frame of a class among the others, and few-shot episodes.
    pub(super) fn scores(&self) -> Result<Vec<Score>, QuantizeError> {
        let set = LabelledSet::new(&self.values, &self.labels, self.dim)?;
        let [train, val] = [0, 1].map(|part| self.part(part));
        let (train, val) = (
            LabelledSet::new(&train.values, &train.labels, self.dim)?,
            LabelledSet::new(&val.values, &val.labels, self.dim)?,
        );
        let k = NEIGHBOURS.min(train.len());
        let knn = knn_accuracy(&train, &val, k, TEMPERATURE)?;
        let variance = knn.accuracy * (1.0 - knn.accuracy) / val.len() as f64;
        let mut scores = vec![Score {
            name: "knn".to_owned(),
            accuracy: knn.accuracy,
            ci95: 1.96 * variance.sqrt(),
            confusion: knn.confusion,
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
            confusion: score.confusion,
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

/// Scores beside those of f32, which are the same scores in the same order.
pub(super) fn beside(own: Vec<Score>, float: &[Score]) -> Vec<ScoreFigures> {
    let class = |own: &Confusion, float: &Confusion, class: usize| {
        let (hits, all) = own.row(class);
        let share = |hits: u32| f64::from(hits) / f64::from(all.max(1));
        ClassFigures {
            frames: u64::from(all),
            recall: share(hits),
            f32_recall: share(float.row(class).0),
        }
    };
    let pairs = own.into_iter().zip(float);
    pairs
        .map(|(own, float)| ScoreFigures {
            name: own.name,
            accuracy: own.accuracy,
            ci95: own.ci95,
            f32_accuracy: float.accuracy,
            f32_ci95: float.ci95,
            classes: (0..own.confusion.n_classes)
                .map(|index| class(&own.confusion, &float.confusion, index))
                .collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_classes(n: usize) -> Labelled {
        let row = |i: usize| {
            if i.is_multiple_of(2) {
                [1.0, 0.01 * i as f32]
            } else {
                [0.01 * i as f32, 1.0]
            }
        };
        Labelled {
            values: (0..n).flat_map(row).collect(),
            labels: (0..n).map(|i| i % 2).collect(),
            dim: 2,
        }
    }

    #[test]
    fn separate_classes_score_one_and_are_beside_themselves_equal() {
        let labelled = two_classes(40);
        let scores = beside(labelled.scores().unwrap(), &labelled.scores().unwrap());
        let names: Vec<&str> = scores.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["knn", "fewshot-1", "fewshot-5", "fewshot-10"]);
        assert!(scores.iter().all(|s| s.accuracy == s.f32_accuracy));
        assert_eq!(scores[0].accuracy, 1.0);
    }

    #[test]
    fn recall_is_of_each_class() {
        let float = two_classes(48);
        let mut own = two_classes(48);
        // Half of the second class's frames look like the first class.
        for i in (0..48).filter(|i| i % 8 > 3 && i % 2 == 1) {
            own.values[2 * i..][..2].copy_from_slice(&[1.0, 0.003 * i as f32]);
        }
        let scores = beside(own.scores().unwrap(), &float.scores().unwrap());
        for score in &scores {
            let classes = &score.classes;
            assert_eq!(classes.len(), 2);
            let mean = (classes[0].recall + classes[1].recall) / 2.0;
            assert!((mean - score.accuracy).abs() < 1e-9, "{score:?}");
        }
        let [first, second] = [0, 1].map(|class| scores[0].classes[class]);
        assert_eq!((first.frames, second.frames), (12, 12));
        assert_eq!((first.f32_recall, second.f32_recall), (1.0, 1.0));
        assert!(second.recall < first.recall, "{scores:?}");
        assert_eq!(scores[1].classes[1].frames, 30 * 23);
    }
}
