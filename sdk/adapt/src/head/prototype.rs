//! Nearest class mean by cosine (weight imprinting: Qi, Brown and Lowe 2018).
//!
//! Embeddings are divided by their norms; a class's prototype is the direction of their sum `s_c`; scores are cosines. Without sample `i`
//! (unit length) of class `c` its own class scores `(x·s_c - 1) / ‖s_c - x‖`, with `‖s_c - x‖² = ‖s_c‖² - 2 x·s_c + 1`; the others do not change.

use crate::blocks;
use crate::linalg::{Matrix, dot};
use crate::support::{Support, inverse_norm};
use serde::{Deserialize, Serialize};

/// A fitted prototype head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prototype {
    /// Unit vectors (or zero, for a class whose embeddings cancel), `[C, D]` row-major.
    pub directions: Vec<f64>,
}

impl Prototype {
    /// Fits the head.
    pub fn fit(support: &Support) -> Self {
        let mut sums = class_sums(support);
        for c in 0..sums.rows {
            let norm = norm_squared(sums.row(c)).sqrt();
            if norm > 0.0 {
                sums.row_mut(c).iter_mut().for_each(|x| *x /= norm);
            }
        }
        Self {
            directions: sums.data,
        }
    }

    /// Cosine of an embedding `[D]` to each prototype; 0 for an embedding of zeros.
    pub fn scores(&self, embedding: &[f32]) -> Vec<f64> {
        let inverse = inverse_norm(embedding);
        self.directions
            .chunks_exact(embedding.len())
            .map(|direction| dot(direction, embedding) * inverse)
            .collect()
    }

    /// Scores `[N, C]` of each sample under the head fitted without it. A class with no other sample scores 0.
    pub fn leave_one_out(support: &Support) -> Vec<f64> {
        let sums = class_sums(support);
        let squares: Vec<f64> = (0..sums.rows).map(|c| norm_squared(sums.row(c))).collect();
        let blocks = blocks::map(support.len(), |rows| {
            let mut scores = Vec::with_capacity(rows.len() * sums.rows);
            for i in rows {
                let (x, label) = (support.embeddings()[i], support.labels()[i]);
                let inverse = inverse_norm(x);
                let unit = f64::from(u8::from(inverse > 0.0));
                for (c, &full) in squares.iter().enumerate() {
                    let product = dot(sums.row(c), x) * inverse;
                    let (cosine, square) = if c == label {
                        (product - unit, full - 2.0 * product + unit)
                    } else {
                        (product, full)
                    };
                    // Below this the remaining sum is rounding error.
                    scores.push(if square > 1e-12 {
                        cosine / square.sqrt()
                    } else {
                        0.0
                    });
                }
            }
            scores
        });
        blocks.concat()
    }
}

/// Sum of the normalised embeddings of each class, `[C, D]`.
fn class_sums(support: &Support) -> Matrix {
    let mut sums = Matrix::zeros(support.n_classes(), support.dim());
    for (x, &label) in support.embeddings().iter().zip(support.labels()) {
        let inverse = inverse_norm(x);
        for (s, v) in sums.row_mut(label).iter_mut().zip(*x) {
            *s += f64::from(*v) * inverse;
        }
    }
    sums
}

fn norm_squared(x: &[f64]) -> f64 {
    x.iter().map(|v| v * v).sum()
}
