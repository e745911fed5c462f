//! Multi-head self-attention, <https://arxiv.org/abs/1706.03762>: `softmax(Q Kᵀ / √d) V` per head.

mod cpu;

use candle_core::{CpuStorage, CustomOp1, D, DType, Layout, Result, Shape, Tensor, bail};

use super::{has_kernel, slice, with_slice};

struct Attention {
    heads: usize,
}

#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    /// Tokens of one image.
    pub(crate) tokens: usize,
    /// Width of one token, `heads * head_dim`.
    pub(crate) dim: usize,
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
}

/// Attention over `qkv [B, N, 3·D]`, the columns being Q, K, V and inside each the heads; gives `[B, N, D]`.
pub fn attention(qkv: &Tensor, heads: usize) -> Result<Tensor> {
    if has_kernel(qkv) {
        qkv.contiguous()?.apply_op1(Attention { heads })
    } else {
        attention_reference(qkv, heads)
    }
}

/// The same in plain tensors. In f16 the softmax is computed in f32, on Metal by candle's fused attention where it takes the head's width.
pub fn attention_reference(qkv: &Tensor, heads: usize) -> Result<Tensor> {
    let (b, n, width) = qkv.dims3()?;
    let head_dim = sizes(qkv.dims(), heads)?.1.head_dim;
    let dtype = qkv.dtype();
    let qkv = qkv
        .reshape((b, n, 3, heads, head_dim))?
        .permute((2, 0, 3, 1, 4))?; // [3, B, H, N, d]
    let part = |i| qkv.get(i)?.contiguous();
    let (q, k, v) = (part(0)?, part(1)?, part(2)?);
    let attended = match fused(&q, &k, &v) {
        Some(attended) => attended?,
        None => softmax_attention(&q, &k, &v)?.to_dtype(dtype)?,
    };
    attended.transpose(1, 2)?.reshape((b, n, width / 3))
}

/// `softmax(q kᵀ / √d) v` for `q [B, H, M, d]` and `k`, `v` `[B, H, N, d]`, contiguous; in f32 at least.
pub(super) fn softmax_attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    let wide = match q.dtype() {
        DType::F64 => DType::F64,
        _ => DType::F32,
    };
    let [q, k, v] = [q.to_dtype(wide)?, k.to_dtype(wide)?, v.to_dtype(wide)?];
    let root = (q.dim(D::Minus1)? as f64).sqrt();
    let scores = (q.matmul(&k.t()?.contiguous()?)? / root)?; // [B, H, M, N]
    let exp = scores
        .broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?
        .exp()?;
    let probs = exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?;
    probs.matmul(&v)
}

/// candle's fused attention, which has no backward: for f16 on Metal.
#[cfg(all(feature = "metal", target_os = "macos"))]
fn fused(q: &Tensor, k: &Tensor, v: &Tensor) -> Option<Result<Tensor>> {
    super::sdpa::takes(q).then(|| super::sdpa::sdpa(q, k, v))
}

#[cfg(not(all(feature = "metal", target_os = "macos")))]
fn fused(_: &Tensor, _: &Tensor, _: &Tensor) -> Option<Result<Tensor>> {
    None
}

pub(super) fn sizes(dims: &[usize], heads: usize) -> Result<(usize, Sizes)> {
    let &[b, tokens, width] = dims else {
        bail!("attention: qkv must be [B, N, 3·D], got {dims:?}")
    };
    if heads == 0 || tokens == 0 || width == 0 || !width.is_multiple_of(3 * heads) {
        bail!("attention: qkv {dims:?} does not split into Q, K, V of {heads} heads")
    }
    let dim = width / 3;
    Ok((
        b,
        Sizes {
            tokens,
            dim,
            heads,
            head_dim: dim / heads,
        },
    ))
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (b, sizes) = sizes(layout.dims(), self.heads)?;
        let qkv = slice(storage, layout)?;
        let mut out = vec![0f32; b * sizes.tokens * sizes.dim];
        sizes.forward_into(&mut out, qkv);
        Ok((
            CpuStorage::F32(out),
            Shape::from((b, sizes.tokens, sizes.dim)),
        ))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        storage: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let (b, sizes) = sizes(layout.dims(), self.heads)?;
        let shape = Shape::from((b, sizes.tokens, sizes.dim));
        crate::gpu::ops::attention((storage, layout), &sizes, shape)
    }

    fn bwd(&self, qkv: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, sizes) = sizes(qkv.dims(), self.heads)?;
        #[cfg(feature = "cuda")]
        if qkv.device().is_cuda() {
            return Ok(Some(crate::gpu::ops::attention_grad(qkv, grad, &sizes)?));
        }
        let dqkv = with_slice(qkv, |x| {
            with_slice(grad, |g| {
                let mut dqkv = vec![0f32; x.len()];
                sizes.backward_into(&mut dqkv, x, g);
                Ok(dqkv)
            })
        })?;
        Ok(Some(Tensor::from_vec(dqkv, qkv.shape(), qkv.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{kernel_equals_reference, random};
    use super::*;
    use candle_core::Device;

    #[test]
    fn equals_reference() -> Result<()> {
        for (b, n, heads, head_dim) in [(1, 1, 1, 4), (2, 5, 3, 8), (3, 69, 3, 64), (1, 150, 2, 16)]
        {
            let qkv = random(&[b, n, 3 * heads * head_dim], 7)?;
            kernel_equals_reference(
                &|a| attention(&a[0], heads),
                &|a| attention_reference(&a[0], heads),
                &[qkv],
                3e-6,
            )?;
        }
        Ok(())
    }

    #[test]
    fn equal_keys_average_the_values() -> Result<()> {
        let (n, d) = (4, 8);
        let q = random(&[1, n, d], 1)?;
        let k = Tensor::ones((1, n, d), q.dtype(), &Device::Cpu)?;
        let v = random(&[1, n, d], 2)?;
        let out = attention(&Tensor::cat(&[&q, &k, &v], 2)?, 2)?.to_vec3::<f32>()?;
        let mean = v.mean(1)?.to_vec2::<f32>()?;
        for token in &out[0] {
            for (got, want) in token.iter().zip(&mean[0]) {
                assert!((got - want).abs() < 1e-6);
            }
        }
        Ok(())
    }

    #[test]
    fn large_scores_stay_finite() -> Result<()> {
        let qkv = (random(&[1, 9, 48], 3)? * 1e4)?;
        let out = attention(&qkv, 2)?.flatten_all()?.to_vec1::<f32>()?;
        assert!(out.iter().all(|v| v.is_finite()));
        Ok(())
    }

    #[test]
    fn heads_must_divide_the_width() -> Result<()> {
        assert!(attention(&random(&[1, 2, 30], 1)?, 4).is_err());
        Ok(())
    }
}
