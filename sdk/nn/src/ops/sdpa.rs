//! candle's fused attention on Metal, for encoders that only run: it has no backward.

use candle_core::backend::BackendStorage;
use candle_core::{CustomOp3, D, DType, Layout, MetalStorage, Result, Shape, Tensor, bail};
use candle_metal_kernels::{SdpaDType, call_sdpa_full};

/// Widths of a head that the shaders are compiled for.
const HEAD_DIMS: [usize; 8] = [32, 64, 72, 80, 96, 128, 256, 512];

struct Sdpa;

/// Whether [`sdpa`] can be used: f16 on Metal, a head of a known width, and no gradient wanted.
pub(super) fn takes(q: &Tensor) -> bool {
    let width = q.dim(D::Minus1).unwrap_or(0);
    q.device().is_metal() && q.dtype() == DType::F16 && !q.track_op() && HEAD_DIMS.contains(&width)
}

/// `softmax(q kᵀ / √d) v` for `q`, `k`, `v` `[B, H, N, d]` in f16, contiguous.
pub(super) fn sdpa(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    q.apply_op3_no_bwd(k, v, &Sdpa)
}

impl CustomOp3 for Sdpa {
    fn name(&self) -> &'static str {
        "sdpa"
    }

    fn cpu_fwd(
        &self,
        _: &candle_core::CpuStorage,
        _: &Layout,
        _: &candle_core::CpuStorage,
        _: &Layout,
        _: &candle_core::CpuStorage,
        _: &Layout,
    ) -> Result<(candle_core::CpuStorage, Shape)> {
        bail!("candle's fused attention runs on Metal only")
    }

    fn metal_fwd(
        &self,
        q: &MetalStorage,
        ql: &Layout,
        k: &MetalStorage,
        kl: &Layout,
        v: &MetalStorage,
        vl: &Layout,
    ) -> Result<(MetalStorage, Shape)> {
        if [ql, kl, vl].iter().any(|layout| !layout.is_contiguous()) || ql.dims() != kl.dims() {
            bail!("sdpa needs contiguous q, k and v of one shape, got {ql:?}, {kl:?}, {vl:?}")
        }
        let (shape, device) = (ql.shape().clone(), q.device());
        let (_, _, _, width) = shape.dims4()?;
        let out = device
            .new_buffer_builder()
            .with_size_for(shape.elem_count(), DType::F16)
            .build()?;
        let bytes = |layout: &Layout| layout.start_offset() * DType::F16.size_in_bytes();
        let encoder = device.command_encoder()?;
        call_sdpa_full(
            device.device(),
            &encoder,
            device.kernels(),
            bytes(ql),
            ql.dims(),
            ql.stride(),
            q.buffer(),
            bytes(kl),
            kl.dims(),
            kl.stride(),
            k.buffer(),
            bytes(vl),
            v.buffer(),
            vl.stride(),
            None,
            None,
            None,
            &out,
            ql.stride(),
            1.0 / (width as f32).sqrt(),
            false,
            SdpaDType::F16,
        )
        .map_err(candle_core::Error::wrap)?;
        drop(encoder);
        let count = shape.elem_count();
        Ok((
            MetalStorage::new(out, device.clone(), count, DType::F16),
            shape,
        ))
    }
}
