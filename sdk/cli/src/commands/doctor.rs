//! `doctor`: what this machine offers, and what of it this build can use.

use super::Threads;
use crate::output::{Format, Table};
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use ssl_edge::encoder::{EngineKind, PluginDevice, Precision, inspect_plugin};
use ssl_edge::train::multiplies_bf16;
use std::path::{Path, PathBuf};

/// Show what this machine offers.
#[derive(Args)]
pub(crate) struct DoctorArgs {}

#[derive(Serialize)]
struct Report {
    version: &'static str,
    cpu: Cpu,
    threads: usize,
    engines: Vec<&'static str>,
    /// What encoders can be opened in, where a bundle holds it.
    precisions: Vec<&'static str>,
    backends: Vec<Backend>,
    plugins: Vec<PluginState>,
}

#[derive(Serialize)]
struct Cpu {
    architecture: &'static str,
    model: Option<String>,
    features: Vec<Feature>,
}

#[derive(Serialize)]
struct Feature {
    name: &'static str,
    found: bool,
}

#[derive(Serialize)]
struct Backend {
    name: &'static str,
    built_in: bool,
    found: bool,
    detail: String,
}

/// An engine in a library of its own.
#[derive(Serialize)]
struct PluginState {
    engine: &'static str,
    /// Whether there is a library that fits, and a device that it can use.
    usable: bool,
    path: Option<PathBuf>,
    /// What the plug-in says of itself.
    about: Option<String>,
    devices: Vec<PluginDeviceState>,
    /// What keeps it from being used.
    reason: Option<String>,
}

#[derive(Serialize)]
struct PluginDeviceState {
    name: String,
    version: String,
    memory: u64,
}

/// Prints the report.
pub(crate) fn run(_args: &DoctorArgs, format: Format) -> Result<()> {
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        cpu: Cpu {
            architecture: std::env::consts::ARCH,
            model: cpu_model(),
            features: cpu_features(),
        },
        threads: Threads::default().count(),
        engines: vec!["native", "onnx"],
        precisions: Precision::ALL.map(Precision::name).to_vec(),
        backends: vec![cpu_backend(), cuda_backend(), metal_backend()],
        plugins: vec![plugin_state(EngineKind::Cuda)],
    };
    format.print(&report, human)
}

fn human(report: &Report) -> String {
    let features: Vec<String> = report
        .cpu
        .features
        .iter()
        .map(|feature| format!("{}{}", if feature.found { "" } else { "no " }, feature.name))
        .collect();
    let mut table = Table::new(&["back end", "built in", "found"]);
    let yes_no = |value: bool| if value { "yes" } else { "no" }.to_owned();
    for backend in &report.backends {
        table.row(vec![
            backend.name.into(),
            yes_no(backend.built_in),
            yes_no(backend.found),
        ]);
    }
    let backends = report.backends.iter();
    let details: Vec<String> = backends
        .map(|backend| format!("{}: {}", backend.name, backend.detail))
        .chain(report.plugins.iter().map(describe_plugin))
        .collect();
    format!(
        "ssl-edge {}\nCPU: {} ({})\nfeatures: {}\nthreads: {}\nengines: {}\nprecisions: {}\n\n{}\n{}",
        report.version,
        report.cpu.model.as_deref().unwrap_or("unknown model"),
        report.cpu.architecture,
        features.join(", "),
        report.threads,
        report.engines.join(", "),
        report.precisions.join(", "),
        table.render(),
        details.join("\n")
    )
}

fn plugin_state(engine: EngineKind) -> PluginState {
    let mut state = PluginState {
        engine: engine.name(),
        usable: false,
        path: None,
        about: None,
        devices: Vec::new(),
        reason: None,
    };
    match inspect_plugin(engine, None) {
        Err(error) => state.reason = Some(error.to_string()),
        Ok(report) => {
            state.path = Some(report.path);
            state.about = Some(report.about);
            match report.devices {
                Err(reason) => state.reason = Some(reason),
                Ok(devices) => {
                    state.usable = true;
                    state.devices = devices.into_iter().map(device_state).collect();
                }
            }
        }
    }
    state
}

fn device_state(device: PluginDevice) -> PluginDeviceState {
    let [major, minor] = device.version;
    PluginDeviceState {
        name: device.name,
        version: format!("{major}.{minor}"),
        memory: device.memory,
    }
}

