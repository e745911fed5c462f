//! A whole pre-norm transformer block, `x₁ = x + proj(attn(qkv(norm1(x))))`, `y = x₁ + fc2(gelu(fc1(norm2(x₁))))`, with its backward.

mod fused;

use std::sync::Arc;

use candle_core::{DType, Result, Tensor, bail};

use self::fused::Fused;
use super::attention::{self, Sizes};
use super::{Gelu, has_kernel, layer_norm, linear};

/// Weight and bias of a linear layer or a norm.
#[derive(Clone, Debug)]
pub struct Affine {
    /// `[out, in]`, or `[D]` of a norm.
    pub weight: Tensor,
    /// `[out]`, or `[D]`.
    pub bias: Tensor,
}

/// Parameters and settings of one block.
#[derive(Clone, Debug)]
pub struct BlockParams {
    /// Norm before attention.
    pub norm1: Affine,
    /// `[3·D, D]`: Q, K, V.
    pub qkv: Affine,
    /// `[D, D]`.
    pub proj: Affine,
    /// Norm before the MLP.
    pub norm2: Affine,
    /// `[H, D]`.
    pub fc1: Affine,
    /// `[D, H]`.
    pub fc2: Affine,
    /// Attention heads.
    pub heads: usize,
    /// The MLP's activation.
    pub gelu: Gelu,
    /// Added to the variance by both norms.
    pub eps: f64,
}

/// Factors on the two residual branches, one per image, `[B]` each: 0 or 1 / (1 - rate) for stochastic depth (Huang et al. 2016).
pub type PathFactors = [Vec<f32>; 2];

/// The block on `x [B, T, D]`; gives `[B, T, D]`.
///
/// Parameters' gradients reach [`crate::backward`] only, not [`Tensor::backward`].
pub fn block(x: &Tensor, params: &Arc<BlockParams>, paths: Option<&PathFactors>) -> Result<Tensor> {
    let paths = paths.map_or(&[][..], std::slice::from_ref);
    blocks(x, std::slice::from_ref(params), paths)
}

/// Blocks of one width after each other, where there are kernels as one operation; `paths` are the factors of every block, or none at all.
pub fn blocks(x: &Tensor, params: &[Arc<BlockParams>], paths: &[PathFactors]) -> Result<Tensor> {
    if !paths.is_empty() && paths.len() != params.len() {
        bail!(
            "blocks: {} factors for {} blocks",
            paths.len(),
            params.len()
        )
    }
    let Some(first) = params.first() else {
        return Ok(x.clone());
    };
    let in_f32 = |p: &Arc<BlockParams>| p.fc1.weight.dtype() == DType::F32;
    if !has_kernel(x) || !params.iter().all(in_f32) {
        let mut x = x.clone();
        for (i, params) in params.iter().enumerate() {
            x = block_reference(&x, params, paths.get(i))?;
        }
        return Ok(x);
    }
    let sizes = sizes(x.dims(), first.heads)?;
    for p in params {
        p.check(&sizes)?;
    }
    let few = |paths: &PathFactors| paths.iter().any(|p| p.len() != x.dims()[0]);
    if paths.iter().any(few) || params.iter().any(|p| p.heads != first.heads) {
        bail!("blocks: one factor per image and branch and equal heads are needed")
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return fused_on_gpu(x, params, (!paths.is_empty()).then_some(paths), sizes);
    }
    let fused = |x: &Tensor, blocks: std::ops::Range<usize>| {
        let paths = paths.get(blocks.clone()).unwrap_or(&[]);
        let params = &params[blocks];
        // One trained parameter stands for all: it connects the op to the graph where `x` alone would not.
        let anchor = params.iter().find_map(|p| p.trained().next());
        let anchor = anchor.unwrap_or(&params[0].norm1.weight);
        x.contiguous()?.apply_op2(anchor, Fused::new(params, paths))
    };
    // Of blocks that nothing is learnt in or before, nothing is kept.
    let frozen = |p: &&Arc<BlockParams>| p.trained().next().is_none();
    match params.iter().take_while(frozen).count() {
        n if 0 < n && n < params.len() && !x.track_op() => fused(&fused(x, 0..n)?, n..params.len()),
        _ => fused(x, 0..params.len()),
    }
}

#[cfg(feature = "cuda")]
fn fused_on_gpu(
    x: &Tensor,
    params: &[Arc<BlockParams>],
    paths: Option<&[PathFactors]>,
    sizes: Sizes,
) -> Result<Tensor> {
    let anchor = params.iter().find_map(|p| p.trained().next());
    let anchor = anchor.unwrap_or(&params[0].norm1.weight);
    let op =
        crate::gpu::blocks_op::FusedBlocks::new(params.to_vec(), paths.map(<[_]>::to_vec), sizes);
    x.contiguous()?.apply_op2(anchor, op)
}

