//! `export --quantize`: its arguments and what it prints.

use super::Threads;
use crate::output::{Table, percent};
use clap::{ArgGroup, Args, ValueEnum};
use ssl_edge::encoder::GraphFigures;
use ssl_edge::export::{BlockFormat, Gate, OnnxForm, QuantizeOptions, QuantizeReport, Target};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What belongs to `--quantize`.
#[derive(Args)]
#[command(group(ArgGroup::new("measured").multiple(true)))]
pub(crate) struct QuantizeArgs {
    /// Add the encoder in this precision, measured beside f32
    #[arg(long, value_enum, requires = "measured", value_name = "PRECISION")]
    quantize: Option<TargetArg>,
    /// Folder of unlabelled images to calibrate with (int8) and to measure on; q8_0 and q4_0 are measured on those of --eval without it
    #[arg(
        long,
        requires = "quantize",
        required_if_eq("quantize", "int8"),
        group = "measured",
        value_name = "DIR"
    )]
    calibrate: Option<PathBuf>,
    /// Images to calibrate with, chosen for variety
    #[arg(long, default_value_t = 128, requires = "quantize", value_name = "N", value_parser = clap::value_parser!(u32).range(8..=1024))]
    frames: u32,
    /// Class folders to compare the accuracy on
    #[arg(long, requires = "quantize", group = "measured", value_name = "DIR")]
    eval: Option<PathBuf>,
    /// Folder of a folder `good` and others with bad parts to compare anomaly detection on
    #[arg(long, requires = "quantize", value_name = "DIR")]
    parts: Option<PathBuf>,
    /// What must hold for the bundle to be written: cosine>=0.995, worst>=0.97 (these by default), knn<=0.5, fewshot<=0.5, recall<=2 (points lost, with --eval), auroc<=0.5 (points lost, with --parts)
    #[arg(long, requires = "quantize", value_name = "GATE")]
    gate: Vec<Gate>,
    /// Linear layers that may stay f32 (f16 beside q8_0 and q4_0) for the gates' sake; a quarter of them by default
    #[arg(long, requires = "quantize", value_name = "N")]
    float_layers: Option<usize>,
    /// ONNX graphs to put into the bundle as well, with int8
    #[arg(
        long,
        value_enum,
        requires = "quantize",
        value_name = "FORM",
        value_delimiter = ','
    )]
    onnx: Vec<Form>,
    /// Folder for report.html and report.json, written also where a gate does not hold
    #[arg(long, requires = "quantize", value_name = "DIR")]
    pub(crate) report: Option<PathBuf>,
    #[command(flatten)]
    threads: Threads,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TargetArg {
    /// int8 weights and activations in the linear layers, for CPUs
    Int8,
    /// GGML's 8-bit blocks in the linear layers, for a small file and for GPUs
    #[value(name = "q8_0")]
    Q8_0,
    /// 4-bit blocks in the MLP's layers, 8-bit ones in those of attention
    #[value(name = "q4_0")]
    Q4_0,
}

impl TargetArg {
    fn target(self) -> Target {
        match self {
            TargetArg::Int8 => Target::Int8,
            TargetArg::Q8_0 => Target::Blocks(BlockFormat::Q8_0),
            TargetArg::Q4_0 => Target::Blocks(BlockFormat::Q4_0),
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Form {
    /// int8 for CPU runtimes, ranges taken at every call: encoder.int8.onnx
    Dynamic,
    /// int8 with calibrated ranges for TensorRT and ONNX Runtime: encoder.qdq.onnx
    Qdq,
    /// f16 throughout: encoder.f16.onnx
    F16,
}

impl Form {
    fn form(self) -> OnnxForm {
        match self {
            Form::Dynamic => OnnxForm::Dynamic,
            Form::Qdq => OnnxForm::Qdq,
            Form::F16 => OnnxForm::F16,
        }
    }
}

impl QuantizeArgs {
    /// The options, where quantising was asked for.
    pub(crate) fn options(&self) -> Option<QuantizeOptions> {
        let frames = self.calibrate.as_ref().or(self.eval.as_ref());
        let (Some(target), Some(frames)) = (self.quantize, frames) else {
            return None;
        };
        self.threads.apply();
        Some(QuantizeOptions {
            frames: self.frames as usize,
            eval: self.eval.clone(),
            parts: self.parts.clone(),
            gates: self.gate.clone(),
            float_layers: self.float_layers,
            onnx: self.onnx.iter().map(|form| form.form()).collect(),
            threads: self.threads.count(),
            ..QuantizeOptions::new(target.target(), frames)
        })
    }
}

/// The report for people.
pub(crate) fn human(report: &QuantizeReport) -> String {
    let f = &report.figures;
    let mb = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    let mut table = Table::new(&["", "f32", report.precision]);
    table
        .row(vec!["weights".into(), mb(f.f32_bytes), mb(f.bytes)])
        .row(vec!["memory".into(), mb(f.f32_memory), mb(f.memory)])
        .row(vec![
            format!("a frame, {} threads", f.threads),
            format!("{:.1} ms", f.f32_ms),
            format!("{:.1} ms", f.ms),
        ])
        .row(vec![
            "mean cosine to f32".into(),
            "1".into(),
            format!("{:.5}", f.quality.cosine_mean),
        ])
        .row(vec![
            "cosine, worst 1 %".into(),
            "1".into(),
            format!("{:.5}", f.quality.cosine_worst),
        ]);
    for score in &f.quality.scores {
        table.row(vec![
            score.name.clone(),
            percent(score.f32_accuracy),
            percent(score.accuracy),
        ]);
    }
    if let Some(area) = &f.quality.anomaly {
        table.row(vec![
            "AUROC from good parts".into(),
            percent(area.f32_auroc),
            percent(area.auroc),
        ]);
    }
    let graphs: String = f.graphs.iter().map(graph).collect();
    format!(
        "{}: {}, measured on {} frames\n{}{}{graphs}",
        report.path.display(),
        mb(report.written.map_or(0, |written| written.bytes)),
        f.quality.frames,
        table.render(),
        layers(report)
    )
}

/// How many layers are in which precision, and which are in floating point.
fn layers(report: &QuantizeReport) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for layer in &report.layers {
        *counts.entry(layer.precision).or_default() += 1;
    }
    let counts: Vec<String> = counts.iter().map(|(p, n)| format!("{n} in {p}")).collect();
    let float = report.layers.iter();
    let float = float.filter(|layer| matches!(layer.precision, "f32" | "f16"));
    let float: Vec<&str> = float.map(|layer| layer.name.as_str()).collect();
    let float = match float.is_empty() {
        true => String::new(),
        false => format!("; not quantised: {}", float.join(", ")),
    };
    format!("linear layers: {}{float}", counts.join(", "))
}

/// A line for an ONNX graph.
fn graph(graph: &GraphFigures) -> String {
    let size = graph.bytes as f64 / 1e6;
    let member = &graph.member;
    let residuals = match graph.float_residuals {
        true => ", tokens that skip a branch in f32",
        false => "",
    };
    match (&graph.run, &graph.not_run) {
        (Some(run), _) => format!(
            "\n{member}: {size:.1} MB, through {} {:.1} ms, mean cosine to f32 {:.5}, worst 1 % {:.5}{residuals}",
            run.engine, run.ms, run.quality.cosine_mean, run.quality.cosine_worst
        ),
        (None, reason) => format!(
            "\n{member}: {size:.1} MB, not run: {}",
            reason.as_deref().unwrap_or("no engine")
        ),
    }
}
