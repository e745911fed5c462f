//! The CPU kernel of blocks after each other: forward and backward by hand, in buffers that are used again.
//!
//! It keeps 10 values per channel and token and block for the backward (the input, `qkv`, the attended values, `x₁`, the MLP's hidden ones) where the
//! separate ops keep 18, and adds residuals and parameter gradients where they are computed. Norms and GELU are computed again in
//! the backward: a pass over memory is dearer than their arithmetic. Blocks are one operation, because candle adds the gradient of every
//! operation's input to zeros.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{Affine, BlockParams, PathFactors, sizes};
use crate::compute::{Precision, cast_precision};
use crate::grads::accumulate;
use crate::ops::attention::Sizes;
use crate::ops::product::{Accum, product_parallel, rows, rows_mut};
use crate::ops::scratch::{Scratch, scratch};
use crate::ops::{Values, layer_norm, linear, slice};

pub(super) struct Fused {
    params: Vec<Arc<BlockParams>>,
    /// Of every block, or of none.
    paths: Vec<PathFactors>,
    /// Of the linear layers' products, in the backward too.
    precision: Precision,
    saved: Mutex<Option<Vec<Saved>>>,
}

/// One of the blocks.
struct One<'a> {
    params: &'a BlockParams,
    paths: Option<&'a PathFactors>,
    precision: Precision,
}

/// What the backward of a block reads, of `M = B·T` tokens.
#[derive(Debug)]
struct Saved {
    /// `[M, D]`, the block's input; none is the operation's.
    x: Option<Scratch>,
    qkv: Scratch,      // [M, 3·D]
    attended: Scratch, // [M, D]
    x1: Scratch,       // [M, D]
    hidden: Scratch,   // [M, H], before GELU
}

/// Values of an [`Affine`] whose product maps `k` to `n` channels.
struct Layer<'a> {
    weight: Values<'a>,
    bias: Values<'a>,
    tensors: &'a Affine,
    precision: Precision,
}

impl<'a> Layer<'a> {
    /// Channels in and out.
    fn sizes(&self) -> (usize, usize) {
        let n = self.bias.len();
        (self.weight.len() / n, n)
    }

    /// `y = x Wᵀ + b`.
    fn linear(&self, y: &mut [f32], x: &[f32]) {
        self.product(y, Accum::Bias(&self.bias), x);
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
            return self.product(y, Accum::Add, x);
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

    fn product(&self, y: &mut [f32], accum: Accum<'_>, x: &[f32]) {
        let (k, n) = self.sizes();
        let m = x.len() / k;
        let weight = rows(&self.weight, n, k, k).transpose();
        product_parallel(
            rows_mut(y, m, n, n),
            accum,
            rows(x, m, k, k),
            weight,
            self.precision,
        );
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
            self.precision,
        );
    }

