//! Bundles from training runs, or from random weights as a baseline.
//!
//! [`quantize`] adds the same encoder in int8 or in GGML's blocks, measured beside f32. [`import_graph`] makes a bundle of an ONNX graph that another program wrote, such as
//! a DINOv2 of PyTorch.
//!
//! Nothing is written before every engine of this build has reproduced the golden vectors from the finished file.
//!
//! ```no_run
//! use ssl_edge::encoder::Pooling;
//! use ssl_edge::export::{ExportOptions, export_run};
//! let options = ExportOptions { pooling: Pooling::ClsMean, licence: None };
//! let report = export_run("runs/first".as_ref(), &options, "encoder.sslb".as_ref())?;
//! println!("{} bytes", report.bytes);
//! # Ok::<(), ssl_edge::export::ExportRunError>(())
//! ```

use crate::encoder::{Pooling, Provenance};
use ssl_edge_export::{EncoderExport, export_encoder};
use ssl_edge_train::{TrainError, encoder_of};
use std::path::Path;

pub use ssl_edge_export::{
    BlockFormat, ExportError, ExportReport, Gate, GateFailure, GateMetric, GateReport, GraphImport,
    ImportError, ImportReport, LayerReport, OnnxForm, QuantizeError, QuantizeOptions,
    QuantizeReport, Target, Written, import_graph, quantize, random_bundle, round_to,
};

/// How to pack a run.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// The feature that jobs will learn from.
    pub pooling: Pooling,
    /// Licence of the weights, an SPDX expression.
    pub licence: Option<String>,
}

/// Why a run was not packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportRunError {
    /// The run cannot be read.
    #[error(transparent)]
    Run(#[from] TrainError),
    /// The bundle cannot be made.
    #[error(transparent)]
    Export(#[from] ExportError),
}

/// Packs the encoder of a run's newest checkpoint. A file that was at `out` is replaced at the end or not at all.
///
/// # Errors
/// A folder that holds no run or no checkpoint, damaged files, or as [`random_bundle`].
pub fn export_run(
    run: &Path,
    options: &ExportOptions,
    out: &Path,
) -> Result<ExportReport, ExportRunError> {
    let encoder = encoder_of(run)?;
    let provenance = Provenance {
        method: encoder.provenance.method,
        images_seen: encoder.provenance.images_seen,
        dataset_images: encoder.provenance.dataset_images as u64,
        seed: encoder.provenance.seed,
        config: encoder.provenance.config,
    };
    let export = EncoderExport {
        arch: &encoder.arch,
        config: &encoder.config,
        params: &encoder.tensors,
        preprocess: &encoder.preprocess,
        pooling: options.pooling,
        golden_seed: provenance.seed,
        provenance,
        licence: options.licence.clone(),
    };
    Ok(export_encoder(&export, out)?)
}