fn describe_plugin(plugin: &PluginState) -> String {
    let name = format!("engine {}", plugin.engine);
    let (Some(path), Some(about)) = (&plugin.path, &plugin.about) else {
        return plugin.reason.clone().unwrap_or(name);
    };
    let found = format!("{name}: {} ({about})", path.display());
    match &plugin.reason {
        Some(reason) => format!("{found}; {reason}"),
        None => {
            let devices = plugin.devices.iter().enumerate();
            let devices: Vec<String> = devices
                .map(|(i, d)| {
                    let gib = d.memory as f64 / f64::from(1 << 30);
                    format!("{i}: {} ({}, {gib:.1} GiB)", d.name, d.version)
                })
                .collect();
            format!("{found}; GPUs {}", devices.join(", "))
        }
    }
}

fn cpu_model() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(target_arch = "x86_64")]
fn cpu_features() -> Vec<Feature> {
    vec![
        Feature {
            name: "avx2",
            found: std::is_x86_feature_detected!("avx2"),
        },
        Feature {
            name: "fma",
            found: std::is_x86_feature_detected!("fma"),
        },
        Feature {
            name: "avx512f",
            found: std::is_x86_feature_detected!("avx512f"),
        },
        Feature {
            name: "avx512vnni",
            found: std::is_x86_feature_detected!("avx512vnni"),
        },
        Feature {
            name: "avx512bf16",
            found: std::is_x86_feature_detected!("avx512bf16"),
        },
    ]
}

#[cfg(target_arch = "aarch64")]
fn cpu_features() -> Vec<Feature> {
    vec![
        Feature {
            name: "neon",
            found: std::arch::is_aarch64_feature_detected!("neon"),
        },
        Feature {
            name: "dotprod",
            found: std::arch::is_aarch64_feature_detected!("dotprod"),
        },
        Feature {
            name: "fp16",
            found: std::arch::is_aarch64_feature_detected!("fp16"),
        },
    ]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn cpu_features() -> Vec<Feature> {
    Vec::new()
}

fn cpu_backend() -> Backend {
    Backend {
        name: "cpu",
        built_in: true,
        found: true,
        detail: match multiplies_bf16() {
            true => "used for training, faster with `--precision bf16`, and for encoders",
            false => "used for training and for encoders",
        }
        .into(),
    }
}

fn cuda_backend() -> Backend {
    let built_in = cfg!(feature = "cuda");
    let device = Path::new("/dev/nvidia0").exists();
    let driver = find_library("libcuda.so.1");
    let seen = match (device, &driver) {
        (true, Some(driver)) => format!(
            "an NVIDIA GPU and its driver ({}) are here",
            driver.display()
        ),
        (true, None) => "an NVIDIA GPU is here, its driver library libcuda.so.1 is not".into(),
        (false, Some(driver)) => format!(
            "a driver ({}) is here, but no GPU (/dev/nvidia0)",
            driver.display()
        ),
        (false, None) => "no NVIDIA GPU was found (no /dev/nvidia0, no libcuda.so.1)".into(),
    };
    Backend {
        name: "cuda",
        built_in,
        found: device && driver.is_some(),
        detail: match built_in {
            true => format!("{seen}; used where `--device cuda` asks for it"),
            false => {
                format!("{seen}; this build has no CUDA back end (feature `cuda`), the CPU is used")
            }
        },
    }
}

fn metal_backend() -> Backend {
    let found = cfg!(target_os = "macos");
    let seen = if found {
        "this is a Mac"
    } else {
        "this is no Mac"
    };
    let built_in = cfg!(feature = "metal");
    Backend {
        name: "metal",
        built_in,
        found,
        detail: match built_in {
            true => format!("{seen}; used where `--device metal` asks for it"),
            false => {
                format!(
                    "{seen}; this build has no Metal back end (feature `metal`), the CPU is used"
                )
            }
        },
    }
}

/// The first file called `name` in the folders that a Linux loader looks into.
fn find_library(name: &str) -> Option<PathBuf> {
    let from_environment = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let usual = [
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
        "/usr/local/nvidia/lib64",
        "/usr/local/nvidia/lib",
        "/usr/lib/wsl/lib",
    ];
    std::env::split_paths(&from_environment)
        .chain(usual.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.exists())
}
