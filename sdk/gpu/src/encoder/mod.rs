//! A vision transformer for running only: weights in the type of products, all memory made before the first image.
//!
//! The residual stream, norms, softmax and sums are f32; products read [`Machine::work`]. What a pass launches depends on its number of images alone, and
//! it allocates nothing, so that it can be recorded once and played back.

#[cfg(all(test, target_os = "linux"))]
mod tests;

use crate::linear::{Layer, cast};
use crate::{Error, Gelu, Kind, Machine, Memory, Result, Sizes, View, attention, bail, kernels};

/// Shape of an encoder: pre-norm blocks, tokens `[CLS][registers][patches, row-major]`, registers without a position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Token width D.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Patch side in pixels.
    pub patch: usize,
    /// Register tokens.
    pub registers: usize,
    /// Hidden width of the MLP.
    pub hidden: usize,
    /// Image height and width in pixels.
    pub image_size: [usize; 2],
    /// The MLP's activation.
    pub gelu: Gelu,
    /// Added to the variance by every norm.
    pub eps: f32,
}

/// Most of each size, so that products of them stay far from overflow.
const LARGEST: usize = 1 << 14;

impl Config {
    /// Checks that the sizes fit each other.
    ///
    /// # Errors
    /// Names what does not fit.
    pub fn validate(&self) -> Result<()> {
        let [height, width] = self.image_size;
        for (what, size) in [
            ("dim", self.dim),
            ("depth", self.depth),
            ("heads", self.heads),
            ("patch", self.patch),
            ("hidden", self.hidden),
            ("image height", height),
            ("image width", width),
        ] {
            if size == 0 || size > LARGEST {
                bail!("{what} is {size}; it must be 1 to {LARGEST}")
            }
        }
        if self.registers > LARGEST
            || !self.dim.is_multiple_of(self.heads)
            || !height.is_multiple_of(self.patch)
            || !width.is_multiple_of(self.patch)
        {
            bail!(
                "{} registers, {} heads of {} channels and patches of {} in {height} x {width} pixels do not go together",
                self.registers,
                self.heads,
                self.dim,
                self.patch
            )
        }
        if !(self.eps > 0.0 && self.eps < 1.0) {
            bail!("eps is {}; it must be between 0 and 1", self.eps)
        }
        Ok(())
    }

    /// Patches N of an image.
    pub fn n_patches(&self) -> usize {
        self.image_size[0] / self.patch * (self.image_size[1] / self.patch)
    }

    /// CLS and registers.
    pub fn n_prefix(&self) -> usize {
        1 + self.registers
    }

    /// Tokens T of an image.
    pub fn tokens(&self) -> usize {
        self.n_prefix() + self.n_patches()
    }

    /// Values of an image, `3 H W`.
    pub fn image(&self) -> usize {
        3 * self.image_size[0] * self.image_size[1]
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            tokens: self.tokens(),
            dim: self.dim,
            heads: self.heads,
            head_dim: self.dim / self.heads,
        }
    }
}

/// Values of tensors by name; the names are those of DINO's and timm's checkpoints.
pub trait Tensors {
    /// The tensor's values, row-major, or none where it is not there.
    fn get(&self, name: &str) -> Option<&[f32]>;
}

struct Block {
    norm1: [Memory; 2],
    qkv: Linear,
    proj: Linear,
    norm2: [Memory; 2],
    fc1: Linear,
    fc2: Linear,
}

/// A layer and its parameters.
struct Linear {
    layer: Layer,
    _parameters: [Memory; 2],
}

/// The parameters of an encoder on a machine.
pub struct Encoder {
    config: Config,
    embed: Linear,
    /// What the product of the patches is added to, `[T, D]`: CLS with its position, registers, positions with the bias of the embedding.
    table: Memory,
    blocks: Vec<Block>,
    norm: [Memory; 2],
}

/// The memory of passes of up to some number of images.
pub struct Buffers {
    images: usize,
    /// `[B, 3, H, W]`.
    input: Memory,
    /// The residual stream, `[B, T, D]`.
    stream: Memory,
    /// Normed or attended tokens, `[B, T, D]`.
    narrow: Memory,
    /// Patches, queries with keys and values, or the MLP's hidden values.
    wide: Memory,
    /// `[B, T, 2]`.
    stats: Memory,
    /// `[B, heads, T]`.
    sums: Memory,
    /// Embedded patches `[B, N, D]`, in the end all tokens `[B, T, D]`.
    output: Memory,
}

