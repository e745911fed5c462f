//! Golden vectors: inputs with the embeddings that every engine must give.

use safetensors::{Dtype, SafeTensors};
use ssl_edge_bundle::{Bundle, BundleError, GOLDEN, Manifest};

use crate::embedding::{l2_normalize, mean_rows};
use crate::{Engine, Precision, RuntimeError};

/// The golden vectors of one precision, decoded: inputs from `golden.safetensors`, and the outputs of that precision.
#[derive(Debug, Clone, PartialEq)]
pub struct GoldenVectors {
    /// Number of inputs G.
    pub count: usize,
    /// Preprocessed inputs, `[G, 3, H, W]`.
    pub input: Vec<f32>,
    /// CLS token of each, `[G, D]`.
    pub cls: Vec<f32>,
    /// Mean patch token of each, `[G, D]`.
    pub patch_mean: Vec<f32>,
    /// Largest difference that is accepted.
    pub tolerance: f32,
}

/// Result of running an engine on the golden vectors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SelfTest {
    /// Largest absolute difference in an L2-normalised embedding.
    pub difference: f32,
    /// Largest difference that is accepted.
    pub tolerance: f32,
}

impl GoldenVectors {
    /// Decodes the golden vectors of a bundle and checks their shapes against its manifest.
    ///
    /// # Errors
    /// A member that is missing, damaged or of another shape.
    pub fn read(bundle: &Bundle, precision: Precision) -> Result<Self, BundleError> {
        let manifest = bundle.manifest();
        let (count, dim) = (manifest.golden.count, manifest.dim());
        let [height, width] = manifest.input_size();
        let (outputs, tolerance) = match manifest.variants.get(precision.name()) {
            Some(variant) if precision != Precision::F32 => {
                (variant.golden.as_str(), variant.tolerance)
            }
            _ => (GOLDEN, manifest.golden.tolerance),
        };
        let read = |member: &str, name: &str, shape: &[usize]| {
            let bytes = bundle.member(member)?;
            let tensors = SafeTensors::deserialize(&bytes).map_err(|error| error.to_string());
            let read = tensors.and_then(|tensors| values(&tensors, name, shape));
            read.map_err(|reason| BundleError::Member {
                path: bundle.path().to_owned(),
                member: member.to_owned(),
                reason,
            })
        };
        Ok(Self {
            count,
            input: read(GOLDEN, "input", &[count, 3, height, width])?,
            cls: read(outputs, "cls", &[count, dim])?,
            patch_mean: read(outputs, "patch_mean", &[count, dim])?,
            tolerance,
        })
    }

    /// Runs an engine, one input at a time, and measures how far it is off.
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub fn run(&self, engine: &dyn Engine, manifest: &Manifest) -> Result<SelfTest, RuntimeError> {
        let dim = manifest.dim();
        let mut difference = 0.0_f32;
        let expected = self
            .cls
            .chunks_exact(dim)
            .zip(self.patch_mean.chunks_exact(dim));
        for (input, (cls, mean)) in self
            .input
            .chunks_exact(self.input.len() / self.count)
            .zip(expected)
        {
            let tokens = engine.run(input, 1)?;
            let found_mean = mean_rows(&tokens.patches, dim);
            for (found, expected) in [(&tokens.cls, cls), (&found_mean, mean)] {
                difference = nan_max(difference, distance(found, expected));
            }
        }
        Ok(SelfTest {
            difference,
            tolerance: self.tolerance,
        })
    }
}

impl SelfTest {
    /// Whether the engine is near enough; a NaN never is.
    pub fn passed(&self) -> bool {
        self.difference <= self.tolerance
    }
}

/// Largest absolute difference of two vectors after L2 normalisation; NaN where either has one.
fn distance(found: &[f32], expected: &[f32]) -> f32 {
    let [mut found, mut expected] = [found.to_vec(), expected.to_vec()];
    l2_normalize(&mut found);
    l2_normalize(&mut expected);
    found
        .iter()
        .zip(&expected)
        .map(|(found, expected)| (found - expected).abs())
        .fold(0.0, nan_max)
}

/// [`f32::max`] that keeps a NaN.
fn nan_max(a: f32, b: f32) -> f32 {
    if a.is_nan() || b.is_nan() {
        f32::NAN
    } else {
        a.max(b)
    }
}

fn values(tensors: &SafeTensors<'_>, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
    let view = tensors
        .tensor(name)
        .map_err(|_| format!("it has no tensor {name}"))?;
    if view.dtype() != Dtype::F32 || view.shape() != shape {
        return Err(format!(
            "{name} is {:?} {:?} instead of F32 {shape:?}",
            view.dtype(),
            view.shape()
        ));
    }
    let (words, _) = view.data().as_chunks::<4>();
    Ok(words.iter().map(|word| f32::from_le_bytes(*word)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nan_never_passes() {
        let difference = nan_max(distance(&[f32::NAN, 1.0], &[0.0, 1.0]), 0.0);
        assert!(difference.is_nan());
        let test = SelfTest {
            difference,
            tolerance: 1.0,
        };
        assert!(!test.passed());
    }

    #[test]
    fn the_distance_does_not_see_a_common_factor() {
        assert!(distance(&[1.0, 2.0, 2.0], &[3.0, 6.0, 6.0]) < 1e-7);
        assert!((distance(&[1.0, 0.0], &[0.0, 5.0]) - 1.0).abs() < 1e-7);
    }
}
