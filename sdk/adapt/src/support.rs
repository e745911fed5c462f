//! Labelled embeddings, checked once, that heads are fitted on.

use crate::error::{AdaptError, check_embedding};
use crate::linalg::Matrix;

/// Labelled embeddings of at least two classes, each with at least one sample; all finite and of one dimension.
#[derive(Clone, Debug)]
pub struct Support<'a> {
    embeddings: Vec<&'a [f32]>,
    labels: Vec<usize>,
    counts: Vec<usize>,
    dim: usize,
}

impl<'a> Support<'a> {
    /// Checks `embeddings` (each `[dim]`) and their `labels` in `0..n_classes`.
    ///
    /// # Errors
    ///
    /// Another number of labels than embeddings, a label out of range, fewer than two classes, a class without a sample (named by its
    /// index), an embedding of another dimension or with a value that is not finite (named by its index).
    pub fn new(
        embeddings: Vec<&'a [f32]>,
        labels: Vec<usize>,
        n_classes: usize,
    ) -> Result<Self, AdaptError> {
        if labels.len() != embeddings.len() {
            return Err(AdaptError::Shape {
                what: "number of labels",
                expected: embeddings.len(),
                got: labels.len(),
            });
        }
        if n_classes < 2 {
            let found = if n_classes == 0 {
                "none".into()
            } else {
                "only one".into()
            };
            return Err(AdaptError::TooFewClasses { found });
        }
        let mut counts = vec![0; n_classes];
        for &label in &labels {
            let range = AdaptError::Shape {
                what: "a label, which must be below the number of classes",
                expected: n_classes,
                got: label,
            };
            *counts.get_mut(label).ok_or(range)? += 1;
        }
        if let Some(class) = counts.iter().position(|&n| n == 0) {
            return Err(AdaptError::EmptyClass {
                class: class.to_string(),
            });
        }
        let dim = embeddings[0].len();
        for (i, embedding) in embeddings.iter().enumerate() {
            check_embedding(|| format!("sample {i}"), embedding, dim)?;
        }
        Ok(Self {
            embeddings,
            labels,
            counts,
            dim,
        })
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Never: a support has at least two samples.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Length of each embedding.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of classes.
    pub fn n_classes(&self) -> usize {
        self.counts.len()
    }

    /// Samples of each class.
    pub fn counts(&self) -> &[usize] {
        &self.counts
    }

    /// Class of each sample.
    pub fn labels(&self) -> &[usize] {
        &self.labels
    }

    /// Embedding of each sample.
    pub fn embeddings(&self) -> &[&'a [f32]] {
        &self.embeddings
    }

    /// Whether sample `i` says something when left out: its class has another sample.
    pub fn evaluable(&self, i: usize) -> bool {
        self.counts[self.labels[i]] > 1
    }

    /// Number of samples for which [`Support::evaluable`] holds.
    pub fn n_evaluable(&self) -> usize {
        self.counts.iter().filter(|&&n| n > 1).sum()
    }

    /// Mean embedding, `[dim]`.
    pub(crate) fn mean(&self) -> Vec<f64> {
        let mut mean = vec![0.0; self.dim];
        for embedding in &self.embeddings {
            for (m, x) in mean.iter_mut().zip(*embedding) {
                *m += f64::from(*x);
            }
        }
        mean.iter_mut().for_each(|m| *m /= self.len() as f64);
        mean
    }

    /// The embeddings less `origin`, `[N, dim]`.
    pub(crate) fn centred(&self, origin: &[f64]) -> Matrix {
        let mut out = Matrix::zeros(self.len(), self.dim);
        for (i, embedding) in self.embeddings.iter().enumerate() {
            let row = out.row_mut(i);
            row.iter_mut()
                .zip(*embedding)
                .for_each(|(o, x)| *o = f64::from(*x));
            row.iter_mut().zip(origin).for_each(|(o, m)| *o -= m);
        }
        out
    }

    /// The embeddings divided by their norms (zero stays zero), `[N, dim]`.
    pub(crate) fn normalised(&self) -> Matrix<f32> {
        normalised_rows(self.embeddings.iter().copied(), self.len(), self.dim)
    }
}

/// `rows` divided by their Euclidean norms (a row of zeros stays one), `[n, dim]`.
pub(crate) fn normalised_rows<'r>(
    rows: impl Iterator<Item = &'r [f32]>,
    n: usize,
    dim: usize,
) -> Matrix<f32> {
    let mut out = Matrix::zeros(n, dim);
    for (i, row) in rows.enumerate() {
        let inverse = inverse_norm(row);
        for (o, x) in out.row_mut(i).iter_mut().zip(row) {
            *o = (f64::from(*x) * inverse) as f32;
        }
    }
    out
}

/// `1 / ‖x‖`, or 0 for a vector of zeros.
pub(crate) fn inverse_norm(x: &[f32]) -> f64 {
    let norm = crate::linalg::dot32(x, x).sqrt();
    if norm > 0.0 { 1.0 / norm } else { 0.0 }
}