struct Loader<'a> {
    machine: &'a dyn Machine,
    tensors: &'a dyn Tensors,
}

impl Loader<'_> {
    fn values(&self, name: &str, len: usize) -> Result<&[f32]> {
        let values = self.tensors.get(name).ok_or_else(|| Error::MissingTensor {
            name: name.to_owned(),
        })?;
        if values.len() != len {
            bail!("tensor {name} has {} values, {len} expected", values.len())
        }
        Ok(values)
    }

    fn upload(&self, values: &[f32]) -> Result<Memory> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
        self.machine.upload(Kind::F32, &bytes)
    }

    /// The values in another type; f32 memory of it is freed again.
    fn upload_as(&self, values: &[f32], kind: Kind) -> Result<Memory> {
        let there = self.upload(values)?;
        Ok(match cast(self.machine, there.view, kind)?.into_memory() {
            Some(memory) => memory,
            None => there,
        })
    }

    fn norm(&self, name: &str, d: usize) -> Result<[Memory; 2]> {
        Ok([
            self.upload(self.values(&format!("{name}.weight"), d)?)?,
            self.upload(self.values(&format!("{name}.bias"), d)?)?,
        ])
    }

    /// A layer `[n, k]` whose result is of type `out`.
    fn linear(&self, name: &str, [n, k]: [usize; 2], out: Kind) -> Result<Linear> {
        let weight = self.values(&format!("{name}.weight"), n * k)?;
        let weight = self.upload_as(weight, self.machine.work())?;
        let bias = self.upload_as(self.values(&format!("{name}.bias"), n)?, out)?;
        Ok(Linear {
            layer: Layer::new(self.machine, weight.view, Some(bias.view), [n, k])?,
            _parameters: [weight, bias],
        })
    }

    fn block(&self, config: &Config, block: usize) -> Result<Block> {
        let (d, hidden, work) = (config.dim, config.hidden, self.machine.work());
        let name = |part: &str| format!("blocks.{block}.{part}");
        Ok(Block {
            norm1: self.norm(&name("norm1"), d)?,
            qkv: self.linear(&name("attn.qkv"), [3 * d, d], work)?,
            proj: self.linear(&name("attn.proj"), [d, d], Kind::F32)?,
            norm2: self.norm(&name("norm2"), d)?,
            fc1: self.linear(&name("mlp.fc1"), [hidden, d], work)?,
            fc2: self.linear(&name("mlp.fc2"), [d, hidden], Kind::F32)?,
        })
    }

    fn embed(&self, config: &Config) -> Result<Linear> {
        let [n, k] = [config.dim, 3 * config.patch * config.patch];
        let weight = self.values("patch_embed.proj.weight", n * k)?;
        let weight = self.upload_as(weight, self.machine.work())?;
        // The bias is in the table.
        let none = self.machine.alloc(Kind::F32, 0)?;
        Ok(Linear {
            layer: Layer::new(self.machine, weight.view, None, [n, k])?,
            _parameters: [weight, none],
        })
    }

    fn table(&self, config: &Config) -> Result<Memory> {
        let (d, n) = (config.dim, config.n_patches());
        let positions = self.values("pos_embed", (1 + n) * d)?;
        let cls = self.values("cls_token", d)?;
        let bias = self.values("patch_embed.proj.bias", d)?;
        let mut table: Vec<f32> = cls.iter().zip(positions).map(|(c, p)| c + p).collect();
        if config.registers > 0 {
            table.extend(self.values("register_tokens", config.registers * d)?);
        }
        for position in positions[d..].chunks_exact(d) {
            table.extend(position.iter().zip(bias).map(|(p, b)| p + b));
        }
        self.upload(&table)
    }
}

