//! Masked autoencoder (He et al. 2021, arXiv:2111.06377).
//!
//! An encoder sees the visible quarter of the patches; a light decoder sees its tokens at their places, mask tokens
//! elsewhere, and predicts the pixels of the hidden patches:
//! `loss = mean over hidden patches of mean((pred - target)^2)`, target optionally normalised per patch.
//!
//! Shapes: images `[B, 3, S, S]`, N patches, Nv = floor(N (1 - mask_ratio)) visible, Nm = N - Nv hidden;
//! encoder width D, decoder width E. Positions are fixed 2-D sine-cosine tables on both sides.
//!
//! Deviations: registers, where the encoder has them, are dropped before the decoder; the last linear layer is
//! computed on hidden patches only, as no other enters the loss; GELU follows the encoder's configuration.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use ssl_edge_nn::{Block, Init, Params, Vit, VitConfig, ops, pos};
use ssl_edge_vision::{AugmentConfig, stream};

use super::{Batch, ENCODER, Method, StepContext, init_rng, purpose, redraw, strip, tokens};
use crate::checkpoint::Tensors;
use crate::config::rejected;
use crate::error::Result;

/// Settings of MAE.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaeConfig {
    /// Part of the patches that is hidden, 0.75 in the paper.
    pub mask_ratio: f64,
    /// Whether the target of a patch is `(pixels - mean) / sqrt(var + 1e-6)`, with the unbiased variance.
    pub norm_pix: bool,
    /// Shape of the decoder.
    pub decoder: DecoderConfig,
    /// How a training view is made of an image.
    pub view: AugmentConfig,
}

/// Shape of the decoder, whose MLPs are as wide relative to `dim` as the encoder's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderConfig {
    /// Token width E, a multiple of 4 and of `heads`.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
}

/// Which patches of one image are visible.
#[derive(Clone, Debug, PartialEq)]
pub struct Masking {
    /// Visible patches in shuffled order, Nv of them.
    pub keep: Vec<u32>,
    /// For each patch its place in the shuffled order; visible where below Nv. N of them.
    pub restore: Vec<u32>,
}

/// Encoder and decoder in training.
pub struct Mae {
    config: MaeConfig,
    params: Params,
    encoder: Vit,
    decoder: Decoder,
}

struct Decoder {
    embed: [Tensor; 2],
    mask_token: Tensor,
    positions: Tensor, // [1, 1 + N, E]
    blocks: Vec<Block>,
    norm: [Tensor; 2],
    pred: [Tensor; 2],
    eps: f64,
}

impl MaeConfig {
    /// Checks that the settings fit each other and the encoder.
    pub fn validate(&self, encoder: &VitConfig) -> Result<()> {
        let n = tokens(encoder)?;
        let visible = visible(n, self.mask_ratio);
        if visible == 0 || visible >= n {
            return Err(rejected(format!(
                "mae.mask_ratio {} leaves {visible} of {n} patches visible; it must hide some and leave some",
                self.mask_ratio
            )));
        }
        let DecoderConfig { dim, depth, heads } = self.decoder;
        if depth == 0 || heads == 0 || dim == 0 || dim % 4 != 0 || dim % heads != 0 {
            return Err(rejected(format!(
                "mae.decoder: dim {dim} must be a multiple of 4 and of heads {heads}, depth {depth} at least 1"
            )));
        }
        Ok(())
    }
}

fn visible(n: usize, ratio: f64) -> usize {
    (n as f64 * (1.0 - ratio)) as usize
}

/// Uniform noise for each of `n` patches, sorted; the floor(n (1 - `ratio`)) lowest stay visible.
pub fn random_masking(n: usize, ratio: f64, rng: &mut ChaCha8Rng) -> Masking {
    let noise: Vec<u64> = (0..n).map(|_| rng.next_u64()).collect();
    let mut shuffled: Vec<u32> = (0..n as u32).collect();
    shuffled.sort_by_key(|&patch| noise[patch as usize]);
    let mut restore = vec![0; n];
    for (place, &patch) in shuffled.iter().enumerate() {
        restore[patch as usize] = place as u32;
    }
    shuffled.truncate(visible(n, ratio));
    Masking {
        keep: shuffled,
        restore,
    }
}

