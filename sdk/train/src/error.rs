//! What can go wrong in this crate.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use ssl_edge_nn::compute::{Precision, Processor};

use crate::collective::{CollectiveError, names};

/// Why training could not start, go on or be read back.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A tensor operation failed.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
    /// The encoder could not be made or computed.
    #[error(transparent)]
    Network(#[from] ssl_edge_nn::Error),
    /// A folder of images could not be used.
    #[error(transparent)]
    Dataset(#[from] ssl_edge_vision::DatasetError),
    /// No file in the given folders is a readable image.
    #[error("none of the {files} image files can be read; the first: {first}")]
    NoReadableImage {
        /// Image files found.
        files: usize,
        /// Why the first of them cannot be read.
        first: String,
    },
    /// A method or an architecture that does not exist.
    #[error("unknown {what} `{name}`; known: {known}")]
    Unknown {
        /// `method` or `architecture`.
        what: &'static str,
        /// The name asked for.
        name: String,
        /// Those that exist.
        known: String,
    },
    /// A configuration file or override that does not fit.
    #[error("{origin}: {message}")]
    Config {
        /// The file, or the override as it was written.
        origin: String,
        /// What is wrong and what would fit.
        message: String,
    },
    /// Fewer images than one batch needs.
    #[error(
        "{images} readable images do not fill one batch of {batch}; add images or make the batch smaller with `--set schedule.batch={}`",
        (*images).max(1)
    )]
    FewerImagesThanBatch {
        /// Readable images.
        images: usize,
        /// Images in a batch.
        batch: usize,
    },
    /// The run folder holds a run already.
    #[error(
        "{} already holds a run; continue it with --resume or choose another folder",
        path.display()
    )]
    RunExists {
        /// The run folder.
        path: PathBuf,
    },
    /// There is no run to continue or to read.
    #[error("{} holds no {what}; {remedy}", path.display())]
    NoRun {
        /// The run folder.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// A run is continued with other settings than it was started with.
    #[error(
        "{} was started with other settings: {}; resume with the settings of its config.toml or start a new run",
        path.display(),
        changes.join(", ")
    )]
    ConfigChanged {
        /// The run folder.
        path: PathBuf,
        /// `key: then -> now`, one for each difference.
        changes: Vec<String>,
    },
    /// A run is continued on other images than it was started with.
    #[error(
        "{} was trained on {then} images with other names or sizes than the {now} found now; restore the images or start a new run",
        path.display()
    )]
    DataChanged {
        /// The run folder.
        path: PathBuf,
        /// Images at the start.
        then: usize,
        /// Images now.
        now: usize,
    },
    /// The batch cannot be cut into equal parts for the ranks.
    #[error(
        "schedule.batch {batch} is the batch of all {world} ranks together and must be a multiple of their number; \
         use `--set schedule.batch={}` or another number of ranks",
        (batch / world).max(1) * world
    )]
    BatchOverRanks {
        /// Images in a batch of all ranks.
        batch: usize,
        /// Number of ranks.
        world: usize,
    },
    /// The ranks do not compute the same thing.
    #[error("{} and rank 0 have different {what}; {remedy}", names(ranks))]
    RanksDiffer {
        /// The ranks that differ from rank 0.
        ranks: Vec<usize>,
        /// What differs.
        what: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// The ranks cannot go on together.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    /// Several processes were started and this program cannot connect them.
    #[error(
        "{variable} says that {world} processes were started together, and this program was built without MPI: each would train the whole run. \
         Build it with `cargo install --path sdk/cli --features mpi`, or start one process"
    )]
    WithoutMpi {
        /// Processes started.
        world: usize,
        /// The environment variable that says so.
        variable: &'static str,
    },
    /// What the launcher says of the processes cannot be used.
    #[error("{message}")]
    Launcher {
        /// What is wrong and what to do.
        message: String,
    },
    /// The loss or the gradient is infinite or not a number; no weight was changed by this step.
    #[error(
        "{what} is {value}{} at step {step} (learning rate {lr:.3e}, gradient norm {grad_norm}); images: {}. {}. \
         Lower optimizer.base_lr, or check these images",
        rank.map_or(String::new(), |rank| format!(" on rank {rank}")),
        samples.join(", "),
        match checkpoint { Some(path) => format!("The last checkpoint stands: {}", path.display()), None => "No checkpoint was written yet".into() }
    )]
    NonFinite {
        /// `loss` or `gradient norm`.
        what: &'static str,
        /// Its value.
        value: f64,
        /// Steps done before this one.
        step: u64,
        /// Learning rate of the step.
        lr: f64,
        /// Norm of all gradients together; not a number where the loss already failed.
        grad_norm: f64,
        /// The rank, where there are several and one of them is known to be the source.
        rank: Option<usize>,
        /// The images of that rank's part of the batch; of the whole batch where no rank is named.
        samples: Vec<String>,
        /// The newest checkpoint.
        checkpoint: Option<PathBuf>,
    },
    /// The memory of the machine or of a GPU does not suffice for a step.
    #[error(
        "the memory of {device} does not suffice for {batch} images of {size} pixels in {precision}; lower schedule.batch or image_size{}{}. \
         ({message})",
        if matches!(device, Processor::Cuda(_)) { ", or keep fewer activations with `--set compute.recompute=true`" } else { "" },
        stands(checkpoint)
    )]
    OutOfMemory {
        /// The device.
        device: Processor,
        /// Images in a rank's batch.
        batch: usize,
        /// Height and width of the largest view.
        size: String,
        /// Precision of products.
        precision: Precision,
        /// What the driver says; on the CPU what is needed and what there is.
        message: String,
        /// The newest checkpoint.
        checkpoint: Option<PathBuf>,
    },
    /// A GPU failed during a step; this process cannot use it any more.
    #[error(
        "{device} failed during a step: {message}; see the system's log{}, then go on with --resume in a new process{}",
        if matches!(device, Processor::Cuda(_)) { " and `nvidia-smi`" } else { "" },
        stands(checkpoint)
    )]
    DeviceLost {
        /// The device.
        device: Processor,
        /// What the driver says.
        message: String,
        /// The newest checkpoint.
        checkpoint: Option<PathBuf>,
    },
    /// Decoded images cannot be written to disk.
    #[error("cannot keep decoded images in {}: {source}; free space there or keep more in memory: --set data.cache_mib=N", path.display())]
    Cache {
        /// The run folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file of a run cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A checkpoint or another file of a run is damaged or of another model.
    #[error("{}: {message}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
    /// The embeddings of the probe could not be scored.
    #[error("probe folder {}: {message}", path.display())]
    Probe {
        /// The labelled folder.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The thread pool could not be started.
    #[error("cannot start {threads} threads: {message}")]
    Threads {
        /// Threads asked for.
        threads: usize,
        /// What the system says.
        message: String,
    },
}

fn stands(checkpoint: &Option<PathBuf>) -> String {
    match checkpoint {
        Some(path) => format!("; the last checkpoint stands: {}", path.display()),
        None => String::new(),
    }
}

impl TrainError {
    /// Adds the path and what was tried to an I/O error.
    pub(crate) fn io<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| TrainError::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }
}

/// Result with a [`TrainError`].
pub type Result<T, E = TrainError> = std::result::Result<T, E>;
