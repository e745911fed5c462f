//! The encoder on our own kernels, packed and planned when the bundle is opened.

use ssl_edge_bundle::Bundle;
use ssl_edge_nn::VitConfig;
use ssl_edge_nn::infer::{EncoderWeights, Isa, PackedOptions, PackedVit, Progress};

use super::{Engine, EngineKind, Shape, Unfit, arch, vit_config, weights};
use crate::{Interruption, Limit, Precision, Reached, RuntimeError};

/// Work memory that images which go through the blocks together may take, where they are several.
const WORK_BYTES: usize = 16 << 20;
const MOST_IMAGES: usize = 8;

/// `ssl-edge-nn`'s packed encoder on threads of its own.
pub(super) struct Native {
    encoder: PackedVit,
    precision: Precision,
    shape: Shape,
}

impl Native {
    /// `threads` is at least one.
    pub(super) fn load(
        bundle: &Bundle,
        precision: Precision,
        threads: usize,
    ) -> Result<Self, Unfit> {
        let manifest = bundle.manifest();
        let config = vit_config(arch(manifest)?);
        let member = weights(manifest, precision)?;
        let shape = Shape::of(manifest);
        // Tokens, queries, and two each of keys and values.
        let image = 6 * size_of::<f32>() * shape.n_patches * shape.dim;
        let options = PackedOptions {
            threads,
            images: (WORK_BYTES / image).clamp(1, MOST_IMAGES),
            isa: Isa::detect(),
        };
        Ok(Self {
            encoder: pack(bundle, member, precision, &config, &options)?,
            precision,
            shape,
        })
    }
}

/// Packs weights as they are read; those in blocks, which are few bytes, at once.
fn pack(
    bundle: &Bundle,
    member: &str,
    precision: Precision,
    config: &VitConfig,
    options: &PackedOptions,
) -> Result<PackedVit, Unfit> {
    if precision.is_blocks() {
        let weights = EncoderWeights::from_bytes(&bundle.member(member)?)?;
        return Ok(PackedVit::new(config, weights, options)?);
    }
    let reader = bundle.reader(member)?;
    let len = bundle.member_size(member).unwrap_or_default();
    Ok(PackedVit::read(config, reader, len, options)?)
}

impl Engine for Native {
    fn kind(&self) -> EngineKind {
        EngineKind::Native
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn memory(&self) -> Option<usize> {
        Some(self.encoder.weight_bytes() + self.encoder.work_bytes())
    }

    fn threads(&self) -> Option<usize> {
        Some(self.encoder.threads())
    }

    fn isa(&self) -> Option<Isa> {
        Some(self.encoder.isa())
    }

    fn lengths(&self) -> [usize; 2] {
        self.shape.lengths()
    }

    fn run_into(
        &self,
        input: &[f32],
        batch: usize,
        cls: &mut [f32],
        patches: &mut [f32],
    ) -> Result<(), RuntimeError> {
        let done = self.encoder.run(input, batch, cls, patches);
        done.map_err(|error| failed(&error))
    }

    fn run_until(
        &self,
        input: &[f32],
        batch: usize,
        cls: &mut [f32],
        patches: &mut [f32],
        limit: &Limit,
    ) -> Result<(), RuntimeError> {
        if limit.is_never() {
            return self.run_into(input, batch, cls, patches);
        }
        let stop = || limit.passed().is_some();
        let progress = self.encoder.run_until(input, batch, cls, patches, &stop);
        match progress.map_err(|error| failed(&error))? {
            Progress::Done => Ok(()),
            Progress::Stopped { images, blocks } => Err(RuntimeError::Interrupted {
                engine: EngineKind::Native,
                // Only a token that was made as new in between passes no more.
                reason: limit.passed().unwrap_or(Interruption::Cancelled),
                reached: Reached {
                    frames: images,
                    of_frames: batch,
                    steps: blocks,
                    of_steps: self.encoder.blocks(),
                },
            }),
        }
    }
}

fn failed(error: &ssl_edge_nn::Error) -> RuntimeError {
    RuntimeError::Run {
        engine: EngineKind::Native,
        reason: error.to_string(),
    }
}