impl Encoder {
    /// Brings the parameters to the machine.
    ///
    /// # Errors
    /// Sizes that do not fit, a tensor that is missing or of another length, memory that does not suffice.
    pub fn new(machine: &dyn Machine, config: &Config, tensors: &dyn Tensors) -> Result<Self> {
        config.validate()?;
        let loader = Loader { machine, tensors };
        Ok(Self {
            config: *config,
            embed: loader.embed(config)?,
            table: loader.table(config)?,
            blocks: (0..config.depth)
                .map(|block| loader.block(config, block))
                .collect::<Result<_>>()?,
            norm: loader.norm("norm", config.dim)?,
        })
    }

    /// The encoder's shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Memory for passes of `images` images.
    ///
    /// # Errors
    /// Memory that does not suffice.
    pub fn buffers(&self, machine: &dyn Machine, images: usize) -> Result<Buffers> {
        let (c, work) = (&self.config, machine.work());
        let (rows, patches) = (images * c.tokens(), images * c.n_patches());
        let wide = (rows * (3 * c.dim).max(c.hidden)).max(patches * 3 * c.patch * c.patch);
        Ok(Buffers {
            images,
            input: machine.alloc(Kind::F32, images * c.image())?,
            stream: machine.alloc(Kind::F32, rows * c.dim)?,
            narrow: machine.alloc(work, rows * c.dim)?,
            wide: machine.alloc(work, wide)?,
            stats: machine.alloc(Kind::F32, 2 * rows)?,
            sums: machine.alloc(Kind::F32, rows * c.heads)?,
            output: machine.alloc(Kind::F32, rows * c.dim)?,
        })
    }

    /// From [`Buffers::input`] to [`Buffers::output`], for `images` images.
    ///
    /// # Errors
    /// More images than there is memory for, or none; what the machine does not take.
    pub fn forward(&self, machine: &dyn Machine, at: &Buffers, images: usize) -> Result<()> {
        if images == 0 || images > at.images {
            bail!(
                "{images} images where there is memory for 1 to {}",
                at.images
            )
        }
        let c = &self.config;
        let rows = images * c.tokens();
        let patches = images * c.n_patches();
        let part = |memory: &Memory, len: usize| View { len, ..memory.view };
        let stream = part(&at.stream, rows * c.dim);
        let pixels = part(&at.wide, patches * 3 * c.patch * c.patch);
        let embedded = part(&at.output, patches * c.dim);
        let [height, width] = c.image_size;
        kernels::patchify(
            machine,
            at.input(images, c),
            [images, 3, height, width],
            c.patch,
            pixels,
        )?;
        self.embed.layer.forward(machine, pixels, None, embedded)?;
        let tokens = [c.tokens(), c.n_prefix(), c.dim];
        kernels::add_table(machine, embedded, self.table.view, stream, tokens)?;
        let narrow = part(&at.narrow, rows * c.dim);
        let stats = part(&at.stats, 2 * rows);
        let norm = |pair: &[Memory; 2], to: View| {
            let pair = [pair[0].view, pair[1].view];
            kernels::layer_norm_into(machine, stream, pair, to, stats, c.eps)
        };
        for block in &self.blocks {
            norm(&block.norm1, narrow)?;
            let qkv = part(&at.wide, 3 * rows * c.dim);
            block.qkv.layer.forward(machine, narrow, None, qkv)?;
            let sums = part(&at.sums, rows * c.heads);
            attention::forward_into(machine, qkv, narrow, sums, &c.sizes())?;
            let proj = &block.proj.layer;
            proj.forward(machine, narrow, Some(stream), stream)?;
            norm(&block.norm2, narrow)?;
            let hidden = part(&at.wide, rows * c.hidden);
            block.fc1.layer.forward(machine, narrow, None, hidden)?;
            kernels::gelu(machine, hidden, hidden, c.gelu)?;
            let fc2 = &block.fc2.layer;
            fc2.forward(machine, hidden, Some(stream), stream)?;
        }
        norm(&self.norm, part(&at.output, rows * c.dim))
    }
}

impl Buffers {
    /// Images that there is memory for.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Where the images `[B, 3, H, W]` go, f32.
    pub fn input(&self, images: usize, config: &Config) -> View {
        View {
            len: images * config.image(),
            ..self.input.view
        }
    }

    /// Where all tokens `[B, T, D]` come out after the final norm, f32.
    pub fn output(&self, images: usize, config: &Config) -> View {
        View {
            len: images * config.tokens() * config.dim,
            ..self.output.view
        }
    }
}
