//! What a run tells while it goes on and when it ends.

use std::path::{Path, PathBuf};

use ssl_edge_nn::compute::Precision;
use ssl_edge_vision::Skipped;

/// What a run is going to do, once it is known.
#[derive(Clone, Debug)]
pub struct RunInfo {
    /// Method name.
    pub method: String,
    /// Architecture name.
    pub arch: String,
    /// Trained numbers, heads and decoders included.
    pub trained_parameters: usize,
    /// Readable images.
    pub images: usize,
    /// Images whose decoded pixels stay in memory; the others are read from a temporary file in the run folder.
    pub cached: usize,
    /// Images in a batch, of all ranks together.
    pub batch: usize,
    /// Steps in one pass over the images.
    pub steps_per_epoch: u64,
    /// Step at which this call starts: 0, or the checkpoint's when resuming.
    pub first_step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// Peak learning rate after scaling with the batch.
    pub peak_lr: f64,
    /// Threads of the training step, on each rank.
    pub threads: usize,
    /// Ranks that share every batch; 1 for a process alone.
    pub ranks: usize,
    /// What matrix products read.
    pub precision: Precision,
}

/// One finished step.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Steps done, this one included.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// Loss of the step.
    pub loss: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Norm of all gradients together, before clipping.
    pub grad_norm: f64,
    /// Images per second, smoothed over about twenty steps.
    pub img_per_s: f64,
    /// Share of the time that the step waited for images, 0 to 1, smoothed alike.
    pub data_wait: f64,
    /// Seconds left at this speed.
    pub eta_s: f64,
}

/// A score on the labelled folder.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeScore {
    /// Steps done.
    pub step: u64,
    /// Accuracy of 20 nearest neighbours, a fraction.
    pub knn20: f64,
    /// Labelled images searched.
    pub train: usize,
    /// Labelled images scored.
    pub val: usize,
}

/// Receives what happens during a run. Every method has an empty default; they are called from the training thread, on rank 0
/// only.
pub trait Observer: Send + Sync {
    /// The run is about to start or to go on.
    fn started(&self, _info: &RunInfo) {}
    /// An image file cannot be used; training goes on without it.
    fn skipped(&self, _path: &Path, _reason: &str) {}
    /// A step is done.
    fn step(&self, _progress: &Progress) {}
    /// The labelled folder was scored.
    fn probed(&self, _score: &ProbeScore) {}
    /// Something looks wrong with the run; said once. `message` names the remedy.
    fn warned(&self, _message: &str) {}
    /// A checkpoint is safely on disk.
    fn saved(&self, _checkpoint: &Path) {}
    /// Asked after every step; true ends the run early, with a checkpoint to resume from.
    fn stop(&self) -> bool {
        false
    }
}

/// Observes nothing.
impl Observer for () {}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct RunSummary {
    /// Run folder.
    pub run: PathBuf,
    /// Newest checkpoint.
    pub checkpoint: PathBuf,
    /// Steps done.
    pub step: u64,
    /// Steps of the whole run; more than `step` where the observer stopped it.
    pub steps: u64,
    /// Images seen in the whole run so far.
    pub images_seen: u64,
    /// Loss of the last step of this call; none where there was none left to do.
    pub loss: Option<f64>,
    /// Seconds that this call took.
    pub seconds: f64,
    /// Scores of this call, in order.
    pub probes: Vec<ProbeScore>,
    /// Image files that could not be used, with the reason.
    pub skipped: Vec<Skipped>,
}
