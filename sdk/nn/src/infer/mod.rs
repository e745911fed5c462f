//! The encoder for running only: weights packed once, all memory reserved when it is made, threads of its own, f32 or int8.
//!
//! Linear layers are products of rows with panels of outputs, in kernels for each instruction set ([`Isa`]). In an int8 layer weights have one scale
//! for each output and activations one for each row (token), taken at every call; the sums are exact. Norms, softmax, GELU, residuals and the products
//! of attention stay f32. Weights in GGML's blocks ([`BlockFormat`]) become f32 when they are packed: a small file, not a speed.
//!
//! A block is row-local but for the keys and values, so a task takes some rows of one image from attention through the MLP to the next block's keys and
//! values, and the threads meet once a block. A row's arithmetic does not depend on which rows it is grouped with, so results depend neither on the
//! number of threads nor on the batch.

mod attention;
mod blocks;
mod buffer;
mod gguf;
mod layer;
mod parts;
mod plan;
mod quantise;
mod read;
mod team;
mod turn;
mod vit;
mod weights;

pub use crate::kernels::Isa;
pub use blocks::{BLOCK, BlockFormat};
pub use vit::{PackedOptions, PackedVit, Progress};
pub use weights::{EncoderWeights, LINEAR_LAYERS, Stored};

/// Says whether to give up a call; asked by all threads, often, so it must be quick.
pub type Stop<'a> = dyn Fn() -> bool + Sync + 'a;

#[cfg(test)]
mod stop_tests;
#[cfg(test)]
mod tests;
