//! The complete configuration of a run and its checks.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use candle_core::Device;
use serde::{Deserialize, Serialize};
use ssl_edge_nn::VitConfig;
use ssl_edge_nn::compute::{Precision, Processor};
use ssl_edge_nn::optim::{AdamWConfig, Clip};
use ssl_edge_vision::{AugmentConfig, Preprocess};

use crate::error::{Result, TrainError};
use crate::methods::{DinoConfig, MaeConfig};

/// A self-supervised method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MethodName {
    /// Masked autoencoder.
    Mae,
    /// Self-distillation with no labels.
    Dino,
}

/// Everything that decides what a run computes, as saved in its `config.toml`.
///
/// [`TrainConfig::preset`] gives one for a method, an architecture and a number of images; see
/// [`Request`](crate::Request) for files and overrides on top of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Method.
    pub method: MethodName,
    /// Name of the architecture that `encoder` started from.
    pub arch: String,
    /// Seed of everything random, below 2^63.
    pub seed: u64,
    /// Threads of the training step; 0 takes all cores. No result depends on it.
    pub threads: usize,
    /// Shape of the encoder; `image_size` is the size of the (global) training crops.
    pub encoder: VitConfig,
    /// Images.
    pub data: DataConfig,
    /// Length and rates.
    pub schedule: ScheduleConfig,
    /// Update rule.
    pub optimizer: OptimizerConfig,
    /// How a frame becomes the encoder's input at inference; training uses its mean and standard deviation.
    pub preprocess: Preprocess,
    /// When checkpoints are written.
    pub checkpoint: CheckpointConfig,
    /// Where and in what precision steps are computed.
    #[serde(default)]
    pub compute: ComputeConfig,
    /// Settings of MAE, where that is the method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mae: Option<MaeConfig>,
    /// Settings of DINO, where that is the method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dino: Option<DinoConfig>,
    /// A labelled folder to score during training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeConfig>,
}

/// Images and how they are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Folders searched with all that is below them.
    pub folders: Vec<PathBuf>,
    /// An image whose shorter side is longer, in pixels, is scaled down to it when it is decoded; 0 keeps every image as it is.
    pub shorter_side: u32,
    /// Memory for decoded images in MiB; those beyond it wait in a temporary file of the run folder. No result depends on it.
    pub cache_mib: usize,
    /// Threads that prepare the next batches; 0 takes half of the training threads. No result depends on it.
    pub threads: usize,
    /// Batches prepared ahead.
    pub prefetch: usize,
}

/// Length and rates of a run. Rates follow a linear warm-up and a half cosine, per step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Images seen in the whole run, counting repeats; the run has `images / batch` steps.
    pub images: u64,
    /// Images in a batch, of all ranks together.
    pub batch: usize,
    /// Part of the run over which the learning rate rises from 0, 0 to 1.
    pub warmup: f64,
}

/// Update rule: AdamW with weight decay on tensors of two dimensions or more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Learning rate per 256 images: the peak is `base_lr * batch / 256`.
    pub base_lr: f64,
    /// Learning rate at the end, not scaled.
    pub end_lr: f64,
    /// Weight decay at the start.
    pub weight_decay: f64,
    /// Weight decay at the end.
    pub weight_decay_end: f64,
    /// Limit on gradients.
    pub clip: Clip,
    /// Coefficients of AdamW.
    pub adamw: AdamWConfig,
}

/// Where and in what precision steps are computed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ComputeConfig {
    /// `cpu`, `cuda`, `cuda:N` or `metal`.
    pub device: Processor,
    /// What matrix products read, `f32` or `bf16`; absent for what suits the device, bf16 on NVIDIA GPUs and f32 elsewhere. On CPUs with AVX-512 BF16 products
    /// in bf16 are up to twice as fast.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// Whether transformer blocks compute their activations again in the backward instead of keeping them: on GPUs, where memory does
    /// not suffice for the batch. No result depends on it.
    pub recompute: bool,
}

impl ComputeConfig {
    /// The precision asked for, or the device's usual one.
    pub fn precision(&self) -> Precision {
        self.precision.unwrap_or(self.device.usual_precision())
    }

    /// Opens the device.
    ///
    /// # Errors
    /// The reason why it cannot be used.
    pub fn open(&self) -> Result<Device> {
        if self.precision() == Precision::F16 {
            return Err(rejected(
                "compute.precision f16 is for encoders that only run; train in f32 or bf16",
            ));
        }
        Ok(self.device.open(self.precision(), self.recompute)?)
    }
}

/// When checkpoints are written; there is always one at the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Steps from one to the next.
    pub every_steps: u64,
    /// How many are kept.
    pub keep: usize,
}

