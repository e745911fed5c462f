//! Operations on NVIDIA GPUs: which kernels run in which order, on memory of a [`Machine`].
//!
//! The kernels are in `kernels/*.cu`. Three machines exist: the training GPU in `ssl-edge-nn`, the GPU of the plug-in `ssl-edge-cuda`, and, for tests, an
//! emulation that runs the same kernel sources on the host (feature `emulated`). Everything in between is written once, so what the tests run is what a GPU
//! runs, up to the compiler and cuBLAS.
//!
//! Tensors are f32 outside of an operation. Inside, matrix products read [`Machine::work`]: f32, or bf16 or f16 rounded from it; they sum in f32.
//! Norms, softmax, residuals, losses, parameters and their gradients are f32 in every case.

#![deny(missing_docs)]

pub mod attention;
pub mod block;
#[cfg(all(any(test, feature = "emulated"), target_os = "linux"))]
pub mod emulated;
pub mod encoder;
mod error;
#[cfg(any(feature = "ptx", feature = "fatbin"))]
pub mod images;
pub mod kernels;
pub mod linear;
pub mod losses;
mod machine;
pub mod multi;
mod plan;

use error::bail;
pub use error::{Error, Result};
pub use machine::{
    Arg, ColumnMajor, Kind, Launch, Machine, Memory, Product, View, bytes_of, expect, int, multiply,
};
pub use plan::{Layout, PlanKey};

/// Which of the two common definitions of GELU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gelu {
    /// `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
    Tanh,
    /// `0.5 x (1 + erf(x / √2))`.
    Erf,
}

/// Sizes of self-attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Tokens of one image.
    pub tokens: usize,
    /// Width of one token, `heads * head_dim`.
    pub dim: usize,
    /// Heads of a token.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}
