//! `report`: how an encoder runs on this machine.

use crate::data::EncoderArgs;
use crate::output::Format;
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use ssl_edge::encoder::RuntimeReport;
use std::time::Duration;

/// Open an encoder and say what runs it, how near to its golden vectors, how fast and in how much memory.
#[derive(Args)]
pub(crate) struct ReportArgs {
    #[command(flatten)]
    encoder: EncoderArgs,
    /// Frames to time
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    frames: u32,
}

#[derive(Serialize)]
struct Report {
    name: String,
    encoder: String,
    engine: &'static str,
    precision: &'static str,
    device: String,
    threads: Option<usize>,
    isa: Option<&'static str>,
    height: usize,
    width: usize,
    dim: usize,
    grid: [usize; 2],
    golden: Golden,
    latency_ms: Latency,
    /// Bytes of packed weights and work memory, where the engine knows.
    memory: Option<usize>,
    /// Bytes of this process in memory, where the system says.
    resident: Option<usize>,
}

#[derive(Serialize)]
struct Golden {
    difference: f32,
    tolerance: f32,
}

#[derive(Serialize)]
struct Latency {
    frames: usize,
    min: f64,
    p50: f64,
    p99: f64,
    max: f64,
}

/// Prints the report.
pub(crate) fn run(args: &ReportArgs, format: Format) -> Result<()> {
    let report = args.encoder.open()?.report(args.frames as usize)?;
    format.print(&Report::of(report), human)
}

impl Report {
    fn of(report: RuntimeReport) -> Self {
        let ms = |time: Duration| 1e3 * time.as_secs_f64();
        let latency = report.latency;
        Self {
            name: report.name,
            encoder: report
                .hash
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            engine: report.engine.name(),
            precision: report.precision.name(),
            device: report.processor.to_string(),
            threads: report.threads,
            isa: report.isa,
            height: report.input[0],
            width: report.input[1],
            dim: report.dim,
            grid: report.grid,
            golden: Golden {
                difference: report.self_test.difference,
                tolerance: report.self_test.tolerance,
            },
            latency_ms: Latency {
                frames: latency.frames,
                min: ms(latency.min),
                p50: ms(latency.p50),
                p99: ms(latency.p99),
                max: ms(latency.max),
            },
            memory: report.memory,
            resident: report.resident,
        }
    }
}

fn human(report: &Report) -> String {
    let mib = |bytes: Option<usize>| match bytes {
        Some(bytes) => format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64),
        None => "unknown".to_owned(),
    };
    let latency = &report.latency_ms;
    format!(
        "{}, encoder {}\n\
         engine {} in {} on {}, {} threads, kernels: {}\n\
         input {} x {}, {} values, {} x {} patch tokens\n\
         golden vectors: off by {:.1e}, allowed {:.1e}\n\
         a frame of {}: median {:.2} ms, 99 % within {:.2} ms ({:.2} to {:.2})\n\
         memory: weights and work {}, the whole process {}",
        report.name,
        &report.encoder[..12],
        report.engine,
        report.precision,
        report.device,
        report
            .threads
            .map_or("its own".to_owned(), |n| n.to_string()),
        report.isa.unwrap_or("the engine's choice"),
        report.width,
        report.height,
        report.dim,
        report.grid[0],
        report.grid[1],
        report.golden.difference,
        report.golden.tolerance,
        latency.frames,
        latency.p50,
        latency.p99,
        latency.min,
        latency.max,
        mib(report.memory),
        mib(report.resident),
    )
}
