use candle_core::{DType, Device, Tensor};
use ssl_edge_nn::ops;
use ssl_edge_train::MethodName;
use ssl_edge_train::collective::Solo;
use ssl_edge_train::methods::{Mae, Masking, Method, StepContext, random_masking};
use ssl_edge_vision::stream;

use crate::common::{Recorder, Workbench, batch, run, tiny, values};

const CTX: StepContext<'static> = StepContext {
    seed: 5,
    step: 0,
    steps: 10,
    steps_per_epoch: 3,
    ranks: &Solo,
};

fn model(norm_pix: bool) -> Mae {
    let mut config = tiny(MethodName::Mae);
    let mae = config.mae.as_mut().unwrap();
    mae.norm_pix = norm_pix;
    Mae::new(&config.encoder, mae, config.seed).unwrap()
}

fn masks(n: usize, images: u64) -> Vec<Masking> {
    (0..images)
        .map(|i| random_masking(n, 0.75, &mut stream(1, 0, i, 3)))
        .collect()
}

/// Hidden patches `[B * Nm, P P 3]` by the paper's `patchify` (`nchpwq -> nhwpqc`) and normalisation, in f64.
fn target(images: &Tensor, patch: usize, masks: &[Masking], norm_pix: bool) -> Vec<Vec<f64>> {
    let (_, _, height, width) = images.dims4().unwrap();
    let columns = width / patch;
    let pixel: Vec<f64> = images
        .to_dtype(DType::F64)
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1()
        .unwrap();
    let mut rows = Vec::new();
    for (b, mask) in masks.iter().enumerate() {
        for n in (0..mask.restore.len()).filter(|n| !mask.keep.contains(&(*n as u32))) {
            let mut row = Vec::new();
            for y in 0..patch {
                for x in 0..patch {
                    for c in 0..3 {
                        let (py, px) = (n / columns * patch + y, n % columns * patch + x);
                        row.push(pixel[((b * 3 + c) * height + py) * width + px]);
                    }
                }
            }
            if norm_pix {
                let len = row.len() as f64;
                let mean = row.iter().sum::<f64>() / len;
                let var = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (len - 1.0);
                row.iter_mut()
                    .for_each(|v| *v = (*v - mean) / (var + 1e-6).sqrt());
            }
            rows.push(row);
        }
    }
    rows
}

#[test]
fn masking_keeps_a_quarter_and_restores_its_order() {
    let mut counts = vec![0; 196];
    for sample in 0..400 {
        let mask = random_masking(196, 0.75, &mut stream(0, 0, sample, 3));
        assert_eq!((mask.keep.len(), mask.restore.len()), (49, 196));
        let mut places = mask.restore.clone();
        places.sort_unstable();
        assert_eq!(places, (0..196).collect::<Vec<u32>>());
        for (place, &patch) in mask.keep.iter().enumerate() {
            assert_eq!(mask.restore[patch as usize], place as u32);
            counts[patch as usize] += 1;
        }
    }
    // Binomial with mean 100 and deviation 8.7.
    assert!(counts.iter().all(|c| (55..145).contains(c)), "{counts:?}");
}

#[test]
fn the_loss_is_the_mean_square_on_hidden_patches() {
    let images = batch(MethodName::Mae, 7).views[0].clone();
    let masks = masks(16, 4);
    let patches = ops::patchify(&images, 8).unwrap();
    for norm_pix in [false, true] {
        let mae = model(norm_pix);
        let expected = target(&images, 8, &masks, norm_pix);
        assert_eq!(expected.len(), 4 * 12);
        let perfect: Vec<f32> = expected.concat().iter().map(|&v| v as f32).collect();
        let perfect = Tensor::from_vec(perfect, (48, 192), &Device::Cpu).unwrap();
        let loss = mae.forward_loss(&patches, &perfect, &masks).unwrap();
        assert!(loss.to_scalar::<f32>().unwrap() < 1e-11);

        let zeros = perfect.zeros_like().unwrap();
        let loss = mae
            .forward_loss(&patches, &zeros, &masks)
            .unwrap()
            .to_scalar::<f32>()
            .unwrap();
        let square: f64 = expected.concat().iter().map(|v| v * v).sum();
        let mean = square / (48.0 * 192.0);
        assert!((f64::from(loss) / mean - 1.0).abs() < 1e-5, "{loss} {mean}");
        if norm_pix {
            // The unbiased variance makes the mean square (n - 1) / n.
            assert!((mean - 191.0 / 192.0).abs() < 1e-4);
        }
    }
}

