//! Steps composed of candle's own operations, as Metal computes them, beside the CPU's kernels. The graph is the one that a Metal device
//! gets, up to the kernels that compute it.

use std::collections::BTreeMap;

use candle_core::Tensor;
use ssl_edge_nn::backward;
use ssl_edge_nn::ops::composed;
use ssl_edge_nn::optim::{AdamW, Clip, GradNorms, Update};
use ssl_edge_train::MethodName;
use ssl_edge_train::collective::Solo;
use ssl_edge_train::methods::{Method, StepContext, build};

use crate::common::{assert_same, batch, tiny, values};

const STEPS: u64 = 6;

fn context(step: u64) -> StepContext<'static> {
    StepContext {
        seed: 5,
        step,
        steps: 10,
        steps_per_epoch: 0,
        ranks: &Solo,
    }
}

/// A method in training and everything that a checkpoint holds of it.
struct Training {
    method: Box<dyn Method>,
    optimizer: AdamW,
}

impl Training {
    fn new(method: MethodName) -> Self {
        let mut config = tiny(method);
        // Gradients that are zero but for rounding, as those of a key's bias, would decide steps of full length.
        config.optimizer.adamw.eps = 1e-3;
        let method = build(&config, &candle_core::Device::Cpu).unwrap();
        let optimizer = AdamW::new(method.params(), config.optimizer.adamw).unwrap();
        Self { method, optimizer }
    }

    /// One step; gives the loss and every gradient.
    fn step(&mut self, name: MethodName, step: u64) -> BTreeMap<String, Vec<f32>> {
        let ctx = context(step);
        let loss = self.method.loss(&batch(name, 3 + step), &ctx).unwrap();
        let grads = backward(&loss).unwrap();
        let params = self.method.params();
        let is_trained = |name: &str| self.method.is_trained(name, &ctx);
        let norms = GradNorms::of(params, &grads, &is_trained).unwrap();
        let clip = Clip::Global(0.5);
        let factors: BTreeMap<String, f64> = params
            .iter()
            .filter(|(name, _)| is_trained(name))
            .map(|(name, _)| (name.to_owned(), clip.factor(&norms, name)))
            .collect();
        let update = Update {
            lr: 1e-3,
            weight_decay: 0.1,
            factor: &|name| factors.get(name).copied(),
        };
        let mut all = BTreeMap::from([
            ("loss".to_owned(), vec![loss.to_scalar().unwrap()]),
            ("norm".to_owned(), vec![norms.global() as f32]),
        ]);
        for (name, param) in params.iter().filter(|(name, _)| is_trained(name)) {
            let grad = grads.get(&param.var);
            let grad = grad.unwrap_or_else(|| panic!("{name} has no gradient"));
            all.insert(name.to_owned(), values(grad));
        }
        let optimizer = &mut self.optimizer;
        let done = self.method.update(optimizer, &grads, &update, &ctx);
        done.unwrap();
        all
    }

    /// Weights, teacher and moments.
    fn state(&self) -> [BTreeMap<String, Tensor>; 3] {
        [
            self.method.params().to_map(),
            self.method.state().unwrap(),
            self.optimizer.state().unwrap(),
        ]
    }
}

fn assert_close(what: &str, got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(1e-7, |m: f32, v| m.max(v.abs()));
    for (g, w) in got.iter().zip(want) {
        assert!(
            (g - w).abs() <= tolerance * scale,
            "{what}: {g} instead of {w} (largest {scale:e})"
        );
    }
}

#[test]
fn steps_optimiser_and_teacher_are_those_of_the_kernels() {
    for name in MethodName::ALL {
        let mut kernels = Training::new(name);
        let mut metal = composed(|| Training::new(name));
        for step in 0..STEPS {
            let want = kernels.step(name, step);
            let got = composed(|| metal.step(name, step));
            assert_eq!(
                got.keys().collect::<Vec<_>>(),
                want.keys().collect::<Vec<_>>()
            );
            // Later gradients are those of weights that have begun to differ.
            let tolerance = if step == 0 { 1e-4 } else { 1e-2 };
            for (key, got) in &got {
                assert!(got.iter().any(|v| *v != 0.0), "{name} {key} is all zero");
                let what = format!("{name}, step {step}, {key}");
                assert_close(&what, got, &want[key], tolerance);
            }
        }
        for (got, want) in metal.state().iter().zip(&kernels.state()) {
            assert_eq!(
                got.keys().collect::<Vec<_>>(),
                want.keys().collect::<Vec<_>>()
            );
            for (key, want) in want.iter().filter(|(_, t)| t.dtype().is_float()) {
                assert_close(
                    &format!("{name}, {key}"),
                    &values(&got[key]),
                    &values(want),
                    5e-3,
                );
            }
        }
    }
}

#[test]
fn a_composed_run_goes_on_from_its_state_with_the_same_bits() {
    for name in MethodName::ALL {
        composed(|| {
            let mut whole = Training::new(name);
            let mut first = Training::new(name);
            for step in 0..STEPS {
                whole.step(name, step);
                if step < STEPS / 2 {
                    first.step(name, step);
                }
            }
            let [model, teacher, moments] = first.state();
            let mut second = Training::new(name);
            second.method.restore(&model, &teacher).unwrap();
            second.optimizer.load_state(&moments).unwrap();
            for step in STEPS / 2..STEPS {
                second.step(name, step);
            }
            for (a, b) in whole.state().iter().zip(&second.state()) {
                assert_same(a, b);
            }
        });
    }
}

#[test]
fn half_precision_is_refused_in_training() {
    let mut config = tiny(MethodName::Mae);
    config.compute.precision = Some("f16".parse().unwrap());
    let error = config.compute.open().unwrap_err().to_string();
    assert!(
        error.contains("f16") && error.contains("train in f32"),
        "{error}"
    );
}
