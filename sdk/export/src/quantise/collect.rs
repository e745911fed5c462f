//! The inputs of every linear layer on calibration frames, block by block.

use std::collections::BTreeMap;

use candle_core::{D, Device, Tensor};
use ssl_edge_nn::infer::EncoderWeights;
use ssl_edge_nn::{Error, Vit, VitConfig, ops};

/// Rows kept of each layer over all frames.
const ROWS: usize = 2048;
/// Probabilities kept of a block.
const PROBABILITIES: usize = 50_000;
/// Frames that go through a block together.
const AT_ONCE: usize = 16;

/// The encoder in f32 with the tokens of all calibration frames before some block.
pub(super) struct Walk {
    config: VitConfig,
    tensors: BTreeMap<String, Tensor>,
    /// `[B, T, D]` each.
    tokens: Vec<Tensor>,
    frames: usize,
}

/// What a block's layers see.
#[derive(Default)]
pub(super) struct Inputs {
    /// Rows of the inputs of the linear layers, `[R, K]` each, in the order of [`ssl_edge_nn::infer::LINEAR_LAYERS`].
    pub(super) layers: [Vec<f32>; 4],
    /// Rows of queries, keys and values, `[R, 3 D]`.
    pub(super) qkv: Vec<f32>,
    /// Some of attention's probabilities, the largest among them.
    pub(super) probabilities: Vec<f32>,
    /// Rows of the tokens that skip attention and the MLP, `[R, D]` each.
    pub(super) skipped: [Vec<f32>; 2],
}

impl Walk {
    /// Tokens before the first block of `frames [F, 3, H, W]`.
    pub(super) fn new(
        config: &VitConfig,
        weights: &EncoderWeights,
        frames: &[f32],
    ) -> Result<Self, Error> {
        let tensors = weights
            .0
            .iter()
            .map(|(name, stored)| {
                let tensor = Tensor::from_vec(stored.to_f32(), stored.dims(), &Device::Cpu)?;
                Ok((name.clone(), tensor))
            })
            .collect::<Result<BTreeMap<_, _>, Error>>()?;
        let vit = Vit::load(config, &tensors)?;
        let [height, width] = config.image_size;
        let image = 3 * height * width;
        let tokens = frames
            .chunks(AT_ONCE * image)
            .map(|frames| {
                let shape = (frames.len() / image, 3, height, width);
                let images = Tensor::from_slice(frames, shape, &Device::Cpu)?;
                let patches = vit.embed_patches(&images)?;
                let prefix = vit.prefix_tokens(shape.0)?;
                Ok(Tensor::cat(&[&prefix, &patches], 1)?)
            })
            .collect::<Result<_, Error>>()?;
        Ok(Self {
            config: config.clone(),
            tensors,
            tokens,
            frames: frames.len() / image,
        })
    }

    /// Takes the tokens through the next block and keeps rows of its layers' inputs.
    pub(super) fn block(&mut self, index: usize) -> Result<Inputs, Error> {
        let mut inputs = Inputs::default();
        for i in 0..self.tokens.len() {
            let x = self.tokens[i].clone();
            let normed = self.norm(index, "norm1", &x)?;
            let qkv = self.linear(index, "attn.qkv", &normed)?;
            let attended = ops::attention(&qkv, self.config.heads)?;
            self.keep(&mut inputs.skipped[0], &x)?;
            let x = (x + self.linear(index, "attn.proj", &attended)?)?;
            self.keep(&mut inputs.skipped[1], &x)?;
            let normed2 = self.norm(index, "norm2", &x)?;
            let hidden = self.linear(index, "mlp.fc1", &normed2)?;
            let active = ops::gelu(&hidden, self.config.gelu)?;
            self.tokens[i] = (x + self.linear(index, "mlp.fc2", &active)?)?.detach();
            for (kept, layer) in inputs
                .layers
                .iter_mut()
                .zip([normed, attended, normed2, active])
            {
                self.keep(kept, &layer)?;
            }
            self.keep(&mut inputs.qkv, &qkv)?;
            if i == 0 {
                inputs.probabilities = self.probabilities(&qkv)?;
            }
        }
        Ok(inputs)
    }

    /// Probabilities of the first frames, every so many, and the largest.
    fn probabilities(&self, qkv: &Tensor) -> Result<Vec<f32>, Error> {
        let (frames, tokens, width) = qkv.dims3()?;
        let (heads, frames) = (self.config.heads, frames.min(4));
        let head = width / 3 / heads;
        let parts = qkv
            .narrow(0, 0, frames)?
            .reshape((frames, tokens, 3, heads, head))?
            .permute((2, 0, 3, 1, 4))?; // [3, B, heads, T, d]
        let (q, k) = (parts.get(0)?.contiguous()?, parts.get(1)?.contiguous()?);
        let scores = (q.matmul(&k.t()?.contiguous()?)? / (head as f64).sqrt())?;
        let exp = scores
            .broadcast_sub(&scores.max_keepdim(D::Minus1)?)?
            .exp()?;
        let all = exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?;
        let all: Vec<f32> = all.flatten_all()?.to_vec1()?;
        let largest = all.iter().copied().fold(0.0, f32::max);
        let step = all.len().div_ceil(PROBABILITIES);
        let some = all.into_iter().step_by(step);
        Ok(some.chain([largest]).collect())
    }

    /// CLS and tokens spread over the rest, of every frame.
    fn keep(&self, kept: &mut Vec<f32>, x: &Tensor) -> Result<(), Error> {
        let (frames, tokens, _) = x.dims3()?;
        let rows = ROWS.div_ceil(self.frames).clamp(1, tokens);
        for frame in 0..frames {
            let frame = x.get(frame)?;
            for row in 0..rows {
                kept.extend(frame.get(row * tokens / rows)?.to_vec1::<f32>()?);
            }
        }
        Ok(())
    }

    fn tensor(&self, index: usize, name: &str) -> Result<&Tensor, Error> {
        let name = format!("blocks.{index}.{name}");
        self.tensors.get(&name).ok_or(Error::MissingTensor { name })
    }

    fn linear(&self, index: usize, layer: &str, x: &Tensor) -> Result<Tensor, Error> {
        let weight = self.tensor(index, &format!("{layer}.weight"))?;
        let bias = self.tensor(index, &format!("{layer}.bias"))?;
        Ok(ops::linear(x, weight, Some(bias))?)
    }

    fn norm(&self, index: usize, norm: &str, x: &Tensor) -> Result<Tensor, Error> {
        let weight = self.tensor(index, &format!("{norm}.weight"))?;
        let bias = self.tensor(index, &format!("{norm}.bias"))?;
        Ok(ops::layer_norm(x, weight, bias, self.config.eps)?)
    }
}
