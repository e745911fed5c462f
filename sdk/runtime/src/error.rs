//! Errors of this crate.

use std::path::PathBuf;

use ssl_edge_bundle::BundleError;
use ssl_edge_plugin::PluginError;
use ssl_edge_vision::FrameError;

use crate::{EngineKind, Interruption, Precision, Reached};

/// Why a bundle could not be opened or a frame not embedded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The bundle could not be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The frame could not be preprocessed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The engine is not part of this build.
    #[error(
        "engine {engine} is not available: {reason}; build with it or choose one of: {available}"
    )]
    EngineUnavailable {
        /// The engine that was asked for.
        engine: EngineKind,
        /// Why it is not there.
        reason: String,
        /// Engines of this build, comma-separated.
        available: String,
    },
    /// The bundle or the engine does not have the precision.
    #[error("cannot open bundle {path} in {precision}: {reason}")]
    PrecisionUnavailable {
        /// The bundle.
        path: PathBuf,
        /// The precision that was asked for.
        precision: Precision,
        /// Why it is not there, and the remedy.
        reason: String,
    },
    /// The plug-in of the engine cannot be used.
    #[error("engine {engine} is not available: {source}")]
    Plugin {
        /// The engine.
        engine: EngineKind,
        /// Where it was looked for, what does not fit, or what it refuses.
        source: PluginError,
    },
    /// The processor that was asked for cannot be used.
    #[error("{reason}")]
    Device {
        /// Which and why.
        reason: String,
    },
    /// The engine could not be built from the bundle.
    #[error(
        "engine {engine} cannot load bundle {path}: {reason}; repeat `ssl-edge export` or choose another engine"
    )]
    Load {
        /// The bundle.
        path: PathBuf,
        /// The engine.
        engine: EngineKind,
        /// What it could not use.
        reason: String,
    },
    /// The engine failed on a frame.
    #[error(
        "engine {engine} failed: {reason}; try another engine, and report this with the bundle"
    )]
    Run {
        /// The engine.
        engine: EngineKind,
        /// What went wrong.
        reason: String,
    },
    /// The call was given up before it was done; see [`crate::Limit`].
    #[error(
        "engine {engine} gave up because {reason}: {reached}; the encoder is ready for other frames{remedy}",
        remedy = .reason.remedy()
    )]
    Interrupted {
        /// The engine.
        engine: EngineKind,
        /// Why.
        reason: Interruption,
        /// How far it came.
        reached: Reached,
    },
    /// The engine does not reproduce the golden vectors.
    #[error(
        "engine {engine} does not reproduce the golden vectors of bundle {path}: off by {difference:e}, allowed {tolerance:e}; choose another engine or repeat `ssl-edge export`"
    )]
    SelfTest {
        /// The bundle.
        path: PathBuf,
        /// The engine.
        engine: EngineKind,
        /// Largest absolute difference in an L2-normalised embedding; NaN where the engine gave one.
        difference: f32,
        /// Largest difference that is accepted.
        tolerance: f32,
    },
    /// The embedding has a NaN or an infinity.
    #[error(
        "engine {engine} gave a non-finite value for frame {frame} of the batch; the weights are damaged: repeat `ssl-edge export` from an earlier checkpoint"
    )]
    NonFinite {
        /// The engine.
        engine: EngineKind,
        /// Index of the frame in the batch.
        frame: usize,
    },
    /// The engine's threads could not be started.
    #[error("cannot start {threads} threads: {reason}; ask for fewer threads")]
    Threads {
        /// Threads that were asked for.
        threads: usize,
        /// The operating system's reason.
        reason: String,
    },
}
