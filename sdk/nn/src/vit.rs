//! Vision transformer, <https://arxiv.org/abs/2010.11929>, with register tokens, <https://arxiv.org/abs/2309.16588>.
//!
//! Pre-norm blocks: `x += attn(norm1(x))`, `x += mlp(norm2(x))`. Tokens are `[CLS][registers][patches, row-major]`. Registers get no
//! position. Parameter names are those of DINO's and timm's checkpoints. For an image of another size than the position grid, positions
//! are resampled by DINO's bicubic interpolation, as an exact matrix.

mod quantised;

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::ops::{self, Affine, BlockParams, Gelu, PathFactors};
use crate::params::{Init, Params, expect_shape};
use crate::{Error, pos};

pub use quantised::QuantisedVit;

/// Shape of an encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VitConfig {
    /// Token width D.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads; `dim / heads` is the head's width.
    pub heads: usize,
    /// Patch side in pixels.
    pub patch: usize,
    /// Register tokens.
    pub registers: usize,
    /// Hidden width of the MLP over `dim`.
    pub mlp_ratio: usize,
    /// Image height and width in pixels that `pos_embed` is a grid for.
    pub image_size: [usize; 2],
    /// The MLP's activation.
    pub gelu: Gelu,
    /// Added to the variance by every norm.
    pub eps: f64,
}

/// One transformer block, see [`ops::block`].
#[derive(Clone, Debug)]
pub struct Block(Arc<BlockParams>);

/// The encoder.
#[derive(Clone, Debug)]
pub struct Vit {
    config: VitConfig,
    cls_token: Tensor,
    pos_embed: Tensor,
    register_tokens: Option<Tensor>,
    patch_embed: Affine,
    blocks: Vec<Block>,
    norm: Affine,
}

/// Where parameters come from: newly drawn ones, or those of a file.
enum Source<'a> {
    New(&'a mut Params, &'a mut ChaCha8Rng),
    Map(&'a BTreeMap<String, Tensor>),
}

impl VitConfig {
    /// Names that [`VitConfig::named`] knows.
    pub const NAMES: [&'static str; 8] = [
        "vit_n16", "vit_n8", "vit_t16", "vit_t8", "vit_s16", "vit_s8", "vit_b16", "vit_b8",
    ];

    /// The shape of a named architecture, with positions for 224 pixels, tanh GELU and, from 12 blocks on, four registers.
    ///
    /// `n` is 192 wide with 6 blocks, `t` 192 with 12, `s` 384 with 12, `b` 768 with 12; the number is the patch side. Heads are 64 wide.
    ///
    /// # Errors
    /// An unknown name; the error lists the known ones.
    pub fn named(arch: &str) -> Result<Self, Error> {
        if !Self::NAMES.contains(&arch) {
            return Err(Error::UnknownArch {
                arch: arch.to_owned(),
            });
        }
        let (dim, depth) = match &arch[4..5] {
            "n" => (192, 6),
            "t" => (192, 12),
            "s" => (384, 12),
            _ => (768, 12),
        };
        Ok(Self {
            dim,
            depth,
            heads: dim / 64,
            patch: if arch.ends_with("16") { 16 } else { 8 },
            registers: if depth >= 12 { 4 } else { 0 },
            mlp_ratio: 4,
            image_size: [224, 224],
            gelu: Gelu::Tanh,
            eps: 1e-6,
        })
    }

    /// Checks that the sizes fit each other.
    ///
    /// # Errors
    /// Names the field that does not fit.
    pub fn validate(&self) -> Result<(), Error> {
        let reject = |reason: String| Err(Error::Config { reason });
        for (name, value, max) in [
            ("dim", self.dim, 8192),
            ("depth", self.depth, 256),
            ("heads", self.heads, 256),
            ("patch", self.patch, 256),
            ("mlp_ratio", self.mlp_ratio, 64),
            ("image height", self.image_size[0], 16384),
            ("image width", self.image_size[1], 16384),
        ] {
            if value == 0 || value > max {
                return reject(format!("{name} is {value}; it must be 1 to {max}"));
            }
        }
        if self.registers > 256 {
            return reject(format!("registers is {}; at most 256", self.registers));
        }
        if !self.dim.is_multiple_of(self.heads) {
            return reject(format!(
                "dim {} is not a multiple of heads {}",
                self.dim, self.heads
            ));
        }
        if !(self.eps > 0.0 && self.eps < 1.0) {
            return reject(format!("eps is {}; it must be between 0 and 1", self.eps));
        }
        self.grid(self.image_size).map(|_| ())
    }

