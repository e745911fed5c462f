//! Presets by method, architecture and size of the data set.
//!
//! The large ones are the papers'. Below 100,000 images crops are smaller, and DINO's number of prototypes, teacher
//! temperature and teacher momentum shrink with the data set, as what suits a million images collapses on a thousand.

use ssl_edge_nn::VitConfig;
use ssl_edge_nn::optim::{AdamWConfig, Clip};
use ssl_edge_vision::{AugmentConfig, Fit, MultiCrop, Preprocess};

use crate::config::{
    CheckpointConfig, ComputeConfig, DataConfig, MethodName, OptimizerConfig, ScheduleConfig,
    TrainConfig, rejected,
};
use crate::error::Result;
use crate::methods::{DecoderConfig, DinoConfig, HeadConfig, MaeConfig};

/// From this many images on the papers' crop sizes, batch and weight-decay schedule are used.
const LARGE: usize = 100_000;

impl TrainConfig {
    /// The preset for `n_images` images, with no folder yet.
    ///
    /// `arch` is one of [`VitConfig::NAMES`].
    ///
    /// # Errors
    /// An unknown architecture.
    pub fn preset(method: MethodName, arch: &str, n_images: usize) -> Result<Self> {
        let mut encoder = VitConfig::named(arch).map_err(rejected)?;
        let large = n_images >= LARGE;
        let (size, local, n_locals) = match (encoder.patch, large) {
            (16, false) => (128, 64, 4),
            (16, true) => (224, 96, 8),
            (_, false) => (96, 48, 4),
            (_, true) => (128, 64, 8),
        };
        encoder.image_size = [size as usize; 2];
        let schedule = schedule(n_images);
        let steps = (schedule.images / schedule.batch as u64) as f64;
        let (mae, dino) = match method {
            MethodName::Mae => (Some(mae(&encoder, size)), None),
            MethodName::Dino => {
                let crops = MultiCrop::dino(size, [0.4, 1.0], local, [0.05, 0.4], n_locals);
                (None, Some(dino(n_images, steps, crops)))
            }
        };
        Ok(Self {
            method,
            arch: arch.into(),
            seed: 0,
            threads: 0,
            optimizer: match method {
                MethodName::Mae => mae_optimizer(large),
                MethodName::Dino => dino_optimizer(large, encoder.dim),
            },
            encoder,
            data: DataConfig {
                folders: Vec::new(),
                shorter_side: 512,
                cache_mib: 2048,
                threads: 0,
                prefetch: 2,
            },
            schedule,
            preprocess: Preprocess::imagenet(size, size, Fit::Squash),
            checkpoint: CheckpointConfig {
                every_steps: 250,
                keep: 2,
            },
            compute: ComputeConfig::default(),
            mae,
            dino,
            probe: None,
        })
    }
}

/// DINO's prototypes for data sets of fewer images than the first number.
const PROTOTYPES: [(usize, usize); 5] = [
    (20_000, 1024),
    (50_000, 2048),
    (100_000, 4096),
    (200_000, 16_384),
    (500_000, 32_768),
];

/// Below 20,000 images a budget that two cores see in well under an hour, then 100 epochs.
fn schedule(n_images: usize) -> ScheduleConfig {
    let batch = if n_images < LARGE { 64 } else { 256 };
    let images = if n_images < 20_000 {
        37_400
    } else {
        100 * n_images as u64
    };
    let steps = images as f64 / batch as f64;
    ScheduleConfig {
        images,
        batch,
        warmup: (12_500.0 / steps).min(0.1),
    }
}

fn mae(encoder: &VitConfig, size: u32) -> MaeConfig {
    let (dim, depth, heads) = match encoder.dim {
        ..=192 => (128, 2, 4),
        193..=384 => (256, 4, 8),
        _ => (512, 8, 16),
    };
    MaeConfig {
        mask_ratio: 0.75,
        norm_pix: true,
        decoder: DecoderConfig { dim, depth, heads },
        view: AugmentConfig::mae(size),
    }
}