    /// Adds `gᵀ x` and the sums of `g` to the parameters' gradients.
    fn grad_params(&self, x: &[f32], g: &[f32]) -> Result<()> {
        let (k, n) = self.sizes();
        let m = x.len() / k;
        accumulate(&self.tensors.weight, |dw, first| {
            let accum = if first { Accum::Replace } else { Accum::Add };
            let g = rows(g, m, n, n).transpose();
            product_parallel(
                rows_mut(dw, n, k, k),
                accum,
                g,
                rows(x, m, k, k),
                self.precision,
            );
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

impl One<'_> {
    fn layer<'a>(&self, affine: &'a Affine) -> Result<Layer<'a>> {
        Ok(Layer {
            weight: Values::of(&affine.weight)?,
            bias: Values::of(&affine.bias)?,
            tensors: affine,
            precision: self.precision,
        })
    }

    fn paths(&self, branch: usize, sizes: &Sizes) -> Option<(&[f32], usize)> {
        self.paths
            .map(|paths| (paths[branch].as_slice(), sizes.tokens))
    }

    /// Everything up to the MLP's hidden values.
    fn to_hidden(&self, x: &[f32], sizes: &Sizes) -> Result<Saved> {
        let p = self.params;
        let eps = p.eps as f32;
        let mut normed = scratch(x.len());
        let mut qkv = scratch(3 * x.len());
        self.layer(&p.norm1)?.norm(&mut normed, x, eps);
        self.layer(&p.qkv)?.linear(&mut qkv, &normed);
        let mut attended = scratch(x.len());
        sizes.forward_into(&mut attended, &qkv);
        let mut x1 = scratch(x.len());
        self.layer(&p.proj)?
            .linear_onto(&mut x1, x, &attended, self.paths(0, sizes));
        let fc1 = self.layer(&p.fc1)?;
        let mut hidden = scratch(x.len() / sizes.dim * fc1.bias.len());
        self.layer(&p.norm2)?.norm(&mut normed, &x1, eps);
        fc1.linear(&mut hidden, &normed);
        Ok(Saved {
            x: None,
            qkv,
            attended,
            x1,
            hidden,
        })
    }

    /// The rest.
    fn output(&self, y: &mut [f32], saved: &Saved, sizes: &Sizes) -> Result<()> {
        let mut active = scratch(saved.hidden.len());
        self.params.gelu.forward_into(&mut active, &saved.hidden);
        let fc2 = self.layer(&self.params.fc2)?;
        fc2.linear_onto(y, &saved.x1, &active, self.paths(1, sizes));
        Ok(())
    }

    /// Makes the gradient of the output that of `x`.
    fn backward(&self, dx: &mut [f32], x: &[f32], saved: Saved, sizes: &Sizes) -> Result<()> {
        let p = self.params;
        let eps = p.eps as f32;
        let Saved {
            qkv,
            attended,
            x1,
            mut hidden,
            ..
        } = saved;
        let (mut normed, mut d_normed) = (scratch(x.len()), scratch(x.len()));

        let mut d_hidden = scratch(hidden.len());
        {
            let fc2 = self.layer(&p.fc2)?;
            let scaled = self.scaled(1, dx, sizes);
            let d_branch = scaled.as_deref().unwrap_or(dx);
            fc2.grad_input(&mut d_hidden, d_branch);
            p.gelu.value_and_grad(&mut hidden, &mut d_hidden);
            fc2.grad_params(&hidden, d_branch)?;
        }
        let (norm2, fc1) = (self.layer(&p.norm2)?, self.layer(&p.fc1)?);
        norm2.norm(&mut normed, &x1, eps);
        fc1.grad_params(&normed, &d_hidden)?;
        fc1.grad_input(&mut d_normed, &d_hidden);
        norm2.norm_backward(dx, &x1, &d_normed, eps)?;
        drop((hidden, d_hidden));

        let mut d_qkv = scratch(qkv.len());
        {
            let proj = self.layer(&p.proj)?;
            let scaled = self.scaled(0, dx, sizes);
            let d_branch = scaled.as_deref().unwrap_or(dx);
            proj.grad_params(&attended, d_branch)?;
            let d_attended = &mut d_normed;
            proj.grad_input(d_attended, d_branch);
            sizes.backward_into(&mut d_qkv, &qkv, d_attended);
        }
        let (norm1, qkv) = (self.layer(&p.norm1)?, self.layer(&p.qkv)?);
        norm1.norm(&mut normed, x, eps);
        qkv.grad_params(&normed, &d_qkv)?;
        qkv.grad_input(&mut d_normed, &d_qkv);
        norm1.norm_backward(dx, x, &d_normed, eps)
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

impl Fused {
    /// `paths` are the factors of every block, or none at all.
    pub(super) fn new(params: &[Arc<BlockParams>], paths: &[PathFactors]) -> Self {
        Self {
            params: params.to_vec(),
            paths: paths.to_vec(),
            precision: cast_precision(),
            saved: Mutex::new(None),
        }
    }

    fn block(&self, i: usize) -> One<'_> {
        One {
            params: &self.params[i],
            paths: self.paths.get(i),
            precision: self.precision,
        }
    }

    /// What the backward of every block reads, of the last alone unless all is to be kept. The output goes to `y`, where it is wanted.
    fn to_saved(
        &self,
        x: &[f32],
        y: Option<&mut [f32]>,
        sizes: &Sizes,
        keep: bool,
    ) -> Result<Vec<Saved>> {
        let last = self.params.len() - 1;
        let mut all = Vec::new();
        let mut input: Option<Scratch> = None;
        for i in 0..last {
            let block = self.block(i);
            let mut saved = block.to_hidden(input.as_deref().unwrap_or(x), sizes)?;
            let mut output = scratch(x.len());
            block.output(&mut output, &saved, sizes)?;
            saved.x = input.replace(output);
            if keep {
                all.push(saved);
            }
        }
        let block = self.block(last);
        let mut saved = block.to_hidden(input.as_deref().unwrap_or(x), sizes)?;
        if let Some(y) = y {
            block.output(y, &saved, sizes)?;
        }
        saved.x = input;
        all.push(saved);
        Ok(all)
    }

    fn is_trained(&self) -> bool {
        self.params.iter().any(|p| p.trained().next().is_some())
    }

    fn forward(&self, x: &[f32], sizes: &Sizes) -> Result<Vec<f32>> {
        let mut y = vec![0.0; x.len()];
        let keep = self.is_trained();
        let saved = self.to_saved(x, Some(&mut y), sizes, keep)?;
        if keep {
            *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = Some(saved);
        }
        Ok(y)
    }

    /// The gradient of `x` for the gradient `g` of the output.
    fn backward(&self, x: &[f32], g: &[f32], sizes: &Sizes) -> Result<Vec<f32>> {
        let saved = self
            .saved
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let saved = match saved {
            Some(saved) => saved,
            // a second backward pass over one graph
            None => self.to_saved(x, None, sizes, true)?,
        };
        let mut dx = g.to_vec();
        for (i, mut saved) in saved.into_iter().enumerate().rev() {
            let input = saved.x.take();
            let x = input.as_deref().unwrap_or(x);
            self.block(i).backward(&mut dx, x, saved, sizes)?;
        }
        Ok(dx)
    }
}

impl CustomOp2 for Fused {
    fn name(&self) -> &'static str {
        "transformer_blocks"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        _anchor: &CpuStorage,
        _al: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let sizes = sizes(xl.dims(), self.params[0].heads)?;
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
        let sizes = sizes(x.dims(), self.params[0].heads)?;
        let grad = grad.contiguous()?;
        let dx = self.backward(&Values::of(x)?, &Values::of(&grad)?, &sizes)?;
        Ok((Some(Tensor::from_vec(dx, x.shape(), x.device())?), None))
    }
}
