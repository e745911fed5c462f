//! Self-supervised pretraining on unlabelled images.
//!
//! [`Request::resolve`] makes a complete [`TrainConfig`] from a method, an architecture, folders, a TOML file and overrides;
//! [`pretrain`] runs it and tells an [`Observer`] how it goes; [`export_run`](crate::export::export_run) packs the result. A run that is
//! stopped can be resumed and ends with the same bits.
//!
//! [`pretrain_over`] trains as one of several ranks that share every batch; [`collective::connect`] finds out whether `mpirun` or `srun`
//! started this process as one (feature `mpi`), [`collective::Threads`] makes ranks within a process.
//!
//! ```no_run
//! use ssl_edge::train::{MethodName, Request, RunOptions, pretrain};
//! let request = Request {
//!     method: MethodName::Dino,
//!     arch: "vit_n16".into(),
//!     data: vec!["photos".into()],
//!     config: None,
//!     set: Vec::new(),
//!     probe: None,
//! };
//! let summary = pretrain(&request.resolve()?, &RunOptions { folder: "runs/first".into(), resume: false }, &())?;
//! println!("{} images seen, checkpoint {}", summary.images_seen, summary.checkpoint.display());
//! # Ok::<(), ssl_edge::train::TrainError>(())
//! ```

#[doc(inline)]
pub use ssl_edge_train::collective;

pub use ssl_edge_nn::compute::{Precision, Processor, multiplies_bf16};
pub use ssl_edge_nn::optim::{AdamWConfig, Clip};
pub use ssl_edge_nn::{Gelu, VitConfig};
pub use ssl_edge_train::methods::{DecoderConfig, DinoConfig, HeadConfig, MaeConfig};
pub use ssl_edge_train::{
    BenchStep, CheckpointConfig, ComputeConfig, DataConfig, MethodName, Observer, OptimizerConfig,
    ProbeConfig, ProbeScore, Progress, Request, RunInfo, RunOptions, RunSummary, ScheduleConfig,
    TrainConfig, TrainError, bench_step, latest_checkpoint, pretrain, pretrain_over,
};