impl Mae {
    /// Networks with weights drawn from `seed` as in the paper: linear layers and the patch projection Xavier-uniform,
    /// tokens normal 0.02, norms 1 and biases 0.
    pub fn new(encoder: &VitConfig, config: &MaeConfig, seed: u64) -> Result<Self> {
        Self::on(&Device::Cpu, encoder, config, seed)
    }

    /// As [`Mae::new`], on a device.
    pub fn on(device: &Device, encoder: &VitConfig, config: &MaeConfig, seed: u64) -> Result<Self> {
        config.validate(encoder)?;
        let mut params = Params::on(device);
        let mut rng = init_rng(seed, 0);
        let vit = Vit::init(encoder, &mut params, ENCODER, &mut rng)?;
        let decoder = Decoder::init(encoder, &config.decoder, &mut params, &mut rng)?;
        redraw(&params, seed, |name, _| {
            let token = name.ends_with("cls_token") || name.ends_with("register_tokens");
            token.then_some(Init::Normal(0.02))
        })?;
        let mae = Self {
            config: config.clone(),
            params,
            encoder: vit,
            decoder,
        };
        mae.fix_positions()?;
        Ok(mae)
    }

    /// Writes the fixed table into the encoder's `pos_embed`; its CLS row is zero.
    fn fix_positions(&self) -> Result<()> {
        let config = self.encoder.config();
        let table = with_cls(
            pos::sincos_2d(config.dim, config.grid(config.image_size)?),
            config.dim,
        )?;
        let name = format!("{ENCODER}pos_embed");
        let param = self.params.get(&name).expect("every encoder has positions");
        Ok(param.var.set(&table.to_device(param.var.device())?)?)
    }

    /// Encodes visible patches: `patches [B, N, 3 P P]` to `[B, 1 + R + Nv, D]`.
    pub fn forward_encoder(&self, patches: &Tensor, masks: &[Masking]) -> Result<Tensor> {
        let (b, n, pixels) = patches.dims3()?;
        let dim = self.encoder.config().dim;
        let visible = masks[0].keep.len();
        let rows = indices(masks, |image, mask, rows| {
            rows.extend(mask.keep.iter().map(|&patch| (image * n) as u32 + patch));
        });
        let places = indices(masks, |_, mask, rows| rows.extend(&mask.keep));
        let patches = ops::gather_rows(&patches.reshape((b * n, pixels))?, rows)?;
        let weight = self
            .encoder_param("patch_embed.proj.weight")
            .flatten_from(1)?;
        let bias = self.encoder_param("patch_embed.proj.bias");
        let table = self.encoder_param("pos_embed").detach().squeeze(0)?;
        let positions = ops::gather_rows(&table.narrow(0, 1, n)?, places)?;
        let x = (ops::linear_of_input(&patches, &weight, Some(&bias))? + positions)?;
        let x = x.reshape((b, visible, dim))?;
        let prefix = self.encoder.prefix_tokens(b)?;
        Ok(self
            .encoder
            .forward_tokens(&Tensor::cat(&[&prefix, &x], 1)?)?)
    }

