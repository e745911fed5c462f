//! The model file, `.sslb`: one zip with stored members.
//!
//! | member | contents |
//! |---|---|
//! | `manifest.json` | [`Manifest`]: schema, architecture, preprocessing, pooling, provenance, SHA-256 and size of every other member |
//! | `weights.safetensors` | f32 parameters of the encoder under DINO/timm names |
//! | `encoder.onnx` | the same encoder as an ONNX graph, opset 17; or an imported graph ([`GraphSpec`]), and then there are no other weights |
//! | `golden.safetensors` | `input [G, 3, H, W]`, `cls [G, D]`, `patch_mean [G, D]`: what every engine must reproduce |
//! | `signature.json` | optional: an Ed25519 signature over `manifest.json`, and so over every hash in it |
//!
//! A bundle may hold the encoder in other precisions as well, [`VariantSpec`], each with two members of its own: `encoder.int8.safetensors` and
//! `golden.int8.safetensors` for int8, `encoder.q8_0.gguf` and `golden.q8_0.safetensors` for GGML's blocks. Schema 1 has them all: a reader that does not
//! know a precision cannot be asked for it, and runs the others. It may also hold more graphs, such as `encoder.int8.onnx`.
//!
//! The zip comment ends with two hashes: the outline, of all bytes but the contents of the members, and the seal, of all bytes. A file is opened by its
//! outline and each member checked by its hash in the manifest when it is read, so that nothing changed is ever handed out and nothing is read in vain;
//! [`Bundle::check`] finds a change at any byte. The hashes are against accidents, the signature against intent. Any zip tool lists and extracts a
//! bundle; a tool that rewrites one breaks its outline.
//!
//! ```no_run
//! # fn main() -> Result<(), ssl_edge_bundle::BundleError> {
//! let bundle = ssl_edge_bundle::Bundle::open("encoder.sslb".as_ref())?;
//! println!("{} of {}", bundle.manifest().name(), bundle.manifest().created_by);
//! # Ok(())
//! # }
//! ```
//!
//! Architecture Invariant: this crate knows names, sizes and hashes. It runs no encoder and decodes no tensor.

#![deny(missing_docs)]

mod encoder;
mod error;
mod figures;
mod graph;
mod keys;
mod layout;
mod manifest;
mod read;
mod save;
mod signature;
mod source;
mod write;

pub use encoder::EncoderSpec;
pub use error::BundleError;
pub use figures::{
    AnomalyFigures, ClassFigures, GraphFigures, GraphRun, QualityFigures, ScoreFigures,
    VariantFigures,
};
pub use graph::{ClsSource, GraphSpec, PatchSource};
pub use keys::{PublicKey, SecretKey};
pub use manifest::{
    ArchSpec, GoldenSpec, Manifest, MemberSpec, Pooling, PreprocessSpec, Provenance, SCHEMA,
    VariantSpec,
};
pub use read::{Bundle, MemberReader};
pub use save::save;
pub use write::{BundleWriter, Variant};

/// Member that describes all others.
pub const MANIFEST: &str = "manifest.json";
/// Member with the encoder's parameters, f32, in safetensors.
pub const WEIGHTS: &str = "weights.safetensors";
/// Member with the encoder as an ONNX graph.
pub const ONNX: &str = "encoder.onnx";
/// Member with golden inputs and outputs, f32, in safetensors.
pub const GOLDEN: &str = "golden.safetensors";

/// Member with the signature of a bundle that is signed.
pub const SIGNATURE: &str = "signature.json";

/// Lower-case hexadecimal, two digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
