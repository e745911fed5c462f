//! Features of any mixture of precisions, and how they compare with those of f32.

use std::collections::BTreeMap;
use std::time::Instant;

use candle_core::{Device, Tensor};
use ssl_edge_bundle::{Bundle, Manifest};
use ssl_edge_nn::infer::{EncoderWeights, Isa, PackedOptions, PackedVit};
use ssl_edge_nn::{VitConfig, tensors_to_bytes};
use ssl_edge_runtime::{Embedding, GoldenVectors, Precision};
use ssl_edge_vision::Preprocess;

use super::QuantizeError;

const RUNS: usize = 15;

/// An encoder of whatever kind: tokens of one preprocessed frame.
pub(super) type Embed<'a> = dyn Fn(&[f32]) -> Result<Embedding, QuantizeError> + 'a;

/// Runs encoders of one shape.
pub(super) struct Bench<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) config: &'a VitConfig,
    pub(super) preprocess: &'a Preprocess,
    pub(super) threads: usize,
}

impl Bench<'_> {
    pub(super) fn pack(&self, weights: &EncoderWeights) -> Result<PackedVit, QuantizeError> {
        let options = PackedOptions {
            threads: self.threads,
            images: 1,
            isa: Isa::detect(),
        };
        Ok(PackedVit::new(self.config, weights.clone(), &options)?)
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

    /// What an encoder makes of the bundle's golden inputs.
    pub(super) fn golden(
        &self,
        bundle: &Bundle,
        weights: &EncoderWeights,
    ) -> Result<Vec<u8>, QuantizeError> {
        let golden = GoldenVectors::read(bundle, Precision::F32)?;
        let encoder = self.pack(weights)?;
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
        Ok(times.map(median))
    }
}

/// The middle one.
pub(super) fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
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
}