    /// Patches down and across of an image of `[height, width]` pixels.
    ///
    /// # Errors
    /// If the image is not a whole number of patches.
    pub fn grid(&self, size: [usize; 2]) -> Result<[usize; 2], Error> {
        if size
            .iter()
            .any(|s| *s == 0 || !s.is_multiple_of(self.patch))
        {
            return Err(Error::ImageSize {
                height: size[0],
                width: size[1],
                patch: self.patch,
            });
        }
        Ok([size[0] / self.patch, size[1] / self.patch])
    }

    /// Tokens before the patches: CLS and registers.
    pub fn n_prefix(&self) -> usize {
        1 + self.registers
    }
}

impl Source<'_> {
    fn tensor(&mut self, name: &str, dims: &[usize], init: Init) -> Result<Tensor, Error> {
        match self {
            Self::New(params, rng) => params.create(name, dims, init, rng),
            Self::Map(map) => {
                let t = map
                    .get(name)
                    .ok_or_else(|| Error::MissingTensor { name: name.into() })?;
                expect_shape(name, t, dims)?;
                Ok(t.clone())
            }
        }
    }

    fn linear(&mut self, name: &str, out: usize, rest: &[usize]) -> Result<Affine, Error> {
        let dims: Vec<usize> = std::iter::once(out).chain(rest.iter().copied()).collect();
        Ok(Affine {
            weight: self.tensor(&format!("{name}.weight"), &dims, Init::XavierUniform)?,
            bias: self.tensor(&format!("{name}.bias"), &[out], Init::Const(0.0))?,
        })
    }

    fn norm(&mut self, name: &str, dim: usize) -> Result<Affine, Error> {
        Ok(Affine {
            weight: self.tensor(&format!("{name}.weight"), &[dim], Init::Const(1.0))?,
            bias: self.tensor(&format!("{name}.bias"), &[dim], Init::Const(0.0))?,
        })
    }
}

impl Block {
    /// A block with new parameters `{name}.norm1.weight` and so on; also the decoder block of MAE.
    pub fn init(
        params: &mut Params,
        rng: &mut ChaCha8Rng,
        name: &str,
        dim: usize,
        heads: usize,
        config: &VitConfig,
    ) -> Result<Self, Error> {
        let shape = VitConfig {
            dim,
            heads,
            ..config.clone()
        };
        Self::build(&mut Source::New(params, rng), name, &shape)
    }

    fn build(source: &mut Source<'_>, name: &str, config: &VitConfig) -> Result<Self, Error> {
        let (d, hidden) = (config.dim, config.dim * config.mlp_ratio);
        Ok(Self(Arc::new(BlockParams {
            norm1: source.norm(&format!("{name}.norm1"), d)?,
            qkv: source.linear(&format!("{name}.attn.qkv"), 3 * d, &[d])?,
            proj: source.linear(&format!("{name}.attn.proj"), d, &[d])?,
            norm2: source.norm(&format!("{name}.norm2"), d)?,
            fc1: source.linear(&format!("{name}.mlp.fc1"), hidden, &[d])?,
            fc2: source.linear(&format!("{name}.mlp.fc2"), d, &[hidden])?,
            heads: config.heads,
            gelu: config.gelu,
            eps: config.eps,
        })))
    }

    /// `[B, T, D]` to `[B, T, D]`; `paths` drops residual branches of single images.
    pub fn forward(&self, x: &Tensor, paths: Option<&PathFactors>) -> Result<Tensor, Error> {
        Ok(ops::block(x, &self.0, paths)?)
    }

