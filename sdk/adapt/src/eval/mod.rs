//! Measures of an encoder on labelled features: how well its embeddings separate classes, without a trained head of any size.

mod anomaly;
mod aupro;
mod auroc;
mod fewshot;
mod knn;
mod openset;

pub use anomaly::{AnomalySplit, anomaly_splits};
pub use aupro::{PixelMetrics, PixelScores, regions};
pub use auroc::{auroc, auroc_standard_error};
pub use fewshot::{FewshotOptions, FewshotScore, HeadChoice, fewshot};
pub use knn::{KnnScore, knn_accuracy};
pub use openset::{OpensetOptions, OpensetScore, openset};

use crate::error::{AdaptError, check_embedding};
use crate::parts::Layout;

/// Labelled features, checked once.
#[derive(Clone, Copy, Debug)]
pub struct LabelledSet<'a> {
    features: &'a [f32],
    labels: &'a [usize],
    dim: usize,
    layout: Option<&'a Layout>,
    copies: &'a [Vec<Vec<f32>>],
}

impl<'a> LabelledSet<'a> {
    /// Row-major `features` `[N, dim]` and their `labels` `[N]`.
    ///
    /// # Errors
    ///
    /// No feature; sizes that do not fit; a value that is not finite (named by its row).
    pub fn new(features: &'a [f32], labels: &'a [usize], dim: usize) -> Result<Self, AdaptError> {
        if labels.is_empty() || dim == 0 {
            return Err(AdaptError::Shape {
                what: "number of labelled features",
                expected: 1,
                got: 0,
            });
        }
        if Some(features.len()) != labels.len().checked_mul(dim) {
            return Err(AdaptError::Shape {
                what: "number of feature values",
                expected: labels.len().saturating_mul(dim),
                got: features.len(),
            });
        }
        for (i, row) in features.chunks_exact(dim).enumerate() {
            check_embedding(|| format!("row {i} of the features"), row, dim)?;
        }
        Ok(Self {
            features,
            labels,
            dim,
            layout: None,
            copies: &[],
        })
    }

    /// The same with what each row consists of, from which [`HeadChoice::Auto`] chooses.
    ///
    /// # Errors
    ///
    /// A layout of another length.
    pub fn with_layout(self, layout: &'a Layout) -> Result<Self, AdaptError> {
        if layout.dim() != self.dim {
            return Err(AdaptError::Shape {
                what: "values of the layout",
                expected: self.dim,
                got: layout.dim(),
            });
        }
        Ok(Self {
            layout: Some(layout),
            ..self
        })
    }

    /// The same with features of copies of each row, `[N][K][dim]`, for [`HeadChoice::Augmented`].
    ///
    /// # Errors
    ///
    /// Another number of rows; a copy of another length or with a value that is not finite.
    pub fn with_copies(self, copies: &'a [Vec<Vec<f32>>]) -> Result<Self, AdaptError> {
        if copies.len() != self.len() {
            return Err(AdaptError::Shape {
                what: "rows with copies",
                expected: self.len(),
                got: copies.len(),
            });
        }
        for (i, row) in copies.iter().enumerate() {
            for copy in row {
                check_embedding(|| format!("a copy of row {i}"), copy, self.dim)?;
            }
        }
        Ok(Self { copies, ..self })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Never: a set has at least one row.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    fn rows(&self) -> impl ExactSizeIterator<Item = &'a [f32]> {
        self.features.chunks_exact(self.dim)
    }

    fn row(&self, i: usize) -> &'a [f32] {
        &self.features[i * self.dim..(i + 1) * self.dim]
    }

    fn n_classes(&self) -> usize {
        self.labels.iter().max().map_or(0, |max| max + 1)
    }
}
