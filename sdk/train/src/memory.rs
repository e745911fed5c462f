//! How much memory a run on the CPU needs, estimated from shapes, and how much there is: a process that runs out of it is ended by the
//! system without a word.

mod room;

use ssl_edge_nn::VitConfig;
use ssl_edge_nn::compute::Processor;

use crate::collective::processes_here;
use crate::config::TrainConfig;
use crate::error::{Result, TrainError};

pub(crate) use room::Room;

const MIB: f64 = (1 << 20) as f64;

/// What a process holds beside tensors: itself, stacks, small things.
const BASE: f64 = 128.0 * MIB;

/// Memory over the bytes of tensors. Buffers are used again for lengths up to half of their own and freed memory is kept. Fitted once to
/// the peaks of `docs/performance.md`, of which the estimate is within a tenth.
const WEIGHTS_HELD: f64 = 1.1;
const ACTIVATIONS_HELD: f64 = 1.2;

/// A run is refused where the estimate is this many times what there is, and warned of from this share on.
const HOPELESS: f64 = 1.25;
const TIGHT: f64 = 0.85;

/// Bytes that a run holds at its peak.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Need {
    /// Weights, gradients, moments and the teacher.
    pub(crate) weights: f64,
    /// What the backward reads of a batch, its pixels and those of the batches prepared ahead.
    pub(crate) activations: f64,
}

impl Need {
    /// For steps of `images` images on this process.
    pub(crate) fn of(config: &TrainConfig, images: usize) -> Result<Self> {
        let copies = if config.dino.is_some() { 5.0 } else { 4.0 };
        let values = match &config.mae {
            Some(_) => mae_values(config)?,
            None => dino_values(config)?,
        };
        Ok(Self {
            weights: WEIGHTS_HELD * 4.0 * copies * parameters(config)?,
            activations: ACTIVATIONS_HELD * 4.0 * images as f64 * values,
        })
    }

    pub(crate) fn total(&self) -> f64 {
        BASE + self.weights + self.activations
    }
}

/// Compares what steps of `images` images need with what there is, and asks for as much for a moment. Gives a warning where it may not
/// suffice; nothing is checked on a GPU, whose driver says when its memory ends.
///
/// # Errors
/// [`TrainError::OutOfMemory`] where it cannot suffice.
pub(crate) fn check(config: &TrainConfig, images: usize) -> Result<Option<String>> {
    if config.compute.device != Processor::Cpu {
        return Ok(None);
    }
    let need = Need::of(config, images)?;
    let [height, width] = config.encoder.image_size;
    let size = format!("{height}x{width}");
    let about = format!(
        "about {} are needed, {} of them for weights, gradients and moments",
        gib(need.total()),
        gib(need.weights)
    );
    let refused = |reason: String| TrainError::OutOfMemory {
        device: config.compute.device,
        batch: images,
        size: size.clone(),
        precision: config.compute.precision(),
        message: format!("{about}; {reason}"),
        checkpoint: None,
    };
    let room = Room::now().map(|room| room.shared_by(processes_here()));
    if let Some(room) = &room
        && need.total() > HOPELESS * room.bytes
    {
        return Err(refused(room.to_string()));
    }
    let whole = need.total().min(isize::MAX as f64) as usize;
    if Vec::<u8>::new().try_reserve_exact(whole).is_err() {
        let known = room.map_or(String::new(), |room| format!(" ({room})"));
        return Err(refused(format!("the system refuses as much{known}")));
    }
    let tight = room.filter(|room| need.total() > TIGHT * room.bytes);
    Ok(tight.map(|room| {
        format!(
            "memory may not suffice for {images} images of {size} pixels at once: {about}; {room}. If the system ends the run, lower \
             schedule.batch or image_size and go on with --resume"
        )
    }))
}

fn gib(bytes: f64) -> String {
    format!("{:.1} GiB", bytes / (1024.0 * MIB))
}

/// Trained numbers of a configuration.
fn parameters(config: &TrainConfig) -> Result<f64> {
    let encoder = &config.encoder;
    let pixels = (3 * encoder.patch * encoder.patch) as f64;
    let dim = encoder.dim as f64;
    let tokens = patches(encoder, encoder.image_size)? + (encoder.n_prefix() as f64);
    let mut n = block_parameters(encoder, encoder.dim, encoder.depth);
    // projection, tokens with positions (registers have none, CLS has both), final norm
    n += (pixels + 1.0) * dim + (tokens + 1.0) * dim + 2.0 * dim;
    if let Some(mae) = &config.mae {
        let width = mae.decoder.dim as f64;
        n += block_parameters(encoder, mae.decoder.dim, mae.decoder.depth);
        n += (dim + 1.0) * width + width + 2.0 * width + (width + 1.0) * pixels;
    }
    if let Some(dino) = &config.dino {
        let (hidden, neck) = (dino.head.hidden as f64, dino.head.bottleneck as f64);
        n += (dim + 1.0) * hidden + (hidden + 1.0) * hidden + (hidden + 1.0) * neck;
        n += neck * dino.head.out_dim as f64;
    }
    Ok(n)
}

/// Two norms, qkv, projection and MLP of every block.
fn block_parameters(config: &VitConfig, dim: usize, depth: usize) -> f64 {
    let (d, ratio) = (dim as f64, config.mlp_ratio as f64);
    depth as f64 * ((4.0 + 2.0 * ratio) * d * d + (9.0 + ratio) * d)
}