    /// The first token of the result alone, `[B, T, D]` to `[B, 1, D]`, for a sixth of the work.
    pub fn forward_first(&self, x: &Tensor, paths: Option<&PathFactors>) -> Result<Tensor, Error> {
        Ok(ops::block_first_token(x, &self.0, paths)?)
    }

    /// All of `blocks`, first to last; `paths` are the factors of every block, or none at all.
    pub fn forward_all(
        blocks: &[Self],
        x: &Tensor,
        paths: &[PathFactors],
    ) -> Result<Tensor, Error> {
        let params: Vec<_> = blocks.iter().map(|block| block.0.clone()).collect();
        Ok(ops::blocks(x, &params, paths)?)
    }
}

impl Vit {
    /// A trainable encoder with new parameters under `prefix` (for example `backbone.`), drawn from `rng`.
    ///
    /// Linear weights are Xavier-uniform and tokens and positions normal 0.02, as in MAE, which suits DINO as well.
    pub fn init(
        config: &VitConfig,
        params: &mut Params,
        prefix: &str,
        rng: &mut ChaCha8Rng,
    ) -> Result<Self, Error> {
        config.validate()?;
        Self::build(config, &mut Source::New(params, rng), prefix)
    }

    /// An encoder over given tensors; they may be variables of a [`Params`] or values without gradient.
    ///
    /// # Errors
    /// Names a tensor that is missing or of the wrong shape.
    pub fn load(config: &VitConfig, tensors: &BTreeMap<String, Tensor>) -> Result<Self, Error> {
        config.validate()?;
        Self::build(config, &mut Source::Map(tensors), "")
    }

    fn build(config: &VitConfig, source: &mut Source<'_>, prefix: &str) -> Result<Self, Error> {
        let (d, p) = (config.dim, config.patch);
        let grid = config.grid(config.image_size)?;
        let n = grid[0] * grid[1];
        let name = |s: &str| format!("{prefix}{s}");
        let token = Init::TruncNormal(0.02);
        let registers = match config.registers {
            0 => None,
            r => Some(source.tensor(&name("register_tokens"), &[1, r, d], token)?),
        };
        Ok(Self {
            cls_token: source.tensor(&name("cls_token"), &[1, 1, d], token)?,
            pos_embed: source.tensor(&name("pos_embed"), &[1, 1 + n, d], token)?,
            register_tokens: registers,
            patch_embed: source.linear(&name("patch_embed.proj"), d, &[3, p, p])?,
            blocks: (0..config.depth)
                .map(|i| Block::build(source, &name(&format!("blocks.{i}")), config))
                .collect::<Result<_, _>>()?,
            norm: source.norm(&name("norm"), d)?,
            config: config.clone(),
        })
    }

    /// The same encoder with linear layers in another type, without gradients: its products read and give that type. Norms, residuals and
    /// positions stay as they are.
    pub fn with_linear_in(&self, dtype: DType) -> Result<Self, Error> {
        let mut vit = self.clone();
        vit.patch_embed = vit.patch_embed.to_dtype(dtype)?;
        for block in &mut vit.blocks {
            let mut params = BlockParams::clone(&block.0);
            for linear in [
                &mut params.qkv,
                &mut params.proj,
                &mut params.fc1,
                &mut params.fc2,
            ] {
                *linear = linear.to_dtype(dtype)?;
            }
            block.0 = Arc::new(params);
        }
        Ok(vit)
    }

    /// The encoder's shape.
    pub fn config(&self) -> &VitConfig {
        &self.config
    }

    /// Where its parameters are and its input is expected.
    pub fn device(&self) -> &Device {
        self.cls_token.device()
    }

