//! `bench`: what training steps and encoders cost on random data, and whether an encoder lasts.

mod bundle;
mod encode;
mod soak;
mod step;

use crate::output::Format;
use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use ssl_edge::encoder::{Precision, Products};
use ssl_edge::export::{BlockFormat, Target};

/// What to measure.
#[derive(Subcommand)]
pub(crate) enum BenchCommand {
    /// A training step at the papers' sizes: forward, backward, update
    Step(step::StepArgs),
    /// An encoder on one image after another
    Encode(encode::EncodeArgs),
    /// Frames through one encoder for minutes, and whether memory stays flat
    Soak(soak::SoakArgs),
    /// A bundle to measure with: random weights in f32 and rounded to int8
    Bundle(bundle::BundleArgs),
}

/// What an encoder computes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum EncodePrecision {
    /// f32
    F32,
    /// int8 weights and activations, on the CPU
    Int8,
    /// Linear layers in GGML's 8-bit blocks; in f32 on the CPU
    #[value(name = "q8_0")]
    Q8_0,
    /// The same with the MLP's layers in 4-bit blocks
    #[value(name = "q4_0")]
    Q4_0,
    /// bf16 products, on an NVIDIA GPU
    Bf16,
    /// f16 weights and products, with engine cuda, or on an Apple GPU
    F16,
}

impl EncodePrecision {
    /// The variant of the bundle, and what products read.
    fn of_encoder(self) -> (Precision, Products) {
        match self {
            EncodePrecision::F32 => (Precision::F32, Products::F32),
            EncodePrecision::Int8 => (Precision::Int8, Products::F32),
            EncodePrecision::Q8_0 => (Precision::Q8_0, Products::F32),
            EncodePrecision::Q4_0 => (Precision::Q4_0, Products::F32),
            EncodePrecision::Bf16 => (Precision::F32, Products::Bf16),
            EncodePrecision::F16 => (Precision::F32, Products::F16),
        }
    }

    /// What a bundle of random weights needs beside f32.
    fn target(self) -> Option<Target> {
        match self {
            EncodePrecision::Int8 => Some(Target::Int8),
            EncodePrecision::Q8_0 => Some(Target::Blocks(BlockFormat::Q8_0)),
            EncodePrecision::Q4_0 => Some(Target::Blocks(BlockFormat::Q4_0)),
            EncodePrecision::F32 | EncodePrecision::Bf16 | EncodePrecision::F16 => None,
        }
    }
}

/// Runs the benchmark that was asked for.
pub(crate) fn run(command: &BenchCommand, format: Format) -> Result<()> {
    match command {
        BenchCommand::Step(args) => step::run(args, format),
        BenchCommand::Encode(args) => encode::run(args, format),
        BenchCommand::Soak(args) => soak::run(args, format),
        BenchCommand::Bundle(args) => bundle::run(args, format),
    }
}

/// Values in -2..2 from a fixed linear congruential generator: arithmetic is timed, what the image shows does not matter.
fn noise(len: usize) -> Vec<f32> {
    let mut state = 1_u32;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 22) as f32 - 2.0
        })
        .collect()
}
