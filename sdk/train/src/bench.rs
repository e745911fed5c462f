//! Times a training step on random data.

use std::time::Instant;

use candle_core::{Device, Tensor};
use rand_distr::{Distribution, StandardNormal};
use ssl_edge_vision::{MultiCrop, stream};

use crate::collective::Solo;
use crate::config::{MethodName, TrainConfig};
use crate::error::Result;
use crate::learner::Learner;
use crate::loader::pool;
use crate::methods::{Batch, DecoderConfig, HeadConfig, StepContext};

/// Steps before the clock starts, and steps timed.
const WARM: u64 = 2;
const RUNS: u64 = 5;

/// Time of a training step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BenchStep {
    /// Median milliseconds of forward, backward and update.
    pub ms: f64,
    /// Images per second.
    pub img_per_s: f64,
}

/// Times a training step at the papers' sizes on random pixels: MAE on 224 pixels with the 512-wide, 8-block decoder;
/// DINO on 2 crops of 224 and 8 of 96 pixels with 4096 prototypes, hidden width 2048 and bottleneck 256.
///
/// # Errors
/// An unknown architecture.
pub fn bench_step(
    method: MethodName,
    arch: &str,
    batch: usize,
    threads: usize,
) -> Result<BenchStep> {
    let mut config = TrainConfig::preset(method, arch, 1)?;
    config.set_image_size(224);
    config.schedule.batch = batch;
    config.schedule.images = 1000 * batch as u64;
    if let Some(mae) = &mut config.mae {
        mae.decoder = DecoderConfig {
            dim: 512,
            depth: 8,
            heads: 16,
        };
    }
    if let Some(dino) = &mut config.dino {
        dino.crops = MultiCrop::dino(224, [0.4, 1.0], 96, [0.05, 0.4], 8);
        dino.head = HeadConfig {
            out_dim: 4096,
            hidden: 2048,
            bottleneck: 256,
        };
        dino.freeze_last_layer_epochs = 0;
    }
    config.validate()?;
    pool(threads, "bench")?.install(|| time(&config))
}

fn time(config: &TrainConfig) -> Result<BenchStep> {
    let batch = random_batch(config)?;
    let mut learner = Learner::new(config)?;
    let mut times = Vec::new();
    for step in 0..WARM + RUNS {
        let ctx = StepContext {
            seed: 0,
            step,
            steps: config.steps(),
            steps_per_epoch: config.steps(),
            ranks: &Solo,
        };
        let start = Instant::now();
        learner.step(&batch, &ctx)?;
        if step >= WARM {
            times.push(start.elapsed().as_secs_f64());
        }
    }
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    Ok(BenchStep {
        ms: 1e3 * median,
        img_per_s: config.schedule.batch as f64 / median,
    })
}

/// Standard normal pixels in the shapes that a configuration trains on.
pub(crate) fn random_batch(config: &TrainConfig) -> Result<Batch> {
    let n = config.schedule.batch;
    let shapes = match config.method {
        MethodName::Mae => vec![(n, config.mae()?.view)],
        MethodName::Dino => {
            let crops = &config.dino()?.crops;
            vec![(2 * n, crops.globals[0]), (crops.n_locals * n, crops.local)]
        }
    };
    let mut rng = stream(config.seed, 0, 0, 0);
    let mut views = Vec::new();
    for (rows, view) in shapes {
        let values: Vec<f32> = (0..rows * view.len())
            .map(|_| StandardNormal.sample(&mut rng))
            .collect();
        let shape = (rows, 3, view.height as usize, view.width as usize);
        views.push(Tensor::from_vec(values, shape, &Device::Cpu)?);
    }
    Ok(Batch {
        samples: (0..n).collect(),
        views,
    })
}
