use candle_core::Tensor;
use ssl_edge_train::collective::Solo;
use ssl_edge_train::methods::{Dino, Method, StepContext};
use ssl_edge_train::{MethodName, Tensors, TrainConfig};

use crate::common::{batch, tiny, values};

const CTX: StepContext<'static> = StepContext {
    seed: 5,
    step: 4,
    steps: 10,
    steps_per_epoch: 3,
    ranks: &Solo,
};

fn model(change: impl FnOnce(&mut TrainConfig)) -> Dino {
    let mut config = tiny(MethodName::Dino);
    change(&mut config);
    Dino::new(&config.encoder, config.dino().unwrap(), config.seed).unwrap()
}

/// Adds 0.1 to every weight of the student in place.
fn shift(dino: &Dino) {
    for (_, param) in dino.params().iter() {
        let shifted = param.var.affine(1.0, 0.1).unwrap();
        param.var.set(&shifted).unwrap();
    }
}

fn loss(dino: &mut Dino, ctx: &StepContext) -> f64 {
    let loss = dino.loss(&batch(MethodName::Dino, 7), ctx).unwrap();
    f64::from(loss.to_scalar::<f32>().unwrap())
}

#[test]
fn every_trained_parameter_gets_a_gradient() {
    for drop_path in [0.0, 0.3] {
        let mut dino = model(|c| c.dino.as_mut().unwrap().drop_path = drop_path);
        let loss = dino.loss(&batch(MethodName::Dino, 7), &CTX).unwrap();
        let grads = ssl_edge_nn::backward(&loss).unwrap();
        for (name, param) in dino.params().iter() {
            assert!(dino.is_trained(name, &CTX), "{name}");
            let grad = values(
                grads
                    .get(&param.var)
                    .unwrap_or_else(|| panic!("{name} has no gradient")),
            );
            assert!(grad.iter().all(|g| g.is_finite()), "{name}");
            assert!(grad.iter().any(|g| *g != 0.0), "{name}");
        }
    }
}

#[test]
fn teacher_starts_as_the_student_and_follows_it() {
    let mut dino = model(|_| {});
    let teacher = |dino: &Dino| values(&dino.encoder()["blocks.0.mlp.fc1.weight"]);
    let student = |dino: &Dino| {
        let name = "encoder.blocks.0.mlp.fc1.weight";
        values(dino.params().get(name).unwrap().var.as_tensor())
    };
    assert_eq!(teacher(&dino), student(&dino));
    let before = teacher(&dino);
    shift(&dino);
    assert_eq!(teacher(&dino), before);
    let m = dino.momentum(&CTX);
    assert!((0.99..1.0).contains(&m));
    dino.after_step(&CTX).unwrap();
    for ((t, s), b) in teacher(&dino).iter().zip(student(&dino)).zip(before) {
        let expected = m * f64::from(b) + (1.0 - m) * f64::from(s);
        assert!((f64::from(*t) - expected).abs() < 1e-7);
    }
}

#[test]
fn the_teachers_forward_pass_follows_its_weights() {
    let mut dino = model(|c| c.dino.as_mut().unwrap().momentum = 0.0);
    let start = StepContext { step: 0, ..CTX };
    let before = loss(&mut dino, &start);
    shift(&dino);
    let student_moved = loss(&mut dino, &start);
    dino.after_step(&start).unwrap();
    let both_moved = loss(&mut dino, &start);
    assert!(before != student_moved && student_moved != both_moved);
}

#[test]
fn schedules_have_the_papers_endpoints() {
    let dino = model(|_| {});
    let at = |step| StepContext { step, ..CTX };
    assert_eq!(dino.momentum(&at(0)), 0.99);
    assert_eq!(dino.momentum(&at(10)), 1.0);
    assert_eq!(dino.teacher_temperature(&at(0)), 0.02);
    assert_eq!(dino.teacher_temperature(&at(3)), 0.04);
    assert_eq!(dino.teacher_temperature(&at(9)), 0.04);
}

