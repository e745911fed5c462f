//! Encoders: from a frame to an embedding.
//!
//! [`Encoder::open`] reads a bundle, checks every byte, builds the engine that was asked for (there is no silent fallback) and runs the
//! bundle's golden vectors through it. [`Encoder::embed`] gives CLS and patch tokens, [`Encoder::feature`] the vector that jobs learn from.
//!
//! A station that must run only what its maker released opens the bundle with [`Bundle::open_signed`] and the maker's [`PublicKey`], and
//! then the encoder with [`Encoder::from_bundle`].
//!
//! A frame that must not take longer than the line allows is embedded with a [`Limit`], a deadline or a [`CancelToken`] ([`Encoder::embed_within`]);
//! [`Encoder::report`] says how an encoder runs here.
//!
//! An encoder is `Sync`: any number of threads may embed through one at the same time, without a copy of the weights, and each gets the
//! bits that it would get alone. They share the threads of the encoder's pool.
//!
//! ```no_run
//! use ssl_edge::encoder::{Encoder, EngineKind, Options};
//! let encoder = Encoder::open("encoder.sslb".as_ref(), &Options { engine: EngineKind::Native, threads: 2, ..Options::default() })?;
//! let image = ssl_edge::vision::decode_file("part.png".as_ref())?;
//! let feature = encoder.feature(&encoder.embed(&image.frame())?);
//! assert_eq!(feature.len(), encoder.feature_dim());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::Error;
use crate::vision::{Frame, Image, Skipped, decode_all};
use std::path::PathBuf;

pub use ssl_edge_bundle::{
    AnomalyFigures, ArchSpec, Bundle, BundleError, ClassFigures, ClsSource, EncoderSpec,
    GoldenSpec, GraphFigures, GraphRun, GraphSpec, Manifest, MemberSpec, PatchSource, Pooling,
    PreprocessSpec, Provenance, PublicKey, QualityFigures, ScoreFigures, SecretKey, VariantFigures,
    VariantSpec, save,
};
pub use ssl_edge_runtime::{
    CancelToken, Embedding, Encoder, EngineKind, GoldenVectors, GraphChoice, GraphError, GraphPort,
    Interruption, Latency, Limit, Options, Place, PluginDevice, PluginError, PluginReport,
    Precision, Processor, Products, Reached, ReadGraph, Refusal, RuntimeError, RuntimeReport,
    SelfTest, inspect_plugin, l2_normalize, resident_memory,
};

/// Files that are decoded and embedded together: enough for any thread pool, little enough for memory.
const FILES_AT_ONCE: usize = 32;

/// The feature of one frame: [`Encoder::feature`] of [`Encoder::embed`].
///
/// # Errors
/// As [`Encoder::embed`].
pub fn feature_of(encoder: &Encoder, frame: &Frame<'_>) -> Result<Vec<f32>, RuntimeError> {
    Ok(encoder.feature(&encoder.embed(frame)?))
}

/// Decodes and embeds `files`, and calls `visit` with the index of each file, its image and its embedding, in order.
///
/// Decoding uses the current rayon pool, the engine its own. Returns the files that cannot be decoded, with the reason.
///
/// # Errors
/// As [`Encoder::embed_batch`], and what `visit` returns.
pub fn embed_files(
    encoder: &Encoder,
    files: &[PathBuf],
    mut visit: impl FnMut(usize, &Image, &Embedding) -> Result<(), Error>,
) -> Result<Vec<Skipped>, Error> {
    let mut skipped = Vec::new();
    for (chunk_idx, chunk) in files.chunks(FILES_AT_ONCE).enumerate() {
        let (images, broken) = decode_all(chunk, None);
        skipped.extend(broken);
        let frames: Vec<Frame<'_>> = images
            .iter()
            .map(|(_, image): &(usize, Image)| image.frame())
            .collect();
        for ((idx, image), embedding) in images.iter().zip(encoder.embed_batch(&frames)?) {
            visit(chunk_idx * FILES_AT_ONCE + idx, image, &embedding)?;
        }
    }
    Ok(skipped)
}
