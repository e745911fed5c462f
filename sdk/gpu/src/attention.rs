//! Self-attention on a machine: tensor cores in bf16 and f16 for the usual head sizes, plain arithmetic for the others.

use crate::{Result, bail};

use crate::Sizes;
use crate::{Arg, Kind, Launch, Machine, Memory, View, expect, int};

/// Rows of a block on tensor cores, and of a block of plain arithmetic.
const TILE: usize = 64;
const PLAIN: usize = 4;
/// Most channels of a head that the plain kernels take.
const MAX_HEAD: usize = 256;

/// Result and what its gradient needs.
pub struct Attended {
    /// `[B, N, D]`.
    pub out: Memory,
    /// Logarithm of the sum of the exponentials of a row's scores, `[B, heads, N]`.
    pub lse: Memory,
}

struct Shape<'a> {
    sizes: &'a Sizes,
    images: usize,
    kind: Kind,
}

impl<'a> Shape<'a> {
    fn new(sizes: &'a Sizes, qkv: View) -> Result<Self> {
        let image = 3 * sizes.tokens * sizes.dim;
        if !qkv.len.is_multiple_of(image) || sizes.head_dim > MAX_HEAD {
            bail!(
                "attention: {} values are not images of {image}, or heads are wider than {MAX_HEAD}",
                qkv.len
            )
        }
        Ok(Self {
            sizes,
            images: qkv.len / image,
            kind: qkv.kind,
        })
    }

    fn rows(&self) -> usize {
        self.images * self.sizes.heads * self.sizes.tokens
    }

    fn on_tensor_cores(&self, views: &[View]) -> bool {
        matches!(self.kind, Kind::Bf16 | Kind::F16)
            && matches!(self.sizes.head_dim, 32 | 64)
            && views.iter().all(|v| v.address.is_multiple_of(16))
    }

    /// Launch of `what`, with `extra` bytes of shared memory on tensor cores.
    fn launch(&self, what: &str, tensor_cores: bool, extra: usize) -> Result<Launch> {
        let blocks = self.images * self.sizes.heads;
        let d = self.sizes.head_dim;
        Ok(if tensor_cores {
            Launch {
                file: "attention",
                kernel: format!("attention{what}_{}_{d}", self.kind.suffix()?),
                grid: [blocks, self.sizes.tokens.div_ceil(TILE)],
                threads: 128,
                shared: 2 * TILE * (d + 8) * 2 + extra,
            }
        } else {
            Launch {
                file: "attention_plain",
                kernel: format!("attention_plain{what}_{}", self.kind.suffix()?),
                grid: [blocks, self.sizes.tokens.div_ceil(PLAIN)],
                threads: 32 * PLAIN,
                shared: 0,
            }
        })
    }

    /// The arguments after the arrays.
    fn tail(&self, tensor_cores: bool) -> Result<Vec<Arg>> {
        let mut args = vec![int(self.sizes.tokens)?, int(self.sizes.heads)?];
        if !tensor_cores {
            args.push(int(self.sizes.head_dim)?);
        }
        args.push(Arg::F32(1.0 / (self.sizes.head_dim as f32).sqrt()));
        Ok(args)
    }
}

/// Attention over `qkv [B, N, 3·D]`.
pub fn forward(machine: &dyn Machine, qkv: View, sizes: &Sizes) -> Result<Attended> {
    let out = machine.alloc(qkv.kind, qkv.len / 3)?;
    let lse = machine.alloc(Kind::F32, Shape::new(sizes, qkv)?.rows())?;
    forward_into(machine, qkv, out.view, lse.view, sizes)?;
    Ok(Attended { out, lse })
}

/// The same into memory that is there; see [`Attended`].
pub fn forward_into(
    machine: &dyn Machine,
    qkv: View,
    out: View,
    lse: View,
    sizes: &Sizes,
) -> Result<()> {
    let shape = Shape::new(sizes, qkv)?;
    expect("attended values", out, qkv.len / 3)?;
    expect("sums of attention", lse, shape.rows())?;
    if out.kind != qkv.kind {
        bail!("attention: result of another type")
    }
    let tensor_cores = shape.on_tensor_cores(&[qkv, out]);
    let mut args = vec![qkv.into(), out.into(), lse.into()];
    args.extend(shape.tail(tensor_cores)?);
    // SAFETY: qkv has whole images, out a third of it, lse a value for each image, head and token.
    unsafe { machine.launch(&shape.launch("", tensor_cores, 0)?, &args) }
}

/// Gradient of `qkv` from that of the output.
pub fn backward(
    machine: &dyn Machine,
    qkv: View,
    attended: &Attended,
    grad: View,
    sizes: &Sizes,
) -> Result<Memory> {
    let shape = Shape::new(sizes, qkv)?;
    let (out, lse) = (attended.out.view, attended.lse.view);
    expect("attended values", out, qkv.len / 3)?;
    expect("gradient of attention", grad, qkv.len / 3)?;
    expect("sums of attention", lse, shape.rows())?;
    if grad.kind != qkv.kind || out.kind != qkv.kind {
        bail!("attention: gradient of another type")
    }
    let delta = machine.alloc(Kind::F32, shape.rows())?;
    let launch = Launch {
        kernel: format!("attention_delta_{}", qkv.kind.suffix()?),
        ..shape.launch("", false, 0)?
    };
    let args = [
        grad.into(),
        out.into(),
        delta.view.into(),
        int(sizes.tokens)?,
        int(sizes.heads)?,
        int(sizes.head_dim)?,
    ];
    // SAFETY: grad and out have whole images, delta a value for each image, head and token.
    unsafe { machine.launch(&launch, &args) }?;

    let dqkv = machine.alloc(qkv.kind, qkv.len)?;
    let tensor_cores = shape.on_tensor_cores(&[qkv, grad, dqkv.view]);
    let mut args = vec![
        qkv.into(),
        grad.into(),
        lse.into(),
        delta.view.into(),
        dqkv.view.into(),
    ];
    args.extend(shape.tail(tensor_cores)?);
    // SAFETY: as above; dqkv is as long as qkv, and each of the two writes its own columns of it.
    unsafe {
        machine.launch(
            &shape.launch("_keys_grad", tensor_cores, 2 * 32 * 4)?,
            &args,
        )
    }?;
    // SAFETY: as above.
    unsafe { machine.launch(&shape.launch("_queries_grad", tensor_cores, 0)?, &args) }?;
    Ok(dqkv)
}