    /// Predicts hidden patches from encoded visible ones: `latent [B, 1 + R + Nv, D]` to `[B * Nm, P P 3]`, image by
    /// image, hidden patches in row-major order, pixels in (row, column, channel) order.
    pub fn forward_decoder(&self, latent: &Tensor, masks: &[Masking]) -> Result<Tensor> {
        let (b, latent_tokens, dim) = latent.dims3()?;
        let decoder = &self.decoder;
        let (n, visible) = (masks[0].restore.len(), masks[0].keep.len());
        let width = decoder.mask_token.dim(2)?;
        let prefix = latent_tokens - visible;
        let rows = latent.reshape((b * latent_tokens, dim))?;
        let rows = ops::linear(&rows, &decoder.embed[0], Some(&decoder.embed[1]))?;
        let mask_row = (b * latent_tokens) as u32;
        let rows = Tensor::cat(&[&rows, &decoder.mask_token.reshape((1, width))?], 0)?;
        let unshuffled = indices(masks, |image, mask, rows| {
            let first = (image * latent_tokens) as u32;
            rows.push(first);
            rows.extend(
                mask.restore
                    .iter()
                    .map(|&place| match (place as usize) < visible {
                        true => first + prefix as u32 + place,
                        false => mask_row,
                    }),
            );
        });
        let x = ops::gather_rows(&rows, unshuffled)?.reshape((b, 1 + n, width))?;
        let x = x.broadcast_add(&decoder.positions)?;
        let x = Block::forward_all(&decoder.blocks, &x, &[])?;
        let hidden = indices(masks, |image, mask, rows| {
            rows.extend(hidden(mask).map(|patch| (image * (1 + n) + 1 + patch) as u32));
        });
        let x = ops::gather_rows(&x.reshape((b * (1 + n), width))?, hidden)?;
        let x = ops::layer_norm(&x, &decoder.norm[0], &decoder.norm[1], decoder.eps)?;
        Ok(ops::linear(&x, &decoder.pred[0], Some(&decoder.pred[1]))?)
    }

    /// Mean squared error on hidden patches; `pred` as from [`Mae::forward_decoder`].
    pub fn forward_loss(
        &self,
        patches: &Tensor,
        pred: &Tensor,
        masks: &[Masking],
    ) -> Result<Tensor> {
        if ops::has_losses(pred.device()) {
            let (b, n, pixels) = patches.dims3()?;
            let patches = patches.reshape((b * n, pixels))?;
            let ids = indices(masks, |image, mask, rows| {
                rows.extend(hidden(mask).map(|patch| (image * n + patch) as u32));
            });
            return Ok(ops::patch_loss(pred, &patches, ids, self.config.norm_pix)?);
        }
        let target = target(patches, masks, self.config.norm_pix)?;
        Ok((pred - target)?.sqr()?.mean_all()?)
    }

    fn encoder_param(&self, name: &str) -> Tensor {
        let param = self.params.get(&format!("{ENCODER}{name}"));
        param
            .expect("a parameter of every encoder")
            .var
            .as_tensor()
            .clone()
    }
}

impl Decoder {
    fn init(
        encoder: &VitConfig,
        config: &DecoderConfig,
        params: &mut Params,
        rng: &mut ChaCha8Rng,
    ) -> Result<Self> {
        let pixels = 3 * encoder.patch * encoder.patch;
        let mut create =
            |name: &str, dims: &[usize], init: Init| params.create(name, dims, init, rng);
        let xavier = Init::XavierUniform;
        let (zero, one) = (Init::Const(0.0), Init::Const(1.0));
        let width = config.dim;
        let embed = [
            create("decoder_embed.weight", &[width, encoder.dim], xavier)?,
            create("decoder_embed.bias", &[width], zero)?,
        ];
        let mask_token = create("mask_token", &[1, 1, width], Init::Normal(0.02))?;
        let norm = [
            create("decoder_norm.weight", &[width], one)?,
            create("decoder_norm.bias", &[width], zero)?,
        ];
        let pred = [
            create("decoder_pred.weight", &[pixels, width], xavier)?,
            create("decoder_pred.bias", &[pixels], zero)?,
        ];
        let mut blocks = Vec::with_capacity(config.depth);
        for i in 0..config.depth {
            let name = format!("decoder_blocks.{i}");
            blocks.push(Block::init(
                params,
                rng,
                &name,
                width,
                config.heads,
                encoder,
            )?);
        }
        let positions = with_cls(
            pos::sincos_2d(width, encoder.grid(encoder.image_size)?),
            width,
        )?;
        Ok(Self {
            embed,
            mask_token,
            positions: positions.to_device(params.device())?,
            blocks,
            norm,
            pred,
            eps: encoder.eps,
        })
    }
}

