//! How good embeddings are: k-NN and few-shot accuracy, with baselines beside them.
//!
//! ```
//! use ssl_edge::eval::{LabelledSet, knn_accuracy};
//! let (train, val) = ([1.0, 0.0, 0.9, 0.1, 0.0, 1.0, 0.1, 0.9], [0.8, 0.1, 0.2, 0.7]);
//! let train = LabelledSet::new(&train, &[0, 0, 1, 1], 2)?;
//! let val = LabelledSet::new(&val, &[0, 1], 2)?;
//! assert_eq!(knn_accuracy(&train, &val, 2, 0.07)?.accuracy, 1.0);
//! # Ok::<(), ssl_edge::job::AdaptError>(())
//! ```

use crate::Error;
use crate::encoder::{Embedding, Encoder, embed_files};
use crate::feature::{feature_of_parts, features_of_copies, layout};
use crate::vision::{ClassFolder, Image, Skipped, decode_all};
use std::path::PathBuf;

pub use ssl_edge_adapt::eval::{
    FewshotOptions, FewshotScore, HeadChoice, KnnScore, LabelledSet, OpensetOptions, OpensetScore,
    fewshot, knn_accuracy, openset,
};
pub use ssl_edge_adapt::{AdaptError, Layout, Part, Reliability, binomial_band, wilson};

/// Features of the images of a [`ClassFolder`].
#[derive(Clone, Debug)]
pub struct Features {
    /// `[N, D]`, row-major.
    pub values: Vec<f32>,
    /// Index of each row's class, `[N]`.
    pub labels: Vec<usize>,
    /// D.
    pub dim: usize,
    /// What each row consists of.
    pub layout: Layout,
    /// Features of copies of each image, `[N][K][D]`; empty if none were made.
    pub copies: Vec<Vec<Vec<f32>>>,
    /// Files that are not part of it, with the reason.
    pub skipped: Vec<Skipped>,
}

impl Features {
    /// The view that [`knn_accuracy`] and [`fewshot`] take.
    ///
    /// # Errors
    /// As [`LabelledSet::new`].
    pub fn labelled(&self) -> Result<LabelledSet<'_>, AdaptError> {
        let set = LabelledSet::new(&self.values, &self.labels, self.dim)?;
        let set = set.with_layout(&self.layout)?;
        match self.copies.is_empty() {
            true => Ok(set),
            false => set.with_copies(&self.copies),
        }
    }

    /// The same images with only the named parts of their features, all of them preferred.
    ///
    /// # Errors
    /// As [`Layout::new`]; a name that is no part.
    pub fn only(&self, names: &[&str]) -> Result<Self, AdaptError> {
        let mut ranges = Vec::new();
        let mut start = 0;
        for part in self.layout.parts() {
            if names.contains(&part.name.as_str()) {
                ranges.push((part.clone(), start..start + part.dim));
            }
            start += part.dim;
        }
        let row = |row: &[f32]| -> Vec<f32> {
            let values = ranges.iter().flat_map(|(_, range)| &row[range.clone()]);
            values.copied().collect()
        };
        let values = self.values.chunks_exact(self.dim).flat_map(row).collect();
        let of_copies = |copies: &Vec<Vec<f32>>| copies.iter().map(|copy| row(copy)).collect();
        let copies = self.copies.iter().map(of_copies).collect();
        let parts = ranges.into_iter().map(|(part, _)| part).collect();
        let layout = Layout::new(parts, names)?;
        Ok(Self {
            values,
            labels: self.labels.clone(),
            dim: layout.dim(),
            layout,
            copies,
            skipped: self.skipped.clone(),
        })
    }
}

/// The encoder's features of all images, as the bundle pools them.
///
/// # Errors
/// As [`Encoder::embed_batch`].
pub fn encoder_features(encoder: &Encoder, folder: &ClassFolder) -> Result<Features, Error> {
    let layout = Layout::single(encoder.feature_dim());
    features(encoder, folder, layout, |_, embedding| {
        Ok(encoder.feature(embedding))
    })
}

/// All [`parts`](crate::feature) of the features of all images.
///
/// # Errors
/// As [`Encoder::embed_batch`].
pub fn part_features(encoder: &Encoder, folder: &ClassFolder) -> Result<Features, Error> {
    let layout = layout(encoder);
    features(encoder, folder, layout.clone(), |image, embedding| {
        feature_of_parts(embedding, &image.frame(), layout.parts())
    })
}

/// The same with features of [`copies`](crate::augment::copies) of each image.
///
/// # Errors
/// As [`Encoder::embed_batch`].
pub fn part_features_with_copies(
    encoder: &Encoder,
    folder: &ClassFolder,
) -> Result<Features, Error> {
    let layout = layout(encoder);
    let copies = std::cell::RefCell::new(Vec::new());
    let found = features(encoder, folder, layout.clone(), |image, embedding| {
        let of_image = features_of_copies(encoder, image, layout.parts())?;
        copies.borrow_mut().push(of_image);
        feature_of_parts(embedding, &image.frame(), layout.parts())
    })?;
    Ok(Features {
        copies: copies.into_inner(),
        ..found
    })
}

/// The same of images without labels; all of them get label 0.
///
/// # Errors
/// As [`Encoder::embed_batch`].
pub fn file_features(encoder: &Encoder, files: &[PathBuf]) -> Result<Features, Error> {
    let layout = layout(encoder);
    let mut values = Vec::new();
    let skipped = embed_files(encoder, files, |_, image, embedding| {
        values.extend(feature_of_parts(embedding, &image.frame(), layout.parts())?);
        Ok(())
    })?;
    Ok(Features {
        labels: vec![0; values.len() / layout.dim()],
        values,
        dim: layout.dim(),
        layout,
        copies: Vec::new(),
        skipped,
    })
}

fn features(
    encoder: &Encoder,
    folder: &ClassFolder,
    layout: Layout,
    extract: impl Fn(&Image, &Embedding) -> Result<Vec<f32>, Error>,
) -> Result<Features, Error> {
    let (mut values, mut labels) = (Vec::new(), Vec::new());
    let broken = embed_files(encoder, &paths(folder), |file, image, embedding| {
        values.extend(extract(image, embedding)?);
        labels.push(folder.samples[file].1);
        Ok(())
    })?;
    let skipped = folder.skipped.iter().cloned().chain(broken).collect();
    Ok(Features {
        values,
        labels,
        dim: layout.dim(),
        layout,
        copies: Vec::new(),
        skipped,
    })
}

/// Features that `extract` makes of each image, such as [`hog_lbp`](crate::vision::hog_lbp). All must have one length.
pub fn image_features(folder: &ClassFolder, extract: impl Fn(&Image) -> Vec<f32>) -> Features {
    let (mut values, mut labels, mut dim) = (Vec::new(), Vec::new(), 0);
    let mut skipped = folder.skipped.clone();
    for (chunk_idx, chunk) in paths(folder).chunks(FILES_AT_ONCE).enumerate() {
        let (images, broken) = decode_all(chunk, None);
        skipped.extend(broken);
        for (idx, image) in &images {
            let row = extract(image);
            dim = row.len();
            values.extend(row);
            labels.push(folder.samples[chunk_idx * FILES_AT_ONCE + idx].1);
        }
    }
    Features {
        values,
        labels,
        dim,
        layout: Layout::single(dim),
        copies: Vec::new(),
        skipped,
    }
}

const FILES_AT_ONCE: usize = 64;

fn paths(folder: &ClassFolder) -> Vec<PathBuf> {
    folder
        .samples
        .iter()
        .map(|(path, _)| path.clone())
        .collect()
}