#[test]
fn a_constant_patch_has_the_target_zero() {
    let flat = Tensor::full(0.7f32, (4, 3, 32, 32), &Device::Cpu).unwrap();
    let patches = ops::patchify(&flat, 8).unwrap();
    let masks = masks(16, 4);
    let zeros = Tensor::zeros((48, 192), DType::F32, &Device::Cpu).unwrap();
    let loss = model(true).forward_loss(&patches, &zeros, &masks).unwrap();
    assert!(loss.to_scalar::<f32>().unwrap() < 1e-6);
}

#[test]
fn the_encoder_sees_visible_patches_only_and_its_order_does_not_matter() {
    let mae = model(true);
    let masks = masks(16, 4);
    let patches = ops::patchify(&batch(MethodName::Mae, 7).views[0], 8).unwrap();
    let latent = mae.forward_encoder(&patches, &masks).unwrap();
    assert_eq!(latent.dims(), [4, 1 + 1 + 4, 32]);

    let mut changed = values(&patches);
    for (image, mask) in masks.iter().enumerate() {
        for patch in (0..16).filter(|p| !mask.keep.contains(p)) {
            changed[(image * 16 + patch as usize) * 192..][..192].fill(1e3);
        }
    }
    let changed = Tensor::from_vec(changed, (4, 16, 192), &Device::Cpu).unwrap();
    assert_eq!(
        values(&mae.forward_encoder(&changed, &masks).unwrap()),
        values(&latent)
    );

    let reordered: Vec<Masking> = masks
        .iter()
        .map(|mask| {
            let mut mask = mask.clone();
            mask.keep.reverse();
            for place in mask.restore.iter_mut().filter(|place| **place < 4) {
                *place = 3 - *place;
            }
            mask
        })
        .collect();
    let pred = mae.forward_decoder(&latent, &masks).unwrap();
    let other = mae.forward_encoder(&patches, &reordered).unwrap();
    let other = mae.forward_decoder(&other, &reordered).unwrap();
    assert_eq!(pred.dims(), [48, 192]);
    let (pred, other) = (values(&pred), values(&other));
    let scale = pred.iter().fold(0f32, |m, v| m.max(v.abs()));
    assert!(scale > 0.01);
    for (a, b) in pred.iter().zip(&other) {
        assert!((a - b).abs() < 1e-5 * scale.max(1.0), "{a} {b}");
    }
}

#[test]
fn every_trained_parameter_gets_a_gradient_and_positions_stay() {
    let mut mae = model(true);
    let loss = mae.loss(&batch(MethodName::Mae, 7), &CTX).unwrap();
    let grads = ssl_edge_nn::backward(&loss).unwrap();
    for (name, param) in mae
        .params()
        .iter()
        .filter(|(name, _)| mae.is_trained(name, &CTX))
    {
        let grad = values(
            grads
                .get(&param.var)
                .unwrap_or_else(|| panic!("{name} has no gradient")),
        );
        assert!(grad.iter().all(|g| g.is_finite()), "{name}");
        assert!(grad.iter().any(|g| *g != 0.0), "{name}");
    }
    let names: Vec<&str> = mae.params().iter().map(|(name, _)| name).collect();
    let fixed: Vec<_> = names
        .iter()
        .filter(|name| !mae.is_trained(name, &CTX))
        .collect();
    assert_eq!(fixed, [&"encoder.pos_embed"]);
    let table = values(&mae.encoder()["pos_embed"]);
    assert!(table[..32].iter().all(|v| *v == 0.0));
    assert_eq!(
        table[32..64],
        [[0f32; 8], [1.0; 8], [0.0; 8], [1.0; 8]].concat()
    );
}

#[test]
fn weights_start_by_the_papers_laws() {
    let mae = model(true);
    let bound = (6.0f32 / (32.0 + 96.0)).sqrt();
    let qkv = values(&mae.encoder()["blocks.1.attn.qkv.weight"]);
    assert!(qkv.iter().all(|v| v.abs() <= bound) && qkv.iter().any(|v| v.abs() > 0.9 * bound));
    let token = values(mae.params().get("mask_token").unwrap().var.as_tensor());
    let std = (token.iter().map(|v| v * v).sum::<f32>() / token.len() as f32).sqrt();
    assert!((0.01..0.03).contains(&std), "{std}");
}

#[test]
fn training_lowers_the_loss() {
    let bench = Workbench::new(8);
    let mut config = bench.config(MethodName::Mae);
    config.schedule.images = 4 * 120;
    config.schedule.warmup = 0.1;
    config.optimizer.base_lr = 0.2;
    let recorder = Recorder::default();
    run(&config, &bench.path("run"), false, &recorder).unwrap();
    let losses = recorder.losses.into_inner().unwrap();
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (first, last) = (mean(&losses[..10]), mean(&losses[110..]));
    assert!(last < 0.93 * first, "{first} {last}");
}
