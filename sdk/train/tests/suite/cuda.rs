//! Steps and runs on a GPU beside the CPU's. Where there is no GPU the tests say so and do nothing, unless SSL_EDGE_REQUIRE_CUDA=1.

use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::Device;
use ssl_edge_nn::compute::{Precision, Processor};
use ssl_edge_train::{ComputeConfig, MethodName, TrainConfig};

use crate::common::{
    Recorder, Workbench, assert_close, assert_equal_runs, gradients, newest, run, tiny,
};

const PRECISIONS: [(Precision, f64); 2] = [(Precision::F32, 2e-3), (Precision::Bf16, 6e-2)];

/// One test at a time: together they may need more memory than there is.
static ONE: Mutex<()> = Mutex::new(());

fn gpu() -> Option<MutexGuard<'static, ()>> {
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    match Processor::Cuda(0).open(Precision::F32, false) {
        Ok(_) => Some(one),
        Err(error) => {
            let required = std::env::var("SSL_EDGE_REQUIRE_CUDA").is_ok_and(|v| v == "1");
            assert!(!required, "no CUDA device: {error}");
            eprintln!("no CUDA device: not run ({error})");
            None
        }
    }
}

/// Heads of 64 channels, so that bf16 runs on tensor cores.
fn config(method: MethodName) -> TrainConfig {
    let mut config = tiny(method);
    (config.encoder.dim, config.encoder.heads) = (128, 2);
    config
}

fn on_gpu(mut config: TrainConfig, precision: Precision, recompute: bool) -> TrainConfig {
    config.compute = ComputeConfig {
        device: Processor::Cuda(0),
        precision: Some(precision),
        recompute,
    };
    config
}

#[test]
fn loss_and_gradients_are_those_of_the_cpu() {
    let Some(_gpu) = gpu() else { return };
    for method in MethodName::ALL {
        let config = config(method);
        let want = gradients(&config, &Device::Cpu);
        for (precision, tolerance) in PRECISIONS {
            let device = Processor::Cuda(0).open(precision, false).unwrap();
            for ((name, got), (_, want)) in gradients(&config, &device).iter().zip(&want) {
                assert!(got.iter().any(|v| *v != 0.0), "{method} {name} is all zero");
                assert_close(
                    &format!("{method} in {precision}, {name}"),
                    got,
                    want,
                    tolerance,
                );
            }
        }
    }
}

#[test]
fn runs_follow_the_cpus_and_resume() {
    let Some(_gpu) = gpu() else { return };
    for method in MethodName::ALL {
        let bench = Workbench::new(16);
        let mut base = config(method);
        base.data.folders = vec![bench.images()];
        let observer = Recorder::default();
        run(&base, &bench.path("cpu"), false, &observer).unwrap();
        let want: Vec<f32> = observer
            .losses
            .lock()
            .unwrap()
            .iter()
            .map(|&l| l as f32)
            .collect();
        for (precision, _) in PRECISIONS {
            let config = on_gpu(base.clone(), precision, precision == Precision::Bf16);
            let name = |part: &str| bench.path(&format!("{precision}-{part}"));
            let observer = Recorder::default();
            run(&config, &name("whole"), false, &observer).unwrap();
            let got: Vec<f32> = observer
                .losses
                .lock()
                .unwrap()
                .iter()
                .map(|&l| l as f32)
                .collect();
            assert_eq!(got.len(), want.len());
            assert_close(&format!("{method} losses in {precision}"), &got, &want, 0.1);
            run(&config, &name("parts"), false, &Recorder::stopping(4)).unwrap();
            run(&config, &name("parts"), true, &Recorder::default()).unwrap();
            assert_equal_runs(&name("whole"), &name("parts"));
            let encoder = newest(&name("whole")).model;
            assert!(encoder.values().all(|t| t.device().is_cpu()));
        }
    }
}

#[test]
fn too_large_a_batch_names_what_to_lower() {
    let Some(_gpu) = gpu() else { return };
    let bench = Workbench::new(512);
    let mut config = on_gpu(tiny(MethodName::Dino), Precision::Bf16, false);
    config.data.folders = vec![bench.images()];
    // 1024 rows of 2 * 10^7 logits are 80 GB, and their probabilities as much again.
    let head = &mut config.dino.as_mut().unwrap().head;
    (head.out_dim, head.bottleneck) = (20_000_000, 1);
    (config.schedule.batch, config.schedule.images) = (512, 512);
    let error = run(&config, &bench.path("run"), false, &Recorder::default());
    let error = error.expect_err("no GPU has that much memory").to_string();
    for part in [
        "cuda:0",
        "512 images",
        "32x32",
        "schedule.batch",
        "compute.recompute",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}