fn patches(config: &VitConfig, size: [usize; 2]) -> Result<f64> {
    Ok(config.grid(size)?.iter().product::<usize>() as f64)
}

/// Values that a block keeps of a token for the backward, over its width: Q, K, V, the attended, the first residual, the hidden ones, and its
/// input.
fn kept(config: &VitConfig) -> f64 {
    6.0 + config.mlp_ratio as f64
}

/// Values of one image in a step of MAE.
fn mae_values(config: &TrainConfig) -> Result<f64> {
    let (encoder, mae) = (&config.encoder, config.mae()?);
    let pixels = (3 * encoder.patch * encoder.patch) as f64;
    let n = patches(encoder, encoder.image_size)?;
    let hidden = (n * mae.mask_ratio).floor();
    let latent = n - hidden + encoder.n_prefix() as f64;
    let width = mae.decoder.dim as f64;
    let kept = kept(encoder);
    let [in_encoder, in_decoder] = [kept * latent * encoder.dim as f64, kept * (1.0 + n) * width];
    // The last summand is one block's backward, which needs as much as the block keeps.
    let blocks = encoder.depth as f64 * in_encoder
        + mae.decoder.depth as f64 * in_decoder
        + in_encoder.max(in_decoder);
    // prediction, target, their difference and gradients
    let loss = 6.0 * hidden * pixels;
    Ok(blocks + loss + views(config, n * pixels))
}

/// Values of one image in a step of DINO.
fn dino_values(config: &TrainConfig) -> Result<f64> {
    let (encoder, dino) = (&config.encoder, config.dino()?);
    let pixels = (3 * encoder.patch * encoder.patch) as f64;
    let local = [
        dino.crops.local.height as usize,
        dino.crops.local.width as usize,
    ];
    let crops = [
        (dino.crops.globals.len(), encoder.image_size),
        (dino.crops.n_locals, local),
    ];
    let (mut blocks, mut all_pixels, mut rows) = (0.0, 0.0, 0.0);
    for (count, size) in crops {
        let (count, n) = (count as f64, patches(encoder, size)?);
        let one = kept(encoder) * (n + encoder.n_prefix() as f64) * encoder.dim as f64;
        blocks += count * encoder.depth as f64 * one;
        all_pixels += count * n * pixels;
        rows += count;
    }
    // two hidden layers before and after GELU, the bottleneck before and after its norm, logits with their gradient
    let head = 4.0 * dino.head.hidden as f64
        + 2.0 * dino.head.bottleneck as f64
        + 3.0 * dino.head.out_dim as f64;
    Ok(blocks + rows * head + views(config, all_pixels))
}

/// Pixels of one image's views: in the batch, as patches, and in the batches prepared ahead.
fn views(config: &TrainConfig, pixels: f64) -> f64 {
    (2.0 + config.data.prefetch as f64) * pixels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::papers_config;
    use crate::config::MethodName;
    use crate::methods::build;

    #[test]
    fn parameters_are_those_of_the_methods() {
        for method in MethodName::ALL {
            for arch in ["vit_n16", "vit_t8"] {
                let mut config = TrainConfig::preset(method, arch, 100).unwrap();
                config.set_image_size(64);
                config.encoder.depth = 2;
                let built = build(&config, &candle_core::Device::Cpu).unwrap();
                let n = built.params().elem_count() as f64;
                assert_eq!(parameters(&config).unwrap(), n, "{method} {arch}");
            }
        }
    }

    /// Peaks in MiB as `bench step` measured them, `docs/performance.md` of 2026-11-22.
    #[test]
    fn the_estimate_is_near_what_was_measured() {
        let measured = [
            (MethodName::Mae, "vit_t16", 16, 224, 1389.0),
            (MethodName::Mae, "vit_s16", 16, 224, 1747.0),
            (MethodName::Mae, "vit_b16", 16, 224, 3113.0),
            (MethodName::Dino, "vit_t16", 4, 224, 702.0),
            (MethodName::Dino, "vit_s16", 4, 224, 1380.0),
            (MethodName::Dino, "vit_b16", 4, 224, 3409.0),
            (MethodName::Mae, "vit_s16", 2, 224, 1004.0),
            (MethodName::Mae, "vit_s16", 32, 224, 2648.0),
            (MethodName::Mae, "vit_s16", 8, 96, 971.0),
            (MethodName::Mae, "vit_s16", 8, 320, 1775.0),
        ];
        for (method, arch, batch, size, mib) in measured {
            let mut config = papers_config(method, arch, size, batch).unwrap();
            config.data.prefetch = 0;
            let found = Need::of(&config, batch).unwrap().total() / MIB;
            assert!(
                (found / mib - 1.0).abs() < 0.1,
                "{method} {arch} {batch} {size}: {found:.0} estimated, {mib} measured"
            );
        }
    }

    #[test]
    fn what_cannot_suffice_names_batch_size_and_remedy() {
        let mut config = papers_config(MethodName::Dino, "vit_b16", 224, 4).unwrap();
        assert!(check(&config, 1).is_ok());
        let error = check(&config, 100_000_000).unwrap_err().to_string();
        for part in [
            "cpu",
            "100000000 images",
            "224x224",
            "schedule.batch",
            "GiB are needed",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(!error.contains("recompute"), "{error}");
        config.compute.device = Processor::Cuda(0);
        assert_eq!(check(&config, 100_000_000).unwrap(), None);
    }
}
