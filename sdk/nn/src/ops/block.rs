//! A whole pre-norm transformer block, `x₁ = x + proj(attn(qkv(norm1(x))))`, `y = x₁ + fc2(gelu(fc1(norm2(x₁))))`, with its backward.
//!
//! As one op it keeps 9 values per channel and token for the backward (`qkv`, the attended values, `x₁`, the MLP's hidden ones) where
//! the separate ops keep 18, works in buffers that are used again, and adds residuals and parameter gradients where they are
//! computed. Norms and GELU are computed again in the backward: a pass over memory is dearer than their arithmetic.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, D, Layout, Result, Shape, Tensor, bail};
use faer::Accum;
use rayon::prelude::*;

use super::attention::{self, Sizes};
use super::product::{product_parallel, rows, rows_mut};
use super::scratch::{Scratch, scratch};
use super::{Gelu, Values, has_kernel, layer_norm, linear, slice};
use crate::grads::accumulate;

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
    if !has_kernel(x) {
        return block_reference(x, params, paths);
    }
    let sizes = sizes(x.dims(), params.heads)?;
    params.check(&sizes)?;
    if paths.is_some_and(|paths| paths.iter().any(|p| p.len() != x.dims()[0])) {
        bail!("block: one factor per image and branch is needed")
    }
    let op = Fused {
        params: params.clone(),
        paths: paths.cloned(),
        saved: Mutex::new(None),
    };
    // One trained parameter stands for all: it connects the op to the graph where `x` alone would not.
    let anchor = params.trained().next().unwrap_or(&params.norm1.weight);
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
    let scores = (q.matmul(&k.t()?.contiguous()?)? / (head_dim as f64).sqrt())?; // [B, heads, 1, T]
    let exp = scores
        .broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?
        .exp()?;
    let probs = exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?;
    let attended = probs.matmul(&v)?.reshape((b, 1, d))?;
    p.after_attention(&x.narrow(1, 0, 1)?, &attended, paths)
}

impl Affine {
    fn linear(&self, x: &Tensor) -> Result<Tensor> {
        linear::linear(x, &self.weight, Some(&self.bias))
    }