/// The paper's rate is for batches of 4096 and hundreds of epochs; short runs on small batches need more.
fn mae_optimizer(large: bool) -> OptimizerConfig {
    OptimizerConfig {
        base_lr: if large { 1.5e-4 } else { 2e-3 },
        end_lr: 0.0,
        weight_decay: 0.05,
        weight_decay_end: 0.05,
        clip: Clip::None,
        adamw: AdamWConfig {
            beta2: 0.95,
            ..AdamWConfig::default()
        },
    }
}

fn dino(n_images: usize, steps: f64, crops: MultiCrop) -> DinoConfig {
    let prototypes = PROTOTYPES.iter().find(|(below, _)| n_images < *below);
    let out_dim = prototypes.map_or(65_536, |(_, k)| *k);
    // 0 at 20,000 images, 1 at a million, linear in the logarithm.
    let size = ((n_images as f64 / 20_000.0).ln() / 50f64.ln()).clamp(0.0, 1.0);
    let between = |small: f64, large: f64| small + (large - small) * size;
    DinoConfig {
        student_temperature: 0.1,
        teacher_temperature_start: between(0.02, 0.04),
        teacher_temperature: between(0.04, 0.07),
        temperature_warmup: (37_500.0 / steps).min(0.3),
        momentum: between(0.99, 0.996),
        center_momentum: 0.9,
        freeze_last_layer_epochs: 1,
        drop_path: 0.0,
        head: HeadConfig {
            out_dim,
            hidden: 2048,
            bottleneck: 256,
        },
        crops,
    }
}

fn dino_optimizer(large: bool, dim: usize) -> OptimizerConfig {
    OptimizerConfig {
        base_lr: if large || dim > 192 { 5e-4 } else { 1e-3 },
        end_lr: 1e-6,
        weight_decay: 0.04,
        weight_decay_end: if large { 0.4 } else { 0.04 },
        clip: Clip::PerTensor(3.0),
        adamw: AdamWConfig::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_valid() {
        for method in MethodName::ALL {
            for arch in VitConfig::NAMES {
                for n in [1, 600, 19_999, 20_000, 150_000, 1_300_000] {
                    let mut config = TrainConfig::preset(method, arch, n).unwrap();
                    config
                        .validate()
                        .unwrap_or_else(|e| panic!("{method} {arch} {n}: {e}"));
                    config.seed = 1;
                }
            }
        }
    }

    #[test]
    fn the_small_dino_preset_is_the_recipe() {
        let config = TrainConfig::preset(MethodName::Dino, "vit_n16", 11_000).unwrap();
        let dino = config.dino().unwrap();
        assert_eq!(config.schedule.batch, 64);
        assert_eq!(config.steps(), 584);
        assert!((config.peak_lr() - 2.5e-4).abs() < 1e-12);
        assert_eq!(dino.head.out_dim, 1024);
        assert_eq!(
            (dino.teacher_temperature_start, dino.teacher_temperature),
            (0.02, 0.04)
        );
        assert_eq!(dino.momentum, 0.99);
        assert_eq!(config.optimizer.clip, Clip::PerTensor(3.0));
        assert_eq!(dino.crops.globals[0].height, 128);
        assert_eq!((dino.crops.local.height, dino.crops.n_locals), (64, 4));
    }

    #[test]
    fn the_large_presets_are_the_papers() {
        let config = TrainConfig::preset(MethodName::Dino, "vit_s16", 1_281_167).unwrap();
        let dino = config.dino().unwrap();
        assert_eq!(dino.head.out_dim, 65_536);
        assert!((dino.teacher_temperature - 0.07).abs() < 1e-12);
        assert!((dino.momentum - 0.996).abs() < 1e-12);
        assert_eq!(config.optimizer.weight_decay_end, 0.4);
        assert_eq!(
            (dino.crops.globals[0].height, dino.crops.n_locals),
            (224, 8)
        );
        let config = TrainConfig::preset(MethodName::Mae, "vit_b16", 1_281_167).unwrap();
        let decoder = &config.mae().unwrap().decoder;
        assert_eq!((decoder.dim, decoder.depth, decoder.heads), (512, 8, 16));
        assert_eq!(config.optimizer.base_lr, 1.5e-4);
    }
}
