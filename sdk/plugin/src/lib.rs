//! Engines in libraries of their own, opened when they are asked for.
//!
//! A library that needs a driver to load would keep every program that links it from starting where the driver is missing. So engines for such devices are
//! plug-ins: shared libraries that export the two functions of [`abi`], which lead to a versioned table of C functions. [`Plugin`] is the side that opens
//! one, [`guest`] the side of the one that is opened.
//!
//! Architecture Invariant: nothing but the types of [`abi`] crosses, and those grow only at their ends. Memory is freed by the side that made it; errors are
//! a number and a text in the caller's buffer; no panic crosses.

#![deny(missing_docs)]

pub mod abi;
mod encoder;
mod error;
pub mod guest;
mod host;
mod search;

pub use encoder::Encoder;
pub use error::{PluginError, Refusal};
pub use host::{Device, Options, Plugin, Precision, Shape};
pub use search::{PATH_VARIABLE, file_name, places};
