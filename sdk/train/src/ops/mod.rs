//! Differentiable operations that only training needs; f32 on the CPU, each with its own backward. On GPUs they are those of `ssl-edge-nn`.

mod cross_entropy;
mod normalize;

pub(crate) use cross_entropy::{multi_crop_cross_entropy, softmax_rows};
pub(crate) use normalize::l2_normalize;

use candle_core::{CpuStorage, Layout, Result, bail};
use ssl_edge_nn::ops::no_kernel_while_composed;

/// The values of a contiguous f32 tensor on the CPU.
fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    no_kernel_while_composed()?;
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => bail!("a contiguous f32 tensor is needed, got {layout:?}"),
    }
}
