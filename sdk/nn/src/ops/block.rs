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
    if !has_kernel(x) || params.fc1.weight.dtype() != DType::F32 {
        return block_reference(x, params, paths);
    }
    let sizes = sizes(x.dims(), params.heads)?;
    params.check(&sizes)?;
    if paths.is_some_and(|paths| paths.iter().any(|p| p.len() != x.dims()[0])) {
        bail!("block: one factor per image and branch is needed")
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return fused_on_gpu(
            x,
            std::slice::from_ref(params),
            paths.map(std::slice::from_ref),
            sizes,
        );
    }
    let op = Fused::new(params.clone(), paths.cloned());
    // One trained parameter stands for all: it connects the op to the graph where `x` alone would not.
    let anchor = params.trained().next().unwrap_or(&params.norm1.weight);
    x.contiguous()?.apply_op2(anchor, op)
}

/// Blocks of one width after each other; `paths` are the factors of every block, or none at all. On a GPU this is one operation.
pub fn blocks(x: &Tensor, params: &[Arc<BlockParams>], paths: &[PathFactors]) -> Result<Tensor> {
    if !paths.is_empty() && paths.len() != params.len() {
        bail!(
            "blocks: {} factors for {} blocks",
            paths.len(),
            params.len()
        )
    }
    #[cfg(feature = "cuda")]
    if let (true, Some(first)) = (has_kernel(x) && x.device().is_cuda(), params.first()) {
        let sizes = sizes(x.dims(), first.heads)?;
        for p in params {
            p.check(&sizes)?;
        }
        let few = |paths: &PathFactors| paths.iter().any(|p| p.len() != x.dims()[0]);
        if paths.iter().any(few) || params.iter().any(|p| p.heads != first.heads) {
            bail!("blocks: one factor per image and branch and equal heads are needed")
        }
        return fused_on_gpu(x, params, (!paths.is_empty()).then_some(paths), sizes);
    }
    let mut x = x.clone();
    for (i, params) in params.iter().enumerate() {
        x = block(&x, params, paths.get(i))?;
    }
    Ok(x)
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
mod tests {
    use candle_core::Var;

    use super::super::check::{kernel_equals_reference, random};
    use super::*;
    use crate::compute::{Precision, autocast};

    /// `x`, then the parameters in the order of [`BlockParams::affines`], weight before bias.
    fn args(b: usize, t: usize, d: usize, h: usize) -> Result<Vec<Tensor>> {
        let shapes = [
            vec![b, t, d],
            vec![d],
            vec![d],
            vec![3 * d, d],
            vec![3 * d],
            vec![d, d],
            vec![d],
            vec![d],
            vec![d],
            vec![h, d],
            vec![h],
            vec![d, h],
            vec![d],
        ];
        let shapes = shapes.iter().enumerate();
        shapes
            .map(|(i, shape)| {
                random(shape, i as u64)? / (*shape.last().unwrap_or(&1) as f64).powf(0.25)
            })
            .collect()
    }

    fn params(args: &[Tensor], heads: usize, gelu: Gelu) -> Arc<BlockParams> {
        let affine = |i: usize| Affine {
            weight: args[1 + 2 * i].clone(),
            bias: args[2 + 2 * i].clone(),
        };
        Arc::new(BlockParams {
            norm1: affine(0),
            qkv: affine(1),
            proj: affine(2),
            norm2: affine(3),
            fc1: affine(4),
            fc2: affine(5),
            heads,
            gelu,
            eps: 1e-6,
        })
    }

    #[test]
    fn equals_the_single_ops_in_f64() -> Result<()> {
        let paths = [vec![0.0, 1.25, 1.25], vec![2.0, 0.0, 2.0]];
        for (b, t, d, h, heads) in [(1, 1, 4, 8, 1), (3, 70, 48, 192, 3), (3, 5, 12, 20, 2)] {
            for gelu in [Gelu::Tanh, Gelu::Erf] {
                for paths in [None, (b == 3).then_some(&paths)] {
                    kernel_equals_reference(
                        &|a| block(&a[0], &params(a, heads, gelu), paths),
                        &|a| block_reference(&a[0], &params(a, heads, gelu), paths),
                        &args(b, t, d, h)?,
                        2e-5,
                    )?;
                }
            }
        }
        Ok(())
    }

    #[test]
    fn in_bf16_it_is_the_block_but_for_rounding() -> Result<()> {
        let args = args(3, 37, 48, 96)?;
        let run = |precision| -> Result<Vec<Tensor>> {
            let vars: Vec<Var> = args.iter().map(Var::from_tensor).collect::<Result<_>>()?;
            let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
            let params = params(&tensors, 3, Gelu::Tanh);
            let y = autocast(precision, || block(&tensors[0], &params, None))?;
            let grads = crate::backward(&y.sqr()?.sum_all()?)?;
            let grads = vars
                .iter()
                .map(|v| grads.get(v).expect("a gradient").clone());
            Ok([y].into_iter().chain(grads).collect())
        };
        let pairs = run(Precision::Bf16)?.into_iter().zip(run(Precision::F32)?);
        for (i, (got, want)) in pairs.enumerate() {
            let largest = |t: &Tensor| t.abs()?.max_all()?.to_scalar::<f32>();
            let off = largest(&(&got - &want)?)? / largest(&want)?;
            assert!((1e-5..2e-2).contains(&off), "output {i}: {off:e}");
        }
        Ok(())
    }

    #[test]
    fn the_first_token_alone_is_the_blocks() -> Result<()> {
        let paths = [vec![0.0, 1.25, 1.25], vec![2.0, 0.0, 2.0]];
        for paths in [None, Some(&paths)] {
            kernel_equals_reference(
                &|a| block_first_token(&a[0], &params(a, 3, Gelu::Tanh), paths),
                &|a| block_reference(&a[0], &params(a, 3, Gelu::Tanh), paths)?.narrow(1, 0, 1),
                &args(3, 37, 48, 96)?,
                2e-5,
            )?;
        }
        Ok(())
    }

    #[test]
    fn weights_used_twice_sum_their_gradients_and_a_graph_can_be_walked_again() -> Result<()> {
        let args = args(2, 6, 12, 24)?;
        let twice = |f: &dyn Fn(&Tensor) -> Result<Tensor>, x: &Tensor| f(&f(x)?);
        kernel_equals_reference(
            &|a| twice(&|x| block(x, &params(a, 2, Gelu::Tanh), None), &a[0]),
            &|a| {
                twice(
                    &|x| block_reference(x, &params(a, 2, Gelu::Tanh), None),
                    &a[0],
                )
            },
            &args,
            5e-5,
        )?;
        let weight = candle_core::Var::from_tensor(&args[3])?;
        let mut all = args.clone();
        all[3] = weight.as_tensor().clone();
        let loss = block(&all[0], &params(&all, 2, Gelu::Tanh), None)?
            .sqr()?
            .sum_all()?;
        let walk = || -> Result<Vec<Vec<f32>>> {
            crate::backward(&loss)?
                .get(&weight)
                .expect("a gradient")
                .to_vec2()
        };
        assert_eq!(walk()?, walk()?);
        let error = loss
            .backward()
            .expect_err("parameters need our own backward pass");
        assert!(
            error.to_string().contains("ssl_edge_nn::backward"),
            "{error}"
        );
        Ok(())
    }

    #[test]
    fn parameters_that_do_not_fit_are_errors() -> Result<()> {
        let mut wrong = args(1, 2, 8, 16)?;
        wrong[9] = random(&[16, 9], 1)?;
        assert!(block(&wrong[0], &params(&wrong, 2, Gelu::Tanh), None).is_err());
        let right = args(1, 2, 8, 16)?;
        let few = [vec![1.0], vec![]];
        assert!(block(&right[0], &params(&right, 2, Gelu::Tanh), Some(&few)).is_err());
        Ok(())
    }
}