    fn norm(&self, x: &Tensor, eps: f64) -> Result<Tensor> {
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
            None => Ok(branch),
            Some(paths) => {
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

struct Fused {
    params: Arc<BlockParams>,
    paths: Option<PathFactors>,
    saved: Mutex<Option<Saved>>,
}

/// What the backward reads, of `M = B·T` tokens.
#[derive(Debug)]
struct Saved {
    qkv: Scratch,      // [M, 3·D]
    attended: Scratch, // [M, D]
    x1: Scratch,       // [M, D]
    hidden: Scratch,   // [M, H], before GELU
}

impl BlockParams {
    fn affines(&self) -> [&Affine; 6] {
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
    fn trained(&self) -> impl Iterator<Item = &Tensor> {
        let tensors = self
            .affines()
            .into_iter()
            .flat_map(|a| [&a.weight, &a.bias]);
        tensors.filter(|tensor| tensor.track_op())
    }
}

/// Values of an [`Affine`] whose product maps `k` to `n` channels.
struct Layer<'a> {
    weight: Values<'a>,
    bias: Values<'a>,
    tensors: &'a Affine,
}

impl<'a> Layer<'a> {
    fn of(affine: &'a Affine) -> Result<Self> {
        Ok(Self {
            weight: Values::of(&affine.weight)?,
            bias: Values::of(&affine.bias)?,
            tensors: affine,
        })
    }

    /// Channels in and out.
    fn sizes(&self) -> (usize, usize) {
        let n = self.bias.len();
        (self.weight.len() / n, n)
    }

    /// `y = x Wᵀ + b`.
    fn linear(&self, y: &mut [f32], x: &[f32]) {
        linear::fill_rows(y, &self.bias);
        self.add_product(y, x);
    }

    /// `y = residual + f (x Wᵀ + b)`, with a factor `f` for every `tokens` rows.
    fn linear_onto(
        &self,
        y: &mut [f32],
        residual: &[f32],
        x: &[f32],
        paths: Option<(&[f32], usize)>,
    ) {
        let Some((factors, tokens)) = paths else {
            linear::fill_residual(y, residual, &self.bias);
            return self.add_product(y, x);
        };
        self.linear(y, x);
        let image = tokens * self.bias.len();
        y.par_chunks_mut(image)
            .zip(residual.par_chunks(image).zip(factors))
            .for_each(|(y, (residual, factor))| {
                y.iter_mut()
                    .zip(residual)
                    .for_each(|(y, r)| *y = r + factor * *y);
            });
    }

    fn add_product(&self, y: &mut [f32], x: &[f32]) {
        let (k, n) = self.sizes();
        let m = x.len() / k;
        let weight = rows(&self.weight, n, k, k).transpose();
        product_parallel(rows_mut(y, m, n, n), Accum::Add, rows(x, m, k, k), weight);
    }

    /// `dx = g W`.
    fn grad_input(&self, dx: &mut [f32], g: &[f32]) {
        let (k, n) = self.sizes();
        let m = g.len() / n;
        let weight = rows(&self.weight, n, k, k);
        product_parallel(
            rows_mut(dx, m, k, k),
            Accum::Replace,
            rows(g, m, n, n),
            weight,
        );
    }

    /// Adds `gᵀ x` and the sums of `g` to the parameters' gradients.
    fn grad_params(&self, x: &[f32], g: &[f32]) -> Result<()> {
        let (k, n) = self.sizes();
        let m = x.len() / k;
        accumulate(&self.tensors.weight, |dw, first| {
            let accum = if first { Accum::Replace } else { Accum::Add };
            let g = rows(g, m, n, n).transpose();
            product_parallel(rows_mut(dw, n, k, k), accum, g, rows(x, m, k, k));
        })?;
        accumulate(&self.tensors.bias, |db, _| {
            add(db, &linear::column_sums(g, n))
        })
    }

    fn norm(&self, y: &mut [f32], x: &[f32], eps: f32) {
        layer_norm::forward_into(y, x, &self.weight, &self.bias, eps);
    }

    /// Adds the gradient of `x` to `dx` and those of the parameters to theirs.
    fn norm_backward(&self, dx: &mut [f32], x: &[f32], g: &[f32], eps: f32) -> Result<()> {
        let sums = layer_norm::backward_onto(dx, x, &self.weight, g, eps);
        let (dw, db) = sums.split_at(self.weight.len());
        accumulate(&self.tensors.weight, |sum, _| add(sum, dw))?;
        accumulate(&self.tensors.bias, |sum, _| add(sum, db))
    }
}

fn add(sum: &mut [f32], values: &[f32]) {
    sum.iter_mut().zip(values).for_each(|(s, v)| *s += v);
}

impl Fused {
    fn paths(&self, branch: usize, sizes: &Sizes) -> Option<(&[f32], usize)> {
        self.paths
            .as_ref()
            .map(|paths| (paths[branch].as_slice(), sizes.tokens))
    }

    /// Everything up to the MLP's hidden values; `normed [M, D]` is for work.
    fn to_hidden(&self, x: &[f32], sizes: &Sizes, normed: &mut [f32]) -> Result<Saved> {
        let p = &*self.params;
        let eps = p.eps as f32;
        let mut qkv = scratch(3 * x.len());
        Layer::of(&p.norm1)?.norm(normed, x, eps);
        Layer::of(&p.qkv)?.linear(&mut qkv, normed);
        let mut attended = scratch(x.len());
        sizes.forward_into(&mut attended, &qkv);
        let mut x1 = scratch(x.len());
        Layer::of(&p.proj)?.linear_onto(&mut x1, x, &attended, self.paths(0, sizes));
        let fc1 = Layer::of(&p.fc1)?;
        let mut hidden = scratch(x.len() / sizes.dim * fc1.bias.len());
        Layer::of(&p.norm2)?.norm(normed, &x1, eps);
        fc1.linear(&mut hidden, normed);
        Ok(Saved {
            qkv,
            attended,
            x1,
            hidden,
        })
    }

    fn forward(&self, x: &[f32], sizes: &Sizes) -> Result<Vec<f32>> {
        let mut normed = scratch(x.len());
        let saved = self.to_hidden(x, sizes, &mut normed)?;
        drop(normed);
        let mut active = scratch(saved.hidden.len());
        self.params.gelu.forward_into(&mut active, &saved.hidden);
        let mut y = vec![0.0; x.len()];
        Layer::of(&self.params.fc2)?.linear_onto(&mut y, &saved.x1, &active, self.paths(1, sizes));
        if self.params.trained().next().is_some() {
            *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = Some(saved);
        }
        Ok(y)
    }

    /// The gradient of `x` for the gradient `g` of the output.
    fn backward(&self, x: &[f32], g: &[f32], sizes: &Sizes) -> Result<Vec<f32>> {
        let p = &*self.params;
        let eps = p.eps as f32;
        let mut normed = scratch(x.len());
        let saved = self
            .saved
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Saved {
            qkv,
            attended,
            x1,
            mut hidden,
        } = match saved {
            Some(saved) => saved,
            // a second backward pass over one graph
            None => self.to_hidden(x, sizes, &mut normed)?,
        };
        let mut d_normed = scratch(x.len());
        let mut dx = g.to_vec();

        let mut d_hidden = scratch(hidden.len());
        {
            let fc2 = Layer::of(&p.fc2)?;
            let scaled = self.scaled(1, &dx, sizes);
            let d_branch = scaled.as_deref().unwrap_or(&dx);
            fc2.grad_input(&mut d_hidden, d_branch);
            p.gelu.value_and_grad(&mut hidden, &mut d_hidden);
            fc2.grad_params(&hidden, d_branch)?;
        }
        let (norm2, fc1) = (Layer::of(&p.norm2)?, Layer::of(&p.fc1)?);
        norm2.norm(&mut normed, &x1, eps);
        fc1.grad_params(&normed, &d_hidden)?;
        fc1.grad_input(&mut d_normed, &d_hidden);
        norm2.norm_backward(&mut dx, &x1, &d_normed, eps)?;
        drop((hidden, d_hidden));

        let mut d_qkv = scratch(qkv.len());
        {
            let proj = Layer::of(&p.proj)?;
            let scaled = self.scaled(0, &dx, sizes);
            let d_branch = scaled.as_deref().unwrap_or(&dx);
            proj.grad_params(&attended, d_branch)?;
            let d_attended = &mut d_normed;
            proj.grad_input(d_attended, d_branch);
            sizes.backward_into(&mut d_qkv, &qkv, d_attended);
        }
        let (norm1, qkv) = (Layer::of(&p.norm1)?, Layer::of(&p.qkv)?);
        norm1.norm(&mut normed, x, eps);
        qkv.grad_params(&normed, &d_qkv)?;
        qkv.grad_input(&mut d_normed, &d_qkv);
        norm1.norm_backward(&mut dx, x, &d_normed, eps)?;
        Ok(dx)
    }

    /// `g` times a branch's factors, where it has any.
    fn scaled(&self, branch: usize, g: &[f32], sizes: &Sizes) -> Option<Scratch> {
        let (factors, tokens) = self.paths(branch, sizes)?;
        let mut out = scratch(g.len());
        let image = tokens * sizes.dim;
        out.par_chunks_mut(image)
            .zip(g.par_chunks(image).zip(factors))
            .for_each(|(out, (g, factor))| {
                out.iter_mut().zip(g).for_each(|(o, g)| *o = factor * g);
            });
        Some(out)
    }
}

impl CustomOp2 for Fused {
    fn name(&self) -> &'static str {
        "transformer_block"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        _anchor: &CpuStorage,
        _al: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let sizes = sizes(xl.dims(), self.params.heads)?;
        let y = self.forward(slice(x, xl)?, &sizes)?;
        Ok((CpuStorage::F32(y), xl.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        _anchor: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let sizes = sizes(x.dims(), self.params.heads)?;
        let grad = grad.contiguous()?;
        let dx = self.backward(&Values::of(x)?, &Values::of(&grad)?, &sizes)?;
        Ok((Some(Tensor::from_vec(dx, x.shape(), x.device())?), None))
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{kernel_equals_reference, random};
    use super::*;

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
