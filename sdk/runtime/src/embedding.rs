//! What an encoder says of a frame, and the feature that heads see.

use ssl_edge_bundle::Pooling;

/// Tokens of one frame after the final norm.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// CLS token, `[D]`.
    pub cls: Vec<f32>,
    /// Mean of the patch tokens, `[D]`.
    pub mean: Vec<f32>,
    /// Patch tokens, row-major over the grid, `[N, D]`.
    pub patches: Vec<f32>,
    /// Rows and columns of the grid of patches.
    pub grid: [usize; 2],
}

impl Embedding {
    /// `cls [D]` and `patches [N, D]` of one frame.
    pub fn new(cls: &[f32], patches: &[f32], grid: [usize; 2]) -> Self {
        Self {
            cls: cls.to_vec(),
            mean: mean_rows(patches, cls.len()),
            patches: patches.to_vec(),
            grid,
        }
    }

    /// The feature that `pooling` makes: `[D]` or, for [`Pooling::ClsMean`], `[2 D]`; of norm 1.
    pub fn feature(&self, pooling: Pooling) -> Vec<f32> {
        let mut feature = match pooling {
            Pooling::Cls => self.cls.clone(),
            Pooling::Mean => self.mean.clone(),
            Pooling::ClsMean => {
                let mut both = [self.cls.clone(), self.mean.clone()];
                both.iter_mut().for_each(|part| l2_normalize(part));
                both.concat()
            }
        };
        l2_normalize(&mut feature);
        feature
    }

    pub(crate) fn is_finite(&self) -> bool {
        [&self.cls, &self.patches]
            .into_iter()
            .all(|values| values.iter().all(|value| value.is_finite()))
    }
}

/// Divides by the Euclidean norm, computed in f64. The zero vector stays zero.
pub fn l2_normalize(values: &mut [f32]) {
    let norm = values
        .iter()
        .map(|value| f64::from(*value).powi(2))
        .sum::<f64>()
        .sqrt();
    if norm > 0.0 {
        values
            .iter_mut()
            .for_each(|value| *value = (f64::from(*value) / norm) as f32);
    }
}

/// Mean over the rows of `[N, D]`, summed in f64.
pub(crate) fn mean_rows(rows: &[f32], dim: usize) -> Vec<f32> {
    let mut sums = vec![0.0_f64; dim];
    for row in rows.chunks_exact(dim) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += f64::from(*value);
        }
    }
    let count = (rows.len() / dim) as f64;
    sums.into_iter().map(|sum| (sum / count) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_have_norm_one_and_the_parts_weigh_the_same() {
        let embedding = Embedding::new(&[3.0, 4.0], &[1.0, 0.0, 1.0, 2.0, 1.0, -2.0], [1, 3]);
        assert_eq!(embedding.mean, [1.0, 0.0]);
        assert_eq!(embedding.feature(Pooling::Cls), [0.6, 0.8]);
        assert_eq!(embedding.feature(Pooling::Mean), [1.0, 0.0]);
        let both = embedding.feature(Pooling::ClsMean);
        let half = 0.5_f32.sqrt();
        for (value, expected) in both.iter().zip([0.6 * half, 0.8 * half, half, 0.0]) {
            assert!((value - expected).abs() < 1e-7, "{both:?}");
        }
    }

    #[test]
    fn the_zero_vector_stays_zero_and_huge_values_do_not_overflow() {
        let mut zero = [0.0; 3];
        l2_normalize(&mut zero);
        assert_eq!(zero, [0.0; 3]);
        let mut huge = [3e38, 0.0];
        l2_normalize(&mut huge);
        assert_eq!(huge, [1.0, 0.0]);
    }
}
