//! Self-supervised methods behind one trait; each is one file.

mod dino;
mod dino_head;
mod mae;

pub use dino::{Dino, DinoConfig, HeadConfig};
pub use mae::{DecoderConfig, Mae, MaeConfig, Masking, random_masking};

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor};
use rand_chacha::ChaCha8Rng;
use ssl_edge_nn::optim::{AdamW, Update};
use ssl_edge_nn::{Init, Params, VitConfig};
use ssl_edge_vision::stream;

use crate::checkpoint::Tensors;
use crate::collective::Collective;
use crate::config::{MethodName, TrainConfig};
use crate::error::Result;

/// Prefix of the encoder's parameters inside a method's.
pub const ENCODER: &str = "encoder.";

/// First words of random streams of this crate, see [`ssl_edge_vision::stream`].
pub(crate) mod purpose {
    pub(crate) const INIT: u64 = 1;
    pub(crate) const SHUFFLE: u64 = 2;
    pub(crate) const MASK: u64 = 3;
    /// Of view `v`: `DROP_PATH + v`.
    pub(crate) const DROP_PATH: u64 = 1 << 16;
}

/// A rank's part of the images of one step, as a method needs them.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Index of each image in the data set, `B` of them.
    pub samples: Vec<usize>,
    /// One tensor `[V * B, 3, S, S]` per resolution, view by view: MAE has one with V = 1; DINO has the two global
    /// crops, then the local ones.
    pub views: Vec<Tensor>,
}

impl Batch {
    /// The same with its views on a device.
    pub(crate) fn on(&self, device: &Device) -> Result<Self> {
        let views = self.views.iter().map(|view| view.to_device(device));
        Ok(Self {
            samples: self.samples.clone(),
            views: views.collect::<candle_core::Result<_>>()?,
        })
    }
}

/// Where in the run a step is, and with whom it is made.
#[derive(Clone, Copy, Debug)]
pub struct StepContext<'a> {
    /// Seed of the run.
    pub seed: u64,
    /// Steps done before this one.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// Steps in one pass over the images.
    pub steps_per_epoch: u64,
    /// The ranks that share the step's batch. What a method keeps of a batch's statistics it takes over all of them, so
    /// that it stays the same on every rank.
    pub ranks: &'a dyn Collective,
}

/// A self-supervised method: its networks, its loss and what it does after each step.
pub trait Method: Send {
    /// Name in configurations and manifests.
    fn name(&self) -> &'static str;

    /// The parameters that the optimiser sees, the encoder's under [`ENCODER`].
    fn params(&self) -> &Params;

    /// Whether a parameter is updated in this step.
    fn is_trained(&self, name: &str, ctx: &StepContext) -> bool;

    /// Loss of this rank's part of the batch, a mean over its images: a scalar with a graph to every trained parameter.
    ///
    /// What is random about an image depends on seed, step and the image's index in the data set, not on its place in `batch`.
    fn loss(&mut self, batch: &Batch, ctx: &StepContext) -> Result<Tensor>;

    /// Updates the weights and what follows them.
    ///
    /// # Errors
    /// A gradient that does not fit; a device that fails.
    fn update(
        &mut self,
        optimizer: &mut AdamW,
        grads: &GradStore,
        update: &Update<'_>,
        ctx: &StepContext,
    ) -> Result<()> {
        optimizer.step(self.params(), grads, update)?;
        self.after_step(ctx)
    }

    /// What follows the weights; called after they were updated.
    fn after_step(&mut self, ctx: &StepContext) -> Result<()>;

    /// The encoder's tensors that a bundle is made of, without prefix, sharing memory with the method's.
    fn encoder(&self) -> Tensors;

    /// Tensors beside the trained parameters without which a run cannot go on.
    fn state(&self) -> Result<Tensors>;

    /// Takes over trained parameters and what [`Method::state`] returned.
    fn restore(&mut self, model: &Tensors, state: &Tensors) -> Result<()>;

    /// What looks wrong with the run so far, and the remedy; asked after every step.
    fn warning(&self) -> Option<String> {
        None
    }

    /// Figures of the last step worth a look, for the metrics.
    fn figures(&self) -> BTreeMap<&'static str, f64>;
}

/// The method of a configuration on a device, with freshly drawn weights.
pub fn build(config: &TrainConfig, device: &Device) -> Result<Box<dyn Method>> {
    let (encoder, seed) = (&config.encoder, config.seed);
    Ok(match config.method {
        MethodName::Mae => Box::new(Mae::on(device, encoder, config.mae()?, seed)?),
        MethodName::Dino => Box::new(Dino::on(device, encoder, config.dino()?, seed)?),
    })
}

/// Draws the parameters for which `choose` names a law again, each from a stream of its own order.
fn redraw(
    params: &Params,
    seed: u64,
    choose: impl Fn(&str, &[usize]) -> Option<Init>,
) -> Result<()> {
    let mut rng = init_rng(seed, 1);
    for (name, param) in params.iter() {
        if let Some(init) = choose(name, param.var.dims()) {
            let values = init.values(param.var.dims(), &mut rng);
            let tensor = Tensor::from_vec(values, param.var.dims(), param.var.device())?;
            param.var.set(&tensor)?;
        }
    }
    Ok(())
}

fn init_rng(seed: u64, part: u64) -> ChaCha8Rng {
    stream(seed, 0, part, purpose::INIT)
}

/// The tensors under `prefix`, with it removed.
pub(crate) fn strip(tensors: &Tensors, prefix: &str) -> Tensors {
    tensors
        .iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_string(), tensor.clone())))
        .collect()
}

fn tokens(config: &VitConfig) -> Result<usize> {
    let [height, width] = config.grid(config.image_size)?;
    Ok(height * width)
}
