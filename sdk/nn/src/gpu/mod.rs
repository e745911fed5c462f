//! The operations on NVIDIA GPUs for candle's tensors, over the kernels and launches of `ssl-edge-gpu`.
//!
//! Tensors are f32 outside of an operation; see `ssl-edge-gpu` for what happens inside.

#[cfg(feature = "cuda")]
pub(crate) mod blocks_op;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
pub(crate) mod distil;
#[cfg(feature = "cuda")]
mod matmul;
#[cfg(feature = "cuda")]
pub(crate) mod ops;
#[cfg(feature = "cuda")]
pub(crate) mod rows_op;
#[cfg(all(test, target_os = "linux"))]
mod tests;
#[cfg(feature = "cuda")]
pub(crate) mod update;

#[cfg(feature = "cuda")]
pub(crate) use cuda::{Cuda, machine_of, open};
#[cfg(feature = "cuda")]
pub(crate) use ssl_edge_gpu::{
    Arg, Kind, Launch, Layout, Machine, Memory, PlanKey, Product, View, attention, block, kernels,
    linear, losses, multi,
};

impl From<crate::ops::Gelu> for ssl_edge_gpu::Gelu {
    fn from(form: crate::ops::Gelu) -> Self {
        match form {
            crate::ops::Gelu::Tanh => Self::Tanh,
            crate::ops::Gelu::Erf => Self::Erf,
        }
    }
}

impl From<crate::ops::Sizes> for ssl_edge_gpu::Sizes {
    fn from(sizes: crate::ops::Sizes) -> Self {
        Self {
            tokens: sizes.tokens,
            dim: sizes.dim,
            heads: sizes.heads,
            head_dim: sizes.head_dim,
        }
    }
}

/// Errors of machines as candle's.
#[cfg(feature = "cuda")]
pub(crate) trait OrCandle<T> {
    fn or_candle(self) -> candle_core::Result<T>;
}

#[cfg(feature = "cuda")]
impl<T> OrCandle<T> for ssl_edge_gpu::Result<T> {
    fn or_candle(self) -> candle_core::Result<T> {
        self.map_err(candle_core::Error::wrap)
    }
}
