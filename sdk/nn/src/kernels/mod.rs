//! Products of a few rows with a panel of 16 or 32 columns, for each instruction set ([`Isa`]): what the encoder that only runs ([`crate::infer`]) and the
//! products of training ([`crate::ops`]) are made of.
//!
//! What kernels of an instruction set share is `inline(always)` and names no target feature, which the compiler does not allow together: it is compiled
//! inside the kernel, for the kernel's features. Called instead, it would have the sums in memory, and take half of the speed.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod bf16;
mod isa;
#[cfg(target_arch = "aarch64")]
mod neon;
mod out;
mod portable;
mod strip;
mod tile;
mod transpose;

pub(crate) use bf16::Pairs;
pub use isa::Isa;
pub(crate) use out::Out;
pub(crate) use strip::strip;
pub(crate) use tile::{Ahead, Cut, FloatTile, Form, IntTile, Kernels};
pub(crate) use transpose::transpose;

#[cfg(test)]
mod tests;
