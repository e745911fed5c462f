//! Layer normalisation, <https://arxiv.org/abs/1607.06450>: `(x - mean) / √(var + eps) * weight + bias` over the last dimension.

use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::simd::{self, vectorised};
use super::{OneByOne, ROWS_PER_SUM, has_kernel, slice, with_slice};

struct LayerNorm {
    eps: f32,
}

/// Normalises `x [.., D]` over its last dimension; `weight [D]`, `bias [D]`.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    if !has_kernel(x) {
        return layer_norm_reference(x, weight, bias, eps);
    }
    let op = LayerNorm { eps: eps as f32 };
    x.contiguous()?
        .apply_op3(&weight.contiguous()?, &bias.contiguous()?, op)
}

/// The same in plain tensors.
pub fn layer_norm_reference(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let var = centred.sqr()?.mean_keepdim(D::Minus1)?;
    centred
        .broadcast_div(&(var + eps)?.sqrt()?)?
        .broadcast_mul(weight)?
        .broadcast_add(bias)
}

#[inline(always)]
fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = simd::sum(x) / n;
    let mut lanes = [0f32; 16];
    let (chunks, rest) = x.as_chunks::<16>();
    for c in chunks {
        for i in 0..16 {
            lanes[i] += (c[i] - mean) * (c[i] - mean);
        }
    }
    let tail: f32 = rest.iter().map(|v| (v - mean) * (v - mean)).sum();
    let var = (simd::sum(&lanes) + tail) / n;
    (mean, 1.0 / (var + eps).sqrt())
}

vectorised! {
    fn forward_rows(x: &[f32], w: &[f32], b: &[f32], y: &mut [f32], eps: f32) {
        let d = w.len();
        for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
            let (mean, rstd) = moments(x, eps);
            for i in 0..d {
                y[i] = (x[i] - mean) * rstd * w[i] + b[i];
            }
        }
    }
}

vectorised! {
    /// Rows of `x [M, D]` normalised into rows of `y` that are `stride` apart.
    pub(crate) fn norm_rows(x: &[f32], w: &[f32], b: &[f32], y: &mut [f32], stride: usize, eps: f32) {
        let d = w.len();
        for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(stride)) {
            let (mean, rstd) = moments(x, eps);
            for i in 0..d {
                y[i] = (x[i] - mean) * rstd * w[i] + b[i];
            }
        }
    }
}

vectorised! {
    /// With `x̂ = (x - mean) rstd` and `h = g w`: `dx += rstd (h - mean(h) - x̂ mean(h x̂))`. Returns the block's sums `[dw | db]`.
    fn backward_rows(x: &[f32], w: &[f32], g: &[f32], dx: &mut [f32], eps: f32) -> Vec<f32> {
        let d = w.len();
        let mut sums = vec![0f32; 2 * d];
        let (dw, db) = sums.split_at_mut(d);
        let (mut normed, mut h) = (vec![0f32; d], vec![0f32; d]);
        let rows = x
        .chunks_exact(d)
        .zip(g.chunks_exact(d))
        .zip(dx.chunks_exact_mut(d));
        for ((x, g), dx) in rows {
            let (mean, rstd) = moments(x, eps);
            for i in 0..d {
                normed[i] = (x[i] - mean) * rstd;
                h[i] = g[i] * w[i];
                dw[i] += g[i] * normed[i];
                db[i] += g[i];
            }
            let mean_h = simd::sum(&h) / d as f32;
            let mean_hx = simd::dot(&h, &normed) / d as f32;
            for i in 0..d {
                dx[i] += rstd * (h[i] - mean_h - normed[i] * mean_hx);
            }
        }
        sums
    }
}

