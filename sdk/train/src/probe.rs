//! Scores an encoder on a labelled folder by its nearest neighbours.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use ssl_edge_adapt::eval::{LabelledSet, knn_accuracy};
use ssl_edge_nn::compute::pooled;
use ssl_edge_nn::{Vit, VitConfig};
use ssl_edge_vision::{ClassFolder, Image, Preprocess, Skipped, decode_all, preprocess_batch};

use crate::checkpoint::Tensors;
use crate::config::ProbeConfig;
use crate::error::{Result, TrainError};
use crate::observer::ProbeScore;

/// Neighbours and temperature of DINO's evaluation.
const K: usize = 20;
const TEMPERATURE: f64 = 0.07;
/// Images embedded at once.
const BATCH: usize = 32;

/// The decoded images of a labelled folder.
pub(crate) struct Probe {
    folder: PathBuf,
    preprocess: Preprocess,
    train: Part,
    val: Part,
}

#[derive(Default)]
struct Part {
    images: Vec<Image>,
    labels: Vec<usize>,
}

impl Probe {
    /// Decodes the images; unreadable ones are returned with their reason.
    pub(crate) fn open(
        config: &ProbeConfig,
        preprocess: &Preprocess,
    ) -> Result<(Self, Vec<Skipped>)> {
        let (train_folder, val_folder) = (config.folder.join("train"), config.folder.join("val"));
        let limit = config.max_per_class;
        let ((train, mut skipped), (val, more)) = if train_folder.is_dir() && val_folder.is_dir() {
            let (train, val) = (
                ClassFolder::scan(&train_folder)?,
                ClassFolder::scan(&val_folder)?,
            );
            if train.classes != val.classes {
                let message = format!(
                    "train has the classes {:?}, val {:?}",
                    train.classes, val.classes
                );
                return Err(failed(&config.folder, message));
            }
            (
                Part::decode(&by_class(&train), limit),
                Part::decode(&by_class(&val), limit),
            )
        } else {
            let classes = by_class(&ClassFolder::scan(&config.folder)?);
            let half = |offset: usize| -> Vec<Vec<PathBuf>> {
                let every_second =
                    |files: &Vec<PathBuf>| files.iter().skip(offset).step_by(2).cloned().collect();
                classes.iter().map(every_second).collect()
            };
            (Part::decode(&half(0), limit), Part::decode(&half(1), limit))
        };
        skipped.extend(more);
        if train.labels.is_empty() || val.labels.is_empty() {
            let message =
                "needs at least two readable images of a class, one to search and one to score";
            return Err(failed(&config.folder, message));
        }
        let probe = Self {
            folder: config.folder.clone(),
            preprocess: preprocess.clone(),
            train,
            val,
        };
        Ok((probe, skipped))
    }

    /// Scores an encoder's L2-normalised CLS tokens.
    pub(crate) fn score(
        &self,
        config: &VitConfig,
        tensors: &Tensors,
        step: u64,
    ) -> Result<ProbeScore> {
        let vit = Vit::load(config, tensors)?;
        let train = self.embed(&vit, &self.train.images)?;
        let val = self.embed(&vit, &self.val.images)?;
        let set = |features, labels| LabelledSet::new(features, labels, config.dim);
        let score = set(&train, &self.train.labels).and_then(|train| {
            let val = set(&val, &self.val.labels)?;
            knn_accuracy(&train, &val, K.min(self.train.labels.len()), TEMPERATURE)
        });
        Ok(ProbeScore {
            step,
            knn20: score.map_err(|e| failed(&self.folder, e))?.accuracy,
            train: self.train.labels.len(),
            val: self.val.labels.len(),
        })
    }

    fn embed(&self, vit: &Vit, images: &[Image]) -> Result<Vec<f32>> {
        let mut features = Vec::with_capacity(images.len() * vit.config().dim);
        for images in images.chunks(BATCH) {
            let images: Vec<&Image> = images.iter().collect();
            let pixels =
                preprocess_batch(&images, &self.preprocess).map_err(|e| failed(&self.folder, e))?;
            let (height, width) = (
                self.preprocess.height as usize,
                self.preprocess.width as usize,
            );
            let input = Tensor::from_vec(pixels, (images.len(), 3, height, width), vit.device())?;
            let embed = || -> Result<Vec<f32>> {
                let cls = vit.forward(&input)?.narrow(1, 0, 1)?;
                Ok(cls.flatten_all()?.to_vec1()?)
            };
            features.extend(pooled(embed)?);
        }
        Ok(features)
    }
}

impl Part {
    /// At most `limit` images of each class, evenly spaced.
    fn decode(classes: &[Vec<PathBuf>], limit: usize) -> (Self, Vec<Skipped>) {
        let mut files = Vec::new();
        let mut labels = Vec::new();
        for (class, all) in classes.iter().enumerate() {
            let count = all.len().min(limit);
            files.extend((0..count).map(|i| all[i * all.len() / count].clone()));
            labels.extend(std::iter::repeat_n(class, count));
        }
        let (images, skipped) = decode_all(&files, None);
        let mut part = Self::default();
        for (index, image) in images {
            part.images.push(image);
            part.labels.push(labels[index]);
        }
        (part, skipped)
    }
}

fn by_class(folder: &ClassFolder) -> Vec<Vec<PathBuf>> {
    let mut classes: BTreeMap<usize, Vec<PathBuf>> = (0..folder.classes.len())
        .map(|class| (class, Vec::new()))
        .collect();
    for (path, class) in &folder.samples {
        classes.entry(*class).or_default().push(path.clone());
    }
    classes.into_values().collect()
}

fn failed(folder: &Path, message: impl ToString) -> TrainError {
    TrainError::Probe {
        path: folder.to_path_buf(),
        message: message.to_string(),
    }
}