#[test]
fn the_last_layer_rests_in_the_first_epoch_only() {
    let dino = model(|_| {});
    let trained = |name, step| dino.is_trained(name, &StepContext { step, ..CTX });
    let last = "head.last_layer.weight_v";
    assert_eq!(
        [0, 2, 3, 9].map(|step| trained(last, step)),
        [false, false, true, true]
    );
    assert!(trained("head.mlp.4.weight", 0) && trained("encoder.cls_token", 0));
}

#[test]
fn the_first_loss_is_near_ln_k_and_the_centre_moves_by_a_tenth() {
    let mut dino = model(|_| {});
    let center = |dino: &Dino| values(&dino.state().unwrap()["center"]);
    assert!(center(&dino).iter().all(|c| *c == 0.0));
    loss(&mut dino, &CTX);
    let first = center(&dino);
    assert!(first.iter().any(|c| *c != 0.0));
    // The teacher does not change, so that its mean logits are ten times the first centre.
    loss(&mut dino, &CTX);
    for (c, first) in center(&dino).iter().zip(first) {
        assert!((c - 1.9 * first).abs() < 1e-6);
    }
    let entropy = dino.figures()["teacher_entropy"];
    assert!(entropy > 0.0 && entropy <= 24f64.ln() + 1e-6, "{entropy}");
}

#[test]
fn state_restores_student_teacher_and_centre() {
    let mut dino = model(|_| {});
    loss(&mut dino, &CTX);
    shift(&dino);
    dino.after_step(&CTX).unwrap();
    let copy = |tensors: &Tensors| -> Tensors {
        tensors
            .iter()
            .map(|(n, t)| (n.clone(), t.copy().unwrap()))
            .collect()
    };
    let (model_tensors, state) = (copy(&dino.params().to_map()), copy(&dino.state().unwrap()));
    let expected = loss(&mut dino, &CTX);

    let mut other = model(|c| c.seed = 6);
    assert_ne!(loss(&mut other, &CTX), expected);
    other.restore(&model_tensors, &state).unwrap();
    assert_eq!(loss(&mut other, &CTX), expected);

    let mut without: Tensors = state.clone();
    without.remove("center");
    assert!(other.restore(&model_tensors, &without).is_err());
    without.insert(
        "center".into(),
        Tensor::zeros(3, candle_core::DType::F32, &candle_core::Device::Cpu).unwrap(),
    );
    assert!(other.restore(&model_tensors, &without).is_err());
}

#[test]
fn dropped_paths_depend_on_the_step_and_the_seed_alone() {
    let mut dino = model(|c| c.dino.as_mut().unwrap().drop_path = 0.5);
    let snapshot = dino.state().unwrap()["center"].clone();
    assert_eq!(values(&snapshot).len(), 24);
    let mut fresh = || {
        dino = model(|c| c.dino.as_mut().unwrap().drop_path = 0.5);
        dino.loss(&batch(MethodName::Dino, 7), &CTX)
            .unwrap()
            .to_scalar::<f32>()
            .unwrap()
    };
    let first = fresh();
    assert_eq!(first, fresh());
    let mut other = model(|c| c.dino.as_mut().unwrap().drop_path = 0.5);
    let at_another_step = loss(&mut other, &StepContext { step: 5, ..CTX });
    assert_ne!(f64::from(first), at_another_step);
}

#[test]
fn a_teacher_that_says_the_same_of_every_image_is_reported_after_fifty_steps() {
    let mut dino = model(|_| {});
    // The centre follows the logits of a teacher that never changes, until only their differences between images are left;
    // for equal images there are none, which is uniform collapse.
    let mut same = batch(MethodName::Dino, 7);
    for view in &mut same.views {
        *view = view.zeros_like().unwrap();
    }
    let mut steps = |n: usize| {
        for _ in 0..n {
            dino.loss(&same, &CTX).unwrap();
        }
        dino.warning()
    };
    assert_eq!(steps(45), None);
    let warning = steps(120).expect("a collapsed run is reported");
    assert!(warning.contains("dino.teacher_temperature"), "{warning}");
    for _ in 0..3 {
        loss(&mut dino, &CTX);
    }
    assert_eq!(dino.warning(), None, "varied images are no collapse");
}