fn check(x: &Layout, w: &Layout, b: &Layout) -> Result<()> {
    let d = w.shape().elem_count();
    if d == 0 || x.dims().last() != Some(&d) || b.shape().elem_count() != d {
        bail!(
            "layer_norm: x {:?} does not fit weight {:?}",
            x.dims(),
            w.dims()
        )
    }
    Ok(())
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
        b: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        check(xl, wl, bl)?;
        let (x, w, b) = (slice(x, xl)?, slice(w, wl)?, slice(b, bl)?);
        let mut y = vec![0f32; x.len()];
        forward_into(&mut y, x, w, b, self.eps);
        Ok((CpuStorage::F32(y), xl.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        xl: &Layout,
        w: &candle_core::CudaStorage,
        wl: &Layout,
        b: &candle_core::CudaStorage,
        bl: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        check(xl, wl, bl)?;
        crate::gpu::ops::layer_norm((x, xl), (w, wl), (b, bl), self.eps)
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            let [dx, dw, db] = crate::gpu::ops::layer_norm_grad(x, w, b, grad, self.eps)?;
            return Ok((Some(dx), Some(dw), Some(db)));
        }
        debug_assert_eq!(b.dims(), w.dims());
        let d = w.elem_count();
        let mut dx = vec![0f32; x.elem_count()];
        let sums = with_slice(x, |x| {
            with_slice(w, |w| {
                with_slice(grad, |g| Ok(backward_onto(&mut dx, x, w, g, self.eps)))
            })
        })?;
        let dev = x.device();
        Ok((
            Some(Tensor::from_vec(dx, x.shape(), dev)?),
            Some(Tensor::from_slice(&sums[..d], d, dev)?),
            Some(Tensor::from_slice(&sums[d..], d, dev)?),
        ))
    }
}

/// The norm of every row of `x`.
pub(super) fn forward_into(y: &mut [f32], x: &[f32], w: &[f32], b: &[f32], eps: f32) {
    let block = w.len() * ROWS_PER_SUM;
    y.par_chunks_mut(block)
        .zip(x.par_chunks(block))
        .one_by_one()
        .for_each(|(y, x)| forward_rows(x, w, b, y, eps));
}

/// Adds the gradient of `x` to `dx`; returns those of weight and bias, `[dw | db]`.
pub(super) fn backward_onto(dx: &mut [f32], x: &[f32], w: &[f32], g: &[f32], eps: f32) -> Vec<f32> {
    let d = w.len();
    let block = d * ROWS_PER_SUM;
    let partial: Vec<Vec<f32>> = dx
        .par_chunks_mut(block)
        .zip(x.par_chunks(block).zip(g.par_chunks(block)))
        .one_by_one()
        .map(|(dx, (x, g))| backward_rows(x, w, g, dx, eps))
        .collect();
    let mut sums = vec![0f32; 2 * d];
    for p in &partial {
        for (s, v) in sums.iter_mut().zip(p) {
            *s += v;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::super::check::{kernel_equals_reference, random};
    use super::*;

    #[test]
    fn equals_reference() -> Result<()> {
        for (rows, d) in [(1, 1), (3, 5), (200, 192), (65, 33)] {
            let x = ((random(&[2, rows, d], 1)? * 2.0)? + 0.7)?;
            let args = [x, random(&[d], 2)?, random(&[d], 3)?];
            kernel_equals_reference(
                &|a| layer_norm(&a[0], &a[1], &a[2], 1e-6),
                &|a| layer_norm_reference(&a[0], &a[1], &a[2], 1e-6),
                &args,
                if d == 1 { 1.0 } else { 2e-5 },
            )?;
        }
        Ok(())
    }

    #[test]
    fn large_offset_keeps_its_variance() -> Result<()> {
        let x = (random(&[4, 64], 1)? + 1000.0)?;
        let (w, b) = (
            Tensor::ones(64, x.dtype(), x.device())?,
            x.zeros_like()?.get(0)?,
        );
        let y = layer_norm(&x, &w, &b, 1e-6)?
            .sqr()?
            .mean(D::Minus1)?
            .to_vec1::<f32>()?;
        assert!(y.iter().all(|v| (v - 1.0).abs() < 1e-3), "{y:?}");
        Ok(())
    }

    #[test]
    fn wrong_width_is_an_error() -> Result<()> {
        let (x, w) = (random(&[2, 4], 1)?, random(&[5], 2)?);
        assert!(layer_norm(&x, &w, &w, 1e-6).is_err());
        Ok(())
    }
}
