//! Times a training step on random data.

use std::time::Instant;

use candle_core::{Device, Tensor};
use rand_distr::{Distribution, StandardNormal};
use ssl_edge_nn::compute::{autocast, most_memory, product_rate, synchronize};
use ssl_edge_vision::{MultiCrop, stream};

use crate::collective::{Collective, Share};
use crate::config::{ComputeConfig, MethodName, TrainConfig};
use crate::error::Result;
use crate::flops::step_flops;
use crate::learner::Learner;
use crate::loader::pool;
use crate::memory;
use crate::methods::{Batch, DecoderConfig, HeadConfig, StepContext};

/// Steps before the clock starts, and steps timed.
const WARM: u64 = 2;
const RUNS: u64 = 5;
/// The same on a GPU, whose steps are short.
const GPU_WARM: u64 = 5;
const GPU_RUNS: u64 = 20;

/// Side of the square product that shows what a CPU can do.
const SIDE: usize = 2048;
/// The same of a GPU.
const GPU_SIDE: usize = 8192;

/// What a training step costs; where several ranks share it, as this rank sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BenchStep {
    /// Median milliseconds of forward, backward and update.
    pub ms: f64,
    /// Images per second, of all ranks together.
    pub img_per_s: f64,
    /// Milliseconds of the median step's loss.
    pub forward_ms: f64,
    /// Milliseconds of its gradients.
    pub backward_ms: f64,
    /// Milliseconds of its norms, optimiser and teacher.
    pub update_ms: f64,
    /// 10⁹ floating-point operations a second in the step's matrix products, over the whole step and all ranks.
    pub gflops: f64,
    /// The same of one square product of 2048 (8192 on a GPU) by the same code: what the machine can do.
    pub product_gflops: f64,
    /// Most memory the process has held, in MiB, on a GPU where that computes; `None` where the system does not say.
    pub peak_mib: Option<f64>,
}

/// Costs of a training step at the papers' sizes on random pixels, `batch` images for all `ranks` together: MAE on `size` pixels with the 512-wide, 8-block decoder;
/// DINO on 2 crops of `size` and 8 of about `size` · 3/7 pixels (96 for 224) with 4096 prototypes, hidden width 2048 and
/// bottleneck 256.
///
/// # Errors
/// An unknown architecture, a size that is not a whole number of patches, a step that memory cannot suffice for, a batch that is not a
/// multiple of the number of ranks, and what the ranks run into.
pub fn bench_step(
    method: MethodName,
    arch: &str,
    size: u32,
    batch: usize,
    threads: usize,
    compute: &ComputeConfig,
    ranks: &dyn Collective,
) -> Result<BenchStep> {
    let mut config = papers_config(method, arch, size, batch)?;
    config.compute = compute.clone();
    Share::new(batch, ranks.rank(), ranks.world())?;
    memory::check(&config, batch / ranks.world())?;
    pool(threads, "bench")?.install(|| time(&config, ranks))
}

/// The papers' sizes for a batch of square images.
pub(crate) fn papers_config(
    method: MethodName,
    arch: &str,
    size: u32,
    batch: usize,
) -> Result<TrainConfig> {
    let mut config = TrainConfig::preset(method, arch, 1)?;
    let patch = config.encoder.patch as u32;
    config.set_image_size(size);
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
        let local = ((size * 3 / 7 + patch / 2) / patch).max(1) * patch;
        dino.crops = MultiCrop::dino(size, [0.4, 1.0], local, [0.05, 0.4], 8);
        dino.head = HeadConfig {
            out_dim: 4096,
            hidden: 2048,
            bottleneck: 256,
        };
        dino.freeze_last_layer_epochs = 0;
    }
    config.validate()?;
    Ok(config)
}

fn time(config: &TrainConfig, ranks: &dyn Collective) -> Result<BenchStep> {
    let mut learner = Learner::new(config)?;
    let device = learner.device.clone();
    let images = config.schedule.batch / ranks.world();
    let batch = random_batch(config, images)?.on(&device)?;
    let (warm, runs, side) = match device.is_cpu() {
        true => (WARM, RUNS, SIDE),
        false => (GPU_WARM, GPU_RUNS, GPU_SIDE),
    };
    let mut times = Vec::new();
    for step in 0..warm + runs {
        let ctx = StepContext {
            seed: 0,
            step,
            steps: config.steps(),
            steps_per_epoch: config.steps(),
            ranks,
        };
        let start = Instant::now();
        let mut phases = learner.step(&batch, &ctx)?.seconds;
        synchronize(&device)?;
        phases.update = start.elapsed().as_secs_f64() - phases.forward - phases.backward;
        if step >= warm {
            times.push((start.elapsed().as_secs_f64(), phases));
        }
    }
    let peak_mib = match most_memory(&device, false)? {
        Some(bytes) => Some(bytes as f64 / f64::from(1 << 20)),
        None => peak_mib(),
    };
    drop((learner, batch));
    times.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (median, phases) = times[times.len() / 2];
    Ok(BenchStep {
        ms: 1e3 * median,
        img_per_s: config.schedule.batch as f64 / median,
        forward_ms: 1e3 * phases.forward,
        backward_ms: 1e3 * phases.backward,
        update_ms: 1e3 * phases.update,
        gflops: 1e-9 * step_flops(config)? / median,
        product_gflops: 1e-9
            * autocast(config.compute.precision(), || {
                product_rate(&device, side, RUNS as usize)
            })?,
        peak_mib,
    })
}

/// The high-water mark of resident memory that Linux keeps.
fn peak_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

/// Standard normal pixels of `n` images in the shapes that a configuration trains on.
fn random_batch(config: &TrainConfig, n: usize) -> Result<Batch> {
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