impl Method for Mae {
    fn name(&self) -> &'static str {
        "mae"
    }

    fn params(&self) -> &Params {
        &self.params
    }

    fn is_trained(&self, name: &str, _ctx: &StepContext) -> bool {
        name != "encoder.pos_embed"
    }

    fn loss(&mut self, batch: &Batch, ctx: &StepContext) -> Result<Tensor> {
        let config = self.encoder.config();
        let n = tokens(config)?;
        let mask = |&sample: &usize| {
            let mut rng = stream(ctx.seed, ctx.step, sample as u64, purpose::MASK);
            random_masking(n, self.config.mask_ratio, &mut rng)
        };
        let masks: Vec<Masking> = batch.samples.iter().map(mask).collect();
        let patches = ops::patchify(&batch.views[0], config.patch)?;
        let latent = self.forward_encoder(&patches, &masks)?;
        let pred = self.forward_decoder(&latent, &masks)?;
        self.forward_loss(&patches, &pred, &masks)
    }

    fn after_step(&mut self, _ctx: &StepContext) -> Result<()> {
        Ok(())
    }

    fn encoder(&self) -> Tensors {
        strip(&self.params.to_map(), ENCODER)
    }

    fn state(&self) -> Result<Tensors> {
        Ok(Tensors::new())
    }

    fn restore(&mut self, model: &Tensors, _state: &Tensors) -> Result<()> {
        Ok(self.params.assign(model)?)
    }

    fn figures(&self) -> BTreeMap<&'static str, f64> {
        BTreeMap::new()
    }
}

/// `[N, width]` to `[1, 1 + N, width]`, the first row zero.
fn with_cls(mut table: Vec<f32>, width: usize) -> Result<Tensor> {
    table.splice(0..0, std::iter::repeat_n(0.0, width));
    let rows = table.len() / width;
    Ok(Tensor::from_vec(table, (1, rows, width), &Device::Cpu)?)
}

/// Row numbers gathered image by image.
fn indices(masks: &[Masking], mut fill: impl FnMut(usize, &Masking, &mut Vec<u32>)) -> Vec<u32> {
    let mut rows = Vec::new();
    for (image, mask) in masks.iter().enumerate() {
        fill(image, mask, &mut rows);
    }
    rows
}

/// Hidden patches in row-major order.
fn hidden(mask: &Masking) -> impl Iterator<Item = usize> {
    let visible = mask.keep.len();
    let places = mask.restore.iter().enumerate();
    places
        .filter(move |(_, place)| **place as usize >= visible)
        .map(|(patch, _)| patch)
}

/// The pixels of hidden patches, `[B * Nm, P P 3]` in (row, column, channel) order, from `patches [B, N, 3 P P]` in
/// (channel, row, column) order.
fn target(patches: &Tensor, masks: &[Masking], norm_pix: bool) -> Result<Tensor> {
    let (_, n, pixels) = patches.dims3()?;
    let values: Vec<f32> = patches.flatten_all()?.to_vec1()?;
    let rows: Vec<usize> = masks
        .iter()
        .enumerate()
        .flat_map(|(image, mask)| hidden(mask).map(move |patch| image * n + patch))
        .collect();
    let area = pixels / 3;
    let mut out = vec![0f32; rows.len() * pixels];
    out.par_chunks_exact_mut(pixels)
        .zip(&rows)
        .for_each(|(out, &row)| {
            let patch = &values[row * pixels..][..pixels];
            let (mean, scale) = if norm_pix {
                normalisation(patch)
            } else {
                (0.0, 1.0)
            };
            for (i, pixel) in out.chunks_exact_mut(3).enumerate() {
                for (channel, value) in pixel.iter_mut().enumerate() {
                    *value = (patch[channel * area + i] - mean) * scale;
                }
            }
        });
    Ok(Tensor::from_vec(out, (rows.len(), pixels), &Device::Cpu)?)
}

/// Mean and `1 / sqrt(var + 1e-6)`, with the unbiased variance.
fn normalisation(patch: &[f32]) -> (f32, f32) {
    let n = patch.len() as f64;
    let mean = patch.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let square: f64 = patch.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum();
    let var = square / (n - 1.0);
    (mean as f32, (1.0 / (var + 1e-6).sqrt()) as f32)
}
