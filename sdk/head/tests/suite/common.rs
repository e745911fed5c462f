//! Heads whose floating-point form is exactly what their image holds, so that an oracle in `f64` has no rounding of its own.

use proptest::prelude::*;
use ssl_edge_head::{HeadSpec, RowSpec, image_length};

/// Step of the quantised embeddings: a power of two.
pub(crate) const STEP: f64 = 1.0 / 16.0;

/// A head of integers: classes come in pairs of opposite sign, so that their mean is 0, and each has a weight of 127.
#[derive(Clone, Debug)]
pub(crate) struct Exact {
    pub(crate) dim: usize,
    /// Half of the classes, `[C / 2, D]`.
    pub(crate) weights: Vec<Vec<i8>>,
    pub(crate) bias: Vec<i16>,
    /// In units of `STEP / 256`.
    pub(crate) centre: Vec<i16>,
    pub(crate) rows: Vec<Vec<i8>>,
    pub(crate) cosine: bool,
    pub(crate) temperature: f64,
    pub(crate) limit: f64,
}

pub(crate) fn values(dim: usize) -> impl Strategy<Value = Vec<i8>> {
    prop::collection::vec(-127i8..=127, dim)
}

pub(crate) fn exact() -> impl Strategy<Value = Exact> {
    (1usize..40, 1usize..6, 1usize..8, any::<bool>()).prop_flat_map(|(dim, pairs, rows, cosine)| {
        let table = |n: usize| prop::collection::vec(values(dim), n);
        (
            table(pairs),
            prop::collection::vec(-3000i16..3000, pairs),
            prop::collection::vec(-20_000i16..20_000, dim),
            table(rows),
            0.02f64..2.0,
            -1.0f64..1.0,
        )
            .prop_map(
                move |(mut weights, mut bias, centre, rows, temperature, limit)| {
                    for (i, class) in weights.iter_mut().enumerate() {
                        class[i % dim] = 127;
                    }
                    if cosine {
                        bias.fill(0);
                    }
                    Exact {
                        dim,
                        weights,
                        bias,
                        centre,
                        rows,
                        cosine,
                        temperature,
                        limit,
                    }
                },
            )
    })
}

impl Exact {
    pub(crate) fn n_classes(&self) -> usize {
        2 * self.weights.len()
    }

    /// `[C, D]`; what one integer stands for is chosen so that logits have a size of interest.
    pub(crate) fn real_weights(&self) -> Vec<f64> {
        let unit = if self.cosine {
            1.0 / 127.0
        } else {
            1.0 / 256.0
        };
        let signs = [1.0, -1.0];
        let row = |(class, sign): (&Vec<i8>, f64)| {
            class
                .iter()
                .map(|w| sign * f64::from(*w) * unit)
                .collect::<Vec<_>>()
        };
        self.weights
            .iter()
            .flat_map(|class| signs.map(|sign| (class, sign)))
            .flat_map(row)
            .collect()
    }

    pub(crate) fn real_bias(&self) -> Vec<f64> {
        self.bias
            .iter()
            .flat_map(|b| [1.0, -1.0].map(|sign| sign * f64::from(*b) / 64.0))
            .collect()
    }

    pub(crate) fn real_centre(&self) -> Vec<f64> {
        self.centre
            .iter()
            .map(|c| f64::from(*c) * STEP / 256.0)
            .collect()
    }

    /// The embedding that quantised values stand for; exact in `f32` too.
    pub(crate) fn embedding(&self, values: &[i8]) -> Vec<f64> {
        self.real_centre()
            .iter()
            .zip(values)
            .map(|(c, q)| c + f64::from(*q) * STEP)
            .collect()
    }

    pub(crate) fn image(&self) -> Vec<u8> {
        let rows: Vec<Vec<f32>> = self
            .rows
            .iter()
            .map(|row| self.embedding(row).iter().map(|x| *x as f32).collect())
            .collect();
        let rows: Vec<RowSpec> = rows
            .iter()
            .enumerate()
            .map(|(i, embedding)| RowSpec {
                sample: 1 << 40 | i as u64,
                class: (i % self.n_classes()) as u16,
                embedding,
            })
            .collect();
        let ids: Vec<u32> = (0..self.n_classes() as u32).map(|c| c * 7).collect();
        let mut image = vec![0; image_length(self.dim, self.n_classes(), rows.len())];
        let spec = HeadSpec {
            job: 3,
            encoder: [9; 32],
            class_ids: &ids,
            weights: &self.real_weights(),
            bias: &self.real_bias(),
            cosine: self.cosine,
            temperature: self.temperature,
            centre: &self.real_centre(),
            step: STEP,
            rows: &rows,
            cosine_limit: Some(self.limit),
        };
        let length = spec.write(&mut image).unwrap();
        assert_eq!(length, image.len());
        image
    }
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}
