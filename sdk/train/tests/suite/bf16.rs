//! Training on the CPU with products in bf16, beside f32. What a CPU without instructions for them does is in the tests of the products.

use candle_core::Device;
use ssl_edge_nn::compute::{Precision, autocast};
use ssl_edge_train::{MethodName, TrainConfig, TrainError};

use crate::common::{
    Recorder, Workbench, assert_close, assert_equal_runs, gradients, newest, run, tiny, values,
};
use crate::ranks::{comparable, difference, run_ranks};

/// Wide enough for several panels of products.
fn config(method: MethodName) -> TrainConfig {
    let mut config = tiny(method);
    (config.encoder.dim, config.encoder.heads) = (96, 3);
    config
}

fn in_bf16(mut config: TrainConfig) -> TrainConfig {
    config.compute.precision = Some(Precision::Bf16);
    config
}

#[test]
fn loss_and_every_gradient_are_those_of_f32_but_for_rounding() {
    for method in MethodName::ALL {
        let config = config(method);
        let want = gradients(&config, &Device::Cpu);
        let got = autocast(Precision::Bf16, || gradients(&config, &Device::Cpu));
        let mut rounded = 0;
        for ((name, got), (_, want)) in got.iter().zip(&want) {
            assert!(got.iter().any(|v| *v != 0.0), "{method} {name} is all zero");
            assert_close(&format!("{method}, {name}"), got, want, 6e-2);
            rounded += usize::from(got != want);
        }
        assert!(
            rounded > want.len() / 2,
            "{method}: {rounded} of {}",
            want.len()
        );
    }
}

#[test]
fn runs_follow_those_in_f32_and_resume_with_the_same_bits() {
    for method in MethodName::ALL {
        let bench = Workbench::new(16);
        let mut config = config(method);
        config.data.folders = vec![bench.images()];
        let losses = |config: &TrainConfig, name: &str| -> Vec<f32> {
            let observer = Recorder::default();
            run(config, &bench.path(name), false, &observer).unwrap();
            let losses = observer.losses.into_inner().unwrap();
            losses.into_iter().map(|loss| loss as f32).collect()
        };
        let want = losses(&config, "f32");
        let config = in_bf16(config);
        let got = losses(&config, "whole");
        assert_eq!(got.len(), want.len());
        assert_close(&format!("{method} losses"), &got, &want, 2e-2);
        assert_ne!(got, want);

        run(&config, &bench.path("parts"), false, &Recorder::stopping(4)).unwrap();
        run(&config, &bench.path("parts"), true, &Recorder::default()).unwrap();
        assert_equal_runs(&bench.path("whole"), &bench.path("parts"));
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for method in MethodName::ALL {
        let bench = Workbench::new(9);
        let mut config = in_bf16(bench.config(method));
        let mut weights = |threads: usize| {
            config.threads = threads;
            let folder = bench.path(&format!("{threads}"));
            run(&config, &folder, false, &()).unwrap();
            newest(&folder)
                .model
                .values()
                .flat_map(values)
                .collect::<Vec<f32>>()
        };
        let one = weights(1);
        assert!(one == weights(3), "{method}");
    }
}

#[test]
fn a_run_keeps_its_precision() {
    let bench = Workbench::new(9);
    let config = in_bf16(bench.config(MethodName::Mae));
    let folder = bench.path("run");
    run(&config, &folder, false, &Recorder::stopping(2)).unwrap();
    let mut other = config.clone();
    other.compute.precision = Some(Precision::F32);
    let error = run(&other, &folder, true, &()).expect_err("another precision");
    assert!(matches!(error, TrainError::ConfigChanged { .. }), "{error}");
    assert!(run(&config, &folder, true, &()).is_ok());
}

/// Sums over ranks differ in their last bits, and what lies between two values of bf16 may round to the other one next: far less than what
/// rounding to bf16 changes, which is what ranks that multiplied in f32 would be apart.
#[test]
fn ranks_in_bf16_end_near_one_process() {
    for method in MethodName::ALL {
        let bench = Workbench::new(9);
        let config = comparable(&bench, method);
        run(&config, &bench.path("f32"), false, &()).unwrap();
        let config = in_bf16(config);
        run(&config, &bench.path("one"), false, &()).unwrap();
        let folder = bench.path("two");
        for summary in run_ranks(&vec![config; 2], &folder, false, &()) {
            summary.unwrap();
        }
        let one = newest(&bench.path("one"));
        let (rounding, _) = difference(&one, &newest(&bench.path("f32")));
        let (apart, name) = difference(&newest(&folder), &one);
        assert!(
            apart < rounding / 50.0,
            "{method}: {name} {apart:e}, rounding {rounding:e}"
        );
    }
}
