//! The encoder that only runs, on the emulated machine, beside the one of the CPU.

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use ssl_edge_gpu::encoder::{Config, Encoder, Tensors};

use super::*;
use crate::infer::{EncoderWeights, PackedOptions, PackedVit, Stored};
use crate::{Params, Vit, VitConfig};

struct Weights(EncoderWeights);

impl Tensors for Weights {
    fn get(&self, name: &str) -> Option<&[f32]> {
        match self.0.0.get(name)? {
            Stored::F32 { values, .. } => Some(values),
            Stored::I8 { .. } | Stored::Blocks { .. } => None,
        }
    }
}

#[test]
fn an_encoder_gives_the_tokens_of_the_native_one() -> Result<()> {
    let config = VitConfig {
        depth: 2,
        registers: 2,
        image_size: [48, 32],
        ..VitConfig::named("vit_n16")?
    };
    let mut params = Params::new();
    Vit::init(&config, &mut params, "", &mut ChaCha8Rng::seed_from_u64(5))?;
    let weights = EncoderWeights::from_tensors(&params.to_map())?;
    let images = f64s(&random(&[2, 3, 48, 32], 6)?)?;
    let images: Vec<f32> = images.iter().map(|v| *v as f32).collect();
    let native = PackedVit::new(&config, weights.clone(), &PackedOptions::default())?;
    let (d, n) = (config.dim, 6);
    let (mut cls, mut patches) = (vec![0.0; 2 * d], vec![0.0; 2 * n * d]);
    native.run(&images, 2, &mut cls, &mut patches)?;

    let shape = Config {
        dim: d,
        depth: config.depth,
        heads: config.heads,
        patch: config.patch,
        registers: config.registers,
        hidden: d * config.mlp_ratio,
        image_size: config.image_size,
        gelu: config.gelu.into(),
        eps: config.eps as f32,
    };
    let weights = Weights(weights);
    for (work, tolerance) in [(Kind::F32, 2e-5), (Kind::F16, 5e-3)] {
        let machine = Emulated {
            work,
            reversed: true,
        };
        let encoder = Encoder::new(&machine, &shape, &weights)?;
        let buffers = encoder.buffers(&machine, 2)?;
        let input = buffers.input(2, &shape);
        // SAFETY: the emulated machine's memory is the host's, and has as many values.
        unsafe { std::slice::from_raw_parts_mut(input.address as *mut f32, input.len) }
            .copy_from_slice(&images);
        encoder.forward(&machine, &buffers, 2)?;
        let tokens = machine.download(buffers.output(2, &shape))?;
        let largest = patches.iter().fold(0f32, |most, v| most.max(v.abs()));
        for (image, tokens) in tokens.chunks_exact(shape.tokens() * d).enumerate() {
            let want = [&cls[image * d..][..d], &patches[image * n * d..][..n * d]].concat();
            let got = [&tokens[..d], &tokens[shape.n_prefix() * d..]].concat();
            for (got, want) in got.iter().zip(&want) {
                let off = (got - want).abs() / largest;
                assert!(off < tolerance, "{work:?}: {got} instead of {want}");
            }
        }
    }
    Ok(())
}
