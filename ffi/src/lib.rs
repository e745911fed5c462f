//! libssl_edge: the C ABI of ssl-edge. Its contract, as the reader of include/ssl_edge.h sees it:
//!
//! - Every function that can fail returns an [`ssl_edge_status`]; [`ssl_edge_last_error`] says what went wrong and what to do.
//! - The object comes first, then inputs, then outputs. Outputs are written on success only.
//! - Any pointer may be NULL and gives `SSL_EDGE_STATUS_NULL_POINTER`, unless its parameter says what NULL means; `free(NULL)` does nothing.
//! - Public structs begin with their size and are filled by their `_init` function; all else is opaque.
//! - No panic crosses: it becomes `SSL_EDGE_STATUS_PANICKED`, and an object that was being changed refuses to work from then on.
//! - The library prints nothing and starts no thread beyond those of `ssl_edge_encoder_options`.
//!
//! One file for each C object ([`frame`], [`call`], [`encoder`], [`job`], [`verdict`], [`golden`], [`monitor`]); `guard` and `pointer` hold what all of
//! them need.
//!
//! Architecture Invariant: this crate converts and checks. It computes nothing that the façade does not offer to Rust users.

#![deny(missing_docs)]
#![allow(non_camel_case_types, reason = "the names are those of the C header")]
#![allow(
    clippy::missing_safety_doc,
    reason = "what a C caller must keep is in the header's preamble and at each function"
)]

pub mod call;
mod convert;
pub mod embed;
pub mod encoder;
pub mod fit;
pub mod frame;
pub mod golden;
mod guard;
pub mod job;
pub mod monitor;
mod pointer;
pub mod status;
pub mod verdict;
pub mod version;

pub use status::{ssl_edge_last_error, ssl_edge_status};