    /// The blocks, first to last.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// All tokens after the final norm: `images [B, 3, H, W]` to `[B, 1 + R + N, D]`.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor, Error> {
        let patches = self.embed_patches(images)?;
        let prefix = self.prefix_tokens(images.dim(0)?)?;
        self.forward_tokens(&Tensor::cat(&[&prefix, &patches], 1)?)
    }

    /// CLS after the final norm: `images [B, 3, H, W]` to `[B, D]`. `paths` are the factors of every block, or none at all.
    pub fn forward_cls(&self, images: &Tensor, paths: &[PathFactors]) -> Result<Tensor, Error> {
        let patches = self.embed_patches(images)?;
        let prefix = self.prefix_tokens(images.dim(0)?)?;
        let x = Tensor::cat(&[&prefix, &patches], 1)?;
        let last = self.blocks.len() - 1;
        let first_paths = &paths[..paths.len().min(last)];
        let x = Block::forward_all(&self.blocks[..last], &x, first_paths)?;
        let x = self.blocks[last].forward_first(&x, paths.get(last))?;
        Ok(self.forward_norm(&x)?.squeeze(1)?)
    }

    /// Patch embedding plus positions: `[B, 3, H, W]` to `[B, N, D]`.
    pub fn embed_patches(&self, images: &Tensor) -> Result<Tensor, Error> {
        let (_, _, h, w) = images.dims4()?;
        let grid = self.config.grid([h, w])?;
        let patches = ops::patchify(images, self.config.patch)?;
        let weight = self.patch_embed.weight.flatten_from(1)?;
        let x = ops::linear_of_input(&patches, &weight, Some(&self.patch_embed.bias))?;
        Ok(x.to_dtype(self.pos_embed.dtype())?
            .broadcast_add(&self.positions(grid)?)?)
    }

    /// CLS (with its position) and registers, `[B, 1 + R, D]`.
    pub fn prefix_tokens(&self, batch: usize) -> Result<Tensor, Error> {
        let cls = (&self.cls_token + self.pos_embed.narrow(1, 0, 1)?)?;
        let prefix = match &self.register_tokens {
            Some(r) => Tensor::cat(&[&cls, r], 1)?,
            None => cls,
        };
        Ok(prefix
            .broadcast_as((batch, self.config.n_prefix(), self.config.dim))?
            .contiguous()?)
    }

    /// Blocks and the final norm over `[B, T, D]`.
    pub fn forward_tokens(&self, tokens: &Tensor) -> Result<Tensor, Error> {
        self.forward_norm(&Block::forward_all(&self.blocks, tokens, &[])?)
    }

    /// The final norm.
    pub fn forward_norm(&self, x: &Tensor) -> Result<Tensor, Error> {
        Ok(ops::layer_norm(
            x,
            &self.norm.weight,
            &self.norm.bias,
            self.config.eps,
        )?)
    }

    /// Positions of the patches for a grid, `[1, N, D]`.
    pub fn positions(&self, grid: [usize; 2]) -> Result<Tensor, Error> {
        let own = self.config.grid(self.config.image_size)?;
        let patches = self.pos_embed.narrow(1, 1, own[0] * own[1])?;
        if grid == own {
            return Ok(patches);
        }
        let matrix = pos::bicubic_matrix(own, grid);
        let shape = (grid[0] * grid[1], own[0] * own[1]);
        let matrix = Tensor::from_vec(matrix, shape, &Device::Cpu)?
            .to_dtype(self.pos_embed.dtype())?
            .to_device(self.pos_embed.device())?;
        Ok(matrix.matmul(&patches.squeeze(0)?)?.unsqueeze(0)?)
    }
}

/// Resamples `pos_embed` in `tensors` to `size` pixels and returns the config that goes with it; used when a bundle is written.
pub fn resize_positions(
    config: &VitConfig,
    tensors: &mut BTreeMap<String, Tensor>,
    size: [usize; 2],
) -> Result<VitConfig, Error> {
    let vit = Vit::load(config, tensors)?;
    let patches = vit.positions(config.grid(size)?)?;
    let cls = vit.pos_embed.narrow(1, 0, 1)?;
    let pos = Tensor::cat(&[&cls, &patches], 1)?
        .to_dtype(DType::F32)?
        .detach();
    tensors.insert("pos_embed".to_owned(), pos);
    Ok(VitConfig {
        image_size: size,
        ..config.clone()
    })
}
