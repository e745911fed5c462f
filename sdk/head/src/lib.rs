//! Fitted heads in integers for microcontrollers, their wire messages, and the handshake with a production line.
//!
//! # Overview
//!
//! The encoder runs on a station with memory and floating point; what decides at the gate may be a Cortex-M without either. This crate is
//! that part: no `std`, no allocation, no floating point at run time, and the same integers on every machine.
//!
//! - [`HeadImage`] is a fitted head as bytes in flash: read in place, checked once. [`HeadImage::inspect`] turns an embedding of `i8` values
//!   into a [`Verdict`]: class, score in Q15, *unknown*, nearest taught sample.
//! - [`HeadSpec`] writes such an image from a head in floating point (`Job::device_head` of `ssl-edge-adapt` does it for a job) and
//!   [`HeadImage::quantise`] turns `f32` embeddings into `i8` on the sender's side. Both are for hosts; a linker drops them elsewhere.
//! - [`wire`] frames messages for a serial line: postcard, CRC-32, COBS.
//! - [`line`] holds what stands between a verdict and a machine: the trigger handshake, a vote over the last frames, the reject gate's delay.
//! - [`vectors`] makes heads and embeddings from a seed, to hold one machine's integers against another's.
//!
//! # Example
//!
//! ```
//! use ssl_edge_head::{HeadImage, HeadSpec, RowSpec, fit_scale};
//!
//! let samples: [&[f32]; 2] = [&[1.0, 0.1], &[0.0, 0.9]];
//! let mut centre = [0.0; 2];
//! let step = fit_scale(samples.into_iter(), &mut centre)?;
//! let rows = [RowSpec { sample: 0, class: 0, embedding: samples[0] }, RowSpec { sample: 1, class: 1, embedding: samples[1] }];
//! let spec = HeadSpec {
//!     job: 1, encoder: [7; 32], class_ids: &[10, 11], weights: &[1.0, -1.0, -1.0, 1.0], bias: &[0.0, 0.0], cosine: false,
//!     temperature: 0.5, centre: &centre, step, rows: &rows, cosine_limit: Some(0.9),
//! };
//! let mut flash = [0; 256];
//! let length = spec.write(&mut flash)?;
//!
//! let head = HeadImage::parse(&flash[..length])?;
//! let mut frame = [0; 2];
//! head.quantise(&[0.1, 1.0], &mut frame)?;
//! let verdict = head.inspect(&frame)?;
//! assert_eq!((head.class_id(verdict.class.into()), verdict.unknown), (Some(11), false));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Memory
//!
//! An image takes `72 + 16 C + 24 R + D (2 + C + R) + 4` bytes of flash for `D` values, `C` classes and `R` rows. A verdict needs about 1.5 KiB of
//! stack, for [`MAX_CLASSES`] logits.

#![no_std]
#![deny(missing_docs)]

mod error;
mod fixed;
mod image;
pub mod line;
mod quantise;
pub mod vectors;
mod verdict;
pub mod wire;
mod write;

pub use error::{BuildError, ImageError, InputError, WireError};
pub use fixed::ONE_Q15;
pub use image::HeadImage;
pub use quantise::{HEADROOM, fit_scale};
pub use verdict::{Nearest, Verdict};
pub use write::{HeadSpec, RowSpec, image_length};

/// Most values of an embedding.
pub const MAX_DIM: usize = 4096;
/// Most classes of a head.
pub const MAX_CLASSES: usize = 128;