/// A folder of class folders on which the encoder is scored by its nearest neighbours during training.
///
/// If it holds the folders `train` and `val`, these are searched and scored; else every second image of a class is
/// searched and the others are scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeConfig {
    /// The folder.
    pub folder: PathBuf,
    /// Steps from one score to the next; there is always one before the first step, of the random encoder, and one at the end.
    pub every_steps: u64,
    /// Images used of each class and part at most, evenly spaced.
    pub max_per_class: usize,
}

impl MethodName {
    /// Every method.
    pub const ALL: [Self; 2] = [Self::Mae, Self::Dino];

    /// Name in configurations and manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mae => "mae",
            Self::Dino => "dino",
        }
    }
}

impl fmt::Display for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for MethodName {
    type Err = TrainError;

    fn from_str(name: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|method| method.as_str() == name);
        known.ok_or_else(|| TrainError::Unknown {
            what: "method",
            name: name.into(),
            known: Self::ALL.map(Self::as_str).join(", "),
        })
    }
}

impl TrainConfig {
    /// Steps of the whole run.
    pub fn steps(&self) -> u64 {
        self.schedule.images / self.schedule.batch.max(1) as u64
    }

    /// Peak learning rate, scaled with the batch.
    pub fn peak_lr(&self) -> f64 {
        self.optimizer.base_lr * self.schedule.batch as f64 / 256.0
    }

    /// Settings of MAE.
    pub fn mae(&self) -> Result<&MaeConfig> {
        self.mae
            .as_ref()
            .ok_or_else(|| rejected("method mae needs a section [mae]"))
    }

    /// Settings of DINO.
    pub fn dino(&self) -> Result<&DinoConfig> {
        self.dino
            .as_ref()
            .ok_or_else(|| rejected("method dino needs a section [dino]"))
    }

    /// Checks that all settings fit each other.
    ///
    /// # Errors
    /// Names the first key that does not fit and what would.
    pub fn validate(&self) -> Result<()> {
        self.encoder.validate().map_err(rejected)?;
        self.preprocess.validate().map_err(rejected)?;
        self.validate_schedule()?;
        let views: Vec<&AugmentConfig> = match self.method {
            MethodName::Mae => {
                self.mae()?.validate(&self.encoder)?;
                vec![&self.mae()?.view]
            }
            MethodName::Dino => {
                self.dino()?.validate()?;
                let crops = &self.dino()?.crops;
                self.validate_view(&crops.local)?;
                crops.globals.iter().collect()
            }
        };
        for view in views {
            self.validate_view(view)?;
            if [view.height as usize, view.width as usize] != self.encoder.image_size {
                return Err(rejected(format!(
                    "the (global) crops have {}x{} pixels and encoder.image_size is {:?}; `--set image_size=N` sets both",
                    view.height, view.width, self.encoder.image_size
                )));
            }
        }
        Ok(())
    }

    fn validate_view(&self, view: &AugmentConfig) -> Result<()> {
        view.validate().map_err(rejected)?;
        let size = [view.height as usize, view.width as usize];
        self.encoder.grid(size).map(|_| ()).map_err(rejected)
    }

    fn validate_schedule(&self) -> Result<()> {
        let ScheduleConfig {
            images,
            batch,
            warmup,
        } = self.schedule;
        if batch == 0 || images < batch as u64 {
            return Err(rejected(format!(
                "schedule.images {images} must be at least schedule.batch {batch}, and that at least 1"
            )));
        }
        if !(0.0..=1.0).contains(&warmup) {
            return Err(rejected(format!(
                "schedule.warmup is {warmup}; it must be from 0 to 1"
            )));
        }
        let o = &self.optimizer;
        let rates = [
            ("base_lr", o.base_lr),
            ("end_lr", o.end_lr),
            ("weight_decay", o.weight_decay),
            ("weight_decay_end", o.weight_decay_end),
        ];
        for (key, value) in rates {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(rejected(format!(
                    "optimizer.{key} is {value}; it must be 0 or more"
                )));
            }
        }
        if i64::try_from(self.seed).is_err() {
            return Err(rejected("seed must be below 2^63"));
        }
        if self.checkpoint.every_steps == 0 || self.checkpoint.keep == 0 {
            return Err(rejected(
                "checkpoint.every_steps and checkpoint.keep must be at least 1",
            ));
        }
        if let Some(probe) = &self.probe
            && (probe.every_steps == 0 || probe.max_per_class == 0)
        {
            return Err(rejected(
                "probe.every_steps and probe.max_per_class must be at least 1",
            ));
        }
        Ok(())
    }
}

/// A configuration error without a file of its own.
pub(crate) fn rejected(message: impl fmt::Display) -> TrainError {
    TrainError::Config {
        origin: "configuration".into(),
        message: message.to_string(),
    }
}
