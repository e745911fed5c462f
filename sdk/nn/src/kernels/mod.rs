//! Products of a few rows with a panel of 32 columns, for each instruction set ([`Isa`]): what the encoder that only runs ([`crate::infer`]) and the
//! products of training ([`crate::ops`]) are made of.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod isa;
#[cfg(target_arch = "aarch64")]
mod neon;
mod out;
mod portable;
mod tile;
mod transpose;

pub use isa::Isa;
pub(crate) use out::Out;
pub(crate) use tile::{Ahead, COLUMNS, Cut, FloatTile, Form, IntTile, Kernels};
pub(crate) use transpose::transpose;
