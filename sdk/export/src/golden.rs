//! Golden vectors: seeded inputs and what the encoder, in the operations that trained it, makes of them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use candle_core::{Device, Tensor};
use rand_chacha::rand_core::Rng;
use ssl_edge_nn::{Vit, tensors_to_bytes};
use ssl_edge_runtime::Tokens;
use ssl_edge_vision::{Image, Pixels, Preprocess, Station, Surface, preprocess_batch, stream};

use crate::ExportError;

/// Number G of golden inputs.
pub(crate) const COUNT: usize = 4;
/// Sides that [`surface`] draws.
const SIDES: RangeInclusive<u32> = 16..=4096;
const PURPOSE_NOISE: u64 = 0x676f_6c64;

/// The member `golden.safetensors`: `input [G, 3, H, W]`, `cls [G, D]`, `patch_mean [G, D]`.
pub(crate) fn golden_vectors(
    vit: &Vit,
    preprocess: &Preprocess,
    seed: u64,
) -> Result<Vec<u8>, ExportError> {
    let input = tensor(golden_input(preprocess, seed)?, preprocess)?;
    let tokens = vit.forward(&input)?.detach(); // [G, 1 + R + N, D]
    let n_prefix = vit.config().n_prefix();
    let n_patches = tokens.dim(1)? - n_prefix;
    let cls = tokens.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?;
    let patches = tokens.narrow(1, n_prefix, n_patches)?;
    member(input, cls, &patches)
}

/// The same of tokens that another engine made of [`golden_input`]: `cls [G, D]` and `patches [G, N, D]`.
pub(crate) fn golden_of_tokens(
    input: Vec<f32>,
    tokens: Tokens,
    preprocess: &Preprocess,
) -> Result<Vec<u8>, ExportError> {
    let dim = tokens.cls.len() / COUNT;
    let n_patches = tokens.patches.len() / tokens.cls.len();
    let cls = Tensor::from_vec(tokens.cls, (COUNT, dim), &Device::Cpu)?;
    let shape = (COUNT, n_patches, dim);
    let patches = Tensor::from_vec(tokens.patches, shape, &Device::Cpu)?;
    member(tensor(input, preprocess)?, cls, &patches)
}

/// Seeded inputs `[G, 3, H, W]`.
pub(crate) fn golden_input(preprocess: &Preprocess, seed: u64) -> Result<Vec<f32>, ExportError> {
    let images = images(preprocess, seed)?;
    let images: Vec<&Image> = images.iter().collect();
    Ok(preprocess_batch(&images, preprocess)?)
}

fn tensor(input: Vec<f32>, preprocess: &Preprocess) -> Result<Tensor, ExportError> {
    let size = [preprocess.height, preprocess.width].map(|side| side as usize);
    let shape = (COUNT, 3, size[0], size[1]);
    Ok(Tensor::from_vec(input, shape, &Device::Cpu)?)
}

/// Inputs, class tokens and means of `patches [G, N, D]`, packed.
fn member(input: Tensor, cls: Tensor, patches: &Tensor) -> Result<Vec<u8>, ExportError> {
    let tensors = BTreeMap::from([
        ("input".to_owned(), input),
        ("cls".to_owned(), cls),
        ("patch_mean".to_owned(), patches.mean(1)?),
    ]);
    Ok(tensors_to_bytes(&tensors)?)
}

/// Two surfaces and two images of noise, grey and RGB, of another size than the input so that the resize takes part.
fn images(preprocess: &Preprocess, seed: u64) -> Result<[Image; COUNT], ExportError> {
    let side =
        (preprocess.height.max(preprocess.width) * 3 / 2).clamp(*SIDES.start(), *SIDES.end());
    let noise = |sample: u64, channels: u32| {
        let mut bytes = vec![0; (side * side * channels) as usize];
        stream(seed, 0, sample, PURPOSE_NOISE).fill_bytes(&mut bytes);
        bytes
    };
    let station = Station::new(seed);
    Ok([
        station.photo(Surface::Scratch, side, seed),
        station.photo(Surface::Stain, side, seed),
        Image::new(side, side, Pixels::Gray8(noise(0, 1)))?,
        Image::new(side, side, Pixels::Rgb8(noise(1, 3)))?,
    ])
}
