//! One update of the weights: loss, gradients, clipping, rates, optimiser.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use candle_core::Device;
use ssl_edge_nn::backward;
use ssl_edge_nn::compute::{autocast, is_device_lost, is_out_of_memory, pooled, synchronize};
use ssl_edge_nn::optim::{AdamW, GradNorms, Update};
use ssl_edge_nn::schedule::cosine;

use crate::checkpoint::Checkpoint;
use crate::collective::{average_gradients, gather_f64};
use crate::config::TrainConfig;
use crate::data::{Dataset, Fnv};
use crate::error::{Result, TrainError};
use crate::methods::{self, Batch, Method, StepContext};

/// A method with its optimiser and rates.
pub(crate) struct Learner {
    pub(crate) device: Device,
    pub(crate) method: Box<dyn Method>,
    pub(crate) optimizer: AdamW,
    config: TrainConfig,
}

/// Figures of one step.
pub(crate) struct Step {
    pub(crate) loss: f64,
    pub(crate) lr: f64,
    pub(crate) weight_decay: f64,
    pub(crate) grad_norm: f64,
    pub(crate) seconds: Phases,
}

/// Seconds of the parts of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Phases {
    pub(crate) forward: f64,
    pub(crate) backward: f64,
    /// Norms, clipping, optimiser, teacher.
    pub(crate) update: f64,
}

impl Learner {
    pub(crate) fn new(config: &TrainConfig) -> Result<Self> {
        let device = config.compute.open()?;
        let start = || {
            let method = methods::build(config, &device)?;
            Ok(Self {
                optimizer: AdamW::new(method.params(), config.optimizer.adamw)?,
                method,
                device: device.clone(),
                config: config.clone(),
            })
        };
        start().map_err(|e| name_device(e, config, config.schedule.batch))
    }

    /// Takes over a checkpoint; returns its step.
    pub(crate) fn resume(
        &mut self,
        checkpoint: &Path,
        dataset: &Dataset,
        folder: &Path,
    ) -> Result<u64> {
        let Checkpoint {
            state,
            model,
            teacher,
            optim,
        } = Checkpoint::load(checkpoint)?;
        if (state.dataset_images, state.dataset_id) != (dataset.len(), dataset.id()) {
            return Err(TrainError::DataChanged {
                path: folder.into(),
                then: state.dataset_images,
                now: dataset.len(),
            });
        }
        let restored = self.method.restore(&model, &teacher);
        restored
            .and_then(|()| Ok(self.optimizer.load_state(&optim)?))
            .map_err(|e| TrainError::Damaged {
                path: checkpoint.into(),
                message: format!("{e}; remove this folder to go on from the checkpoint before"),
            })?;
        Ok(state.step)
    }

    /// One update of the weights, the same on all ranks. On error no weight has changed.
    pub(crate) fn step(&mut self, batch: &Batch, ctx: &StepContext) -> Result<Step> {
        let done = pooled(|| self.compute(batch, ctx));
        done.map_err(|e| name_device(e, &self.config, batch.samples.len()))
    }

    fn compute(&mut self, batch: &Batch, ctx: &StepContext) -> Result<Step> {
        let batch = &batch.on(&self.device)?;
        let o = &self.config.optimizer;
        let warmup = (self.config.schedule.warmup * ctx.steps as f64) as u64;
        let lr = cosine(
            self.config.peak_lr(),
            o.end_lr,
            warmup,
            ctx.steps,
            0.0,
            ctx.step,
        );
        let weight_decay = cosine(
            o.weight_decay,
            o.weight_decay_end,
            0,
            ctx.steps,
            0.0,
            ctx.step,
        );
        let ranks = ctx.ranks;
        let non_finite = |what, (rank, value), grad_norm| TrainError::NonFinite {
            what,
            value,
            rank,
            step: ctx.step,
            lr,
            grad_norm,
            samples: Vec::new(),
            checkpoint: None,
        };
        let start = Instant::now();
        let precision = self.config.compute.precision();
        let loss = autocast(precision, || self.method.loss(batch, ctx))?;
        let forward = start.elapsed().as_secs_f64();
        let losses = gather_f64(ranks, f64::from(loss.to_scalar::<f32>()?))?;
        if let Some(found) = first_non_finite(&losses) {
            return Err(non_finite("loss", found, f64::NAN));
        }
        let mut grads = backward(&loss)?;
        drop(loss);
        synchronize(&self.device)?;
        let backward = start.elapsed().as_secs_f64() - forward;
        let params = self.method.params();
        let is_trained = |name: &str| self.method.is_trained(name, ctx);
        if ranks.world() > 1 {
            // The mean would not tell whose gradient it was.
            let own = GradNorms::of(params, &grads, &is_trained)?.global();
            if let Some(found) = first_non_finite(&gather_f64(ranks, own)?) {
                return Err(non_finite("gradient norm", found, found.1));
            }
            average_gradients(ranks, params, &mut grads, &is_trained)?;
        }
        let norms = GradNorms::of(params, &grads, &is_trained)?;
        let norm = norms.global();
        if !norm.is_finite() {
            return Err(non_finite("gradient norm", (None, norm), norm));
        }
        let factors: BTreeMap<String, f64> = params
            .iter()
            .filter(|(name, _)| is_trained(name))
            .map(|(name, _)| (name.to_owned(), o.clip.factor(&norms, name)))
            .collect();
        let update = Update {
            lr,
            weight_decay,
            factor: &|name| factors.get(name).copied(),
        };
        self.method
            .update(&mut self.optimizer, &grads, &update, ctx)?;
        Ok(Step {
            loss: losses.iter().sum::<f64>() / losses.len() as f64,
            lr,
            weight_decay,
            grad_norm: norm,
            seconds: Phases {
                forward,
                backward,
                update: start.elapsed().as_secs_f64() - forward - backward,
            },
        })
    }

    /// Fingerprint of everything that must be the same on all ranks after every step.
    pub(crate) fn fingerprint(&self) -> Result<u64> {
        let mut hash = Fnv::new();
        for tensors in [self.method.params().to_map(), self.method.state()?] {
            for tensor in tensors.values() {
                for value in tensor.flatten_all()?.to_vec1::<f32>()? {
                    hash.add(&value.to_le_bytes());
                }
            }
        }
        Ok(hash.value())
    }
}

/// What failed for want of memory, or because the device did, says so.
fn name_device(error: TrainError, config: &TrainConfig, batch: usize) -> TrainError {
    let (TrainError::Tensor(cause) | TrainError::Network(ssl_edge_nn::Error::Candle(cause))) =
        &error
    else {
        return error;
    };
    let (device, message, checkpoint) = (config.compute.device, first_line(cause), None);
    if is_out_of_memory(cause) {
        let [height, width] = config.encoder.image_size;
        return TrainError::OutOfMemory {
            device,
            batch,
            size: format!("{height}x{width}"),
            precision: config.compute.precision(),
            message,
            checkpoint,
        };
    }
    if is_device_lost(cause) {
        return TrainError::DeviceLost {
            device,
            message,
            checkpoint,
        };
    }
    error
}

/// An error without its backtrace.
fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().into()
}

/// The first value that is not finite, with its rank where there are several.
fn first_non_finite(values: &[f64]) -> Option<(Option<usize>, f64)> {
    let rank = values.iter().position(|value| !value.is_finite())?;
    Some(((values.len() > 1).then_some(rank), values[rank]))
}