/// The same from the single ops, in any type and on any device.
pub fn block_reference(
    x: &Tensor,
    params: &BlockParams,
    paths: Option<&PathFactors>,
) -> Result<Tensor> {
    let p = params;
    let qkv = p.qkv.linear(&p.norm1.norm(x, p.eps)?)?;
    let attended = super::attention(&qkv, p.heads)?;
    p.after_attention(x, &attended, paths)
}

/// The block's first token alone, `[B, T, D]` to `[B, 1, D]`. Whoever reads nothing but CLS needs keys and values of all
/// tokens in the last block, but one query and one token's MLP: a sixth of the block.
pub fn block_first_token(
    x: &Tensor,
    params: &BlockParams,
    paths: Option<&PathFactors>,
) -> Result<Tensor> {
    let p = params;
    let (b, tokens, d) = x.dims3()?;
    let head_dim = sizes(x.dims(), p.heads)?.dim / p.heads;
    let rows = |first: usize, n: usize| -> Result<Affine> {
        Ok(Affine {
            weight: p.qkv.weight.narrow(0, first * d, n * d)?,
            bias: p.qkv.bias.narrow(0, first * d, n * d)?,
        })
    };
    let normed = p.norm1.norm(x, p.eps)?;
    let q = rows(0, 1)?.linear(&normed.narrow(1, 0, 1)?)?;
    let q = q.reshape((b, p.heads, 1, head_dim))?;
    let kv = rows(1, 2)?.linear(&normed)?;
    let kv = kv
        .reshape((b, tokens, 2, p.heads, head_dim))?
        .permute((2, 0, 3, 1, 4))?; // [2, B, heads, T, d]
    let (k, v) = (kv.get(0)?.contiguous()?, kv.get(1)?.contiguous()?);
    let attended = attention::softmax_attention(&q, &k, &v)?.reshape((b, 1, d))?;
    p.after_attention(&x.narrow(1, 0, 1)?, &attended, paths)
}

impl Affine {
    /// The same values in another type, without gradient.
    pub(crate) fn to_dtype(&self, dtype: DType) -> Result<Self> {
        Ok(Self {
            weight: self.weight.detach().to_dtype(dtype)?,
            bias: self.bias.detach().to_dtype(dtype)?,
        })
    }

    pub(crate) fn linear(&self, x: &Tensor) -> Result<Tensor> {
        linear::linear(x, &self.weight, Some(&self.bias))
    }

    pub(crate) fn norm(&self, x: &Tensor, eps: f64) -> Result<Tensor> {
        layer_norm::layer_norm(x, &self.weight, &self.bias, eps)
    }
}

impl BlockParams {
    /// Projection, residuals and MLP.
    fn after_attention(
        &self,
        x: &Tensor,
        attended: &Tensor,
        paths: Option<&PathFactors>,
    ) -> Result<Tensor> {
        let factor = |branch: Tensor, i: usize| match paths {
            None => branch.to_dtype(x.dtype()),
            Some(paths) => {
                let branch = branch.to_dtype(x.dtype())?;
                let factors = Tensor::new(paths[i].as_slice(), x.device())?.to_dtype(x.dtype())?;
                branch.broadcast_mul(&factors.reshape(((), 1, 1))?)
            }
        };
        let x = (x + factor(self.proj.linear(attended)?, 0)?)?;
        let hidden = self.fc1.linear(&self.norm2.norm(&x, self.eps)?)?;
        let mlp = self.fc2.linear(&super::gelu(&hidden, self.gelu)?)?;
        &x + factor(mlp, 1)?
    }
}

/// Sizes of the attention inside a block on `x [B, T, D]`.
fn sizes(x: &[usize], heads: usize) -> Result<Sizes> {
    match x {
        &[b, tokens, dim] => Ok(attention::sizes(&[b, tokens, 3 * dim], heads)?.1),
        _ => bail!("block: x must be [B, T, D], got {x:?}"),
    }
}

impl BlockParams {
    pub(crate) fn affines(&self) -> [&Affine; 6] {
        [
            &self.norm1,
            &self.qkv,
            &self.proj,
            &self.norm2,
            &self.fc1,
            &self.fc2,
        ]
    }

    fn check(&self, sizes: &Sizes) -> Result<()> {
        let d = sizes.dim;
        let h = self.fc1.bias.elem_count();
        let wanted = [
            vec![d],
            vec![3 * d, d],
            vec![d, d],
            vec![d],
            vec![h, d],
            vec![d, h],
        ];
        for (affine, wanted) in self.affines().into_iter().zip(wanted) {
            if affine.weight.dims() != wanted || affine.bias.dims() != &wanted[..1] {
                bail!(
                    "block: weight {:?} and bias {:?} where {wanted:?} is needed for tokens of width {d}",
                    affine.weight.dims(),
                    affine.bias.dims()
                )
            }
        }
        Ok(())
    }

    /// Parameters that a gradient is wanted of.
    pub(crate) fn trained(&self) -> impl Iterator<Item = &Tensor> {
        let tensors = self
            .affines()
            .into_iter()
            .flat_map(|a| [&a.weight, &a.bias]);
        tensors.filter(|tensor| tensor.track_op())
    }
}

#[cfg(test)]
mod tests;
