//! Every operation on a GPU against plain tensors in f64 on the CPU, in f32 and in bf16.
//!
//! Where there is no GPU the tests say so and do nothing, unless SSL_EDGE_REQUIRE_CUDA=1, which makes that a failure.
#![cfg(feature = "cuda")]

use std::sync::Arc;

use candle_core::{D, DType, Device, Result, Tensor, Var};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_distr::{Distribution, StandardNormal};
use ssl_edge_nn::compute::{Precision, Processor};
use ssl_edge_nn::ema::ema;
use ssl_edge_nn::ops::{self, Affine, BlockParams, PathFactors};
use ssl_edge_nn::optim::{AdamW, AdamWConfig, GradNorms, Update};
use ssl_edge_nn::{Gelu, Params, Vit, VitConfig, backward};

/// Both precisions with the tolerance that goes with each, or nothing where there is no GPU.
fn devices() -> Vec<(Device, f64)> {
    let open = |precision, recompute| Processor::Cuda(0).open(precision, recompute);
    match (open(Precision::F32, false), open(Precision::Bf16, true)) {
        (Ok(full), Ok(half)) => vec![(full, 1e-4), (half, 3e-2)],
        (Err(error), _) | (_, Err(error)) => {
            let required = std::env::var("SSL_EDGE_REQUIRE_CUDA").is_ok_and(|v| v == "1");
            assert!(!required, "no CUDA device: {error}");
            eprintln!("no CUDA device: not run ({error})");
            Vec::new()
        }
    }
}

fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let n = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|_| StandardNormal.sample(&mut rng)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

type Function<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

fn flat(t: &Tensor) -> Result<Vec<f64>> {
    t.to_device(&Device::Cpu)?
        .to_dtype(DType::F64)?
        .flatten_all()?
        .to_vec1()
}

/// The value and the gradient of every argument.
fn evaluate(f: Function, args: &[Tensor], upstream: &Tensor) -> Result<Vec<Vec<f64>>> {
    let vars = args
        .iter()
        .map(Var::from_tensor)
        .collect::<Result<Vec<_>>>()?;
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let y = f(&tensors)?;
    let grads = backward(&(&y * upstream)?.sum_all()?)?;
    let mut all = vec![flat(&y)?];
    for v in &vars {
        all.push(flat(grads.get(v).expect("every argument has a gradient"))?);
    }
    Ok(all)
}

fn assert_close(what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(1e-6, |m: f64, v| m.max(v.abs()));
    let worst = got
        .iter()
        .zip(want)
        .fold(0.0, |m: f64, (g, w)| m.max((g - w).abs()));
    assert!(
        worst <= tolerance * scale,
        "{what}: off by {worst:e} of {scale:e}"
    );
}

/// Compares on every device, `times` the usual tolerance.
fn same(name: &str, kernel: Function, reference: Function, args: &[Tensor], times: f64) {
    for (device, tolerance) in devices() {
        let cpu: Vec<Tensor> = args
            .iter()
            .map(|a| a.to_dtype(DType::F64).unwrap())
            .collect();
        let there: Vec<Tensor> = args.iter().map(|a| a.to_device(&device).unwrap()).collect();
        let shape = reference(&cpu).unwrap().dims().to_vec();
        let upstream = random(&shape, 99);
        let want = evaluate(reference, &cpu, &upstream.to_dtype(DType::F64).unwrap()).unwrap();
        let got = evaluate(kernel, &there, &upstream.to_device(&device).unwrap()).unwrap();
        for (i, (g, w)) in got.iter().zip(&want).enumerate() {
            let what = format!("{name} on {device:?}, output {i} (0 is the value, then gradients)");
            assert_close(&what, g, w, times * tolerance);
        }
    }
}

#[test]
fn norms_and_activations() {
    for d in [33, 192, 768] {
        let x = ((random(&[2, 130, d], 1) * 2.0).unwrap() + 0.7).unwrap();
        let args = [x, random(&[d], 2), random(&[d], 3)];
        same(
            "layer_norm",
            &|a| ops::layer_norm(&a[0], &a[1], &a[2], 1e-6),
            &|a| ops::layer_norm_reference(&a[0], &a[1], &a[2], 1e-6),
            &args,
            1.0,
        );
    }
    for form in [Gelu::Tanh, Gelu::Erf] {
        let x = (random(&[3, 1001], 5) * 3.0).unwrap();
        same(
            "gelu",
            &|a| ops::gelu(&a[0], form),
            &|a| ops::gelu_reference(&a[0], form),
            &[x],
            1.0,
        );
    }
}

#[test]
fn linear_layers() {
    for (m, k, n) in [(1, 1, 1), (5, 7, 3), (130, 64, 192), (999, 384, 1536)] {
        let args = [random(&[m, k], 1), random(&[n, k], 2), random(&[n], 3)];
        same(
            "linear",
            &|a| ops::linear(&a[0], &a[1], Some(&a[2])),
            &|a| ops::linear_reference(&a[0], &a[1], Some(&a[2])),
            &args,
            1.0,
        );
        same(
            "linear without bias",
            &|a| ops::linear(&a[0], &a[1], None),
            &|a| ops::linear_reference(&a[0], &a[1], None),
            &args[..2],
            1.0,
        );
    }
}

#[test]
fn attention() {
    for (b, n, heads, d) in [
        (2, 5, 3, 8),
        (3, 69, 3, 64),
        (2, 201, 2, 64),
        (2, 197, 4, 32),
        (1, 64, 1, 64),
        (1, 50, 2, 40),
    ] {
        same(
            "attention",
            &|a| ops::attention(&a[0], heads),
            &|a| ops::attention_reference(&a[0], heads),
            &[random(&[b, n, 3 * heads * d], 7)],
            1.0,
        );
    }
}

/// `x`, then weight and bias of norm1, qkv, proj, norm2, fc1, fc2.
fn block_args(b: usize, t: usize, d: usize, h: usize) -> Vec<Tensor> {
    let shapes = [
        vec![b, t, d],
        vec![d],
        vec![d],
        vec![3 * d, d],
        vec![3 * d],
        vec![d, d],
        vec![d],
        vec![d],
        vec![d],
        vec![h, d],
        vec![h],
        vec![d, h],
        vec![d],
    ];
    let scaled = |(i, shape): (usize, &Vec<usize>)| {
        (random(shape, i as u64) / (*shape.last().unwrap() as f64).powf(0.4)).unwrap()
    };
    shapes.iter().enumerate().map(scaled).collect()
}

fn block_params(a: &[Tensor], heads: usize) -> Arc<BlockParams> {
    let affine = |i: usize| Affine {
        weight: a[1 + 2 * i].clone(),
        bias: a[2 + 2 * i].clone(),
    };
    Arc::new(BlockParams {
        norm1: affine(0),
        qkv: affine(1),
        proj: affine(2),
        norm2: affine(3),
        fc1: affine(4),
        fc2: affine(5),
        heads,
        gelu: Gelu::Tanh,
        eps: 1e-6,
    })
}

#[test]
fn blocks_with_and_without_dropped_paths() {
    let paths = [vec![0.0, 1.25, 1.25], vec![2.0, 0.0, 2.0]];
    for (t, d, h, heads) in [(70, 128, 256, 2), (5, 12, 20, 2), (201, 384, 1536, 6)] {
        let args = block_args(3, t, d, h);
        for paths in [None, Some(&paths)] {
            same(
                "block",
                &|a| ops::block(&a[0], &block_params(a, heads), paths),
                &|a| ops::block_reference(&a[0], &block_params(a, heads), paths),
                &args,
                2.0,
            );
            same(
                "first token of a block",
                &|a| ops::block_first_token(&a[0], &block_params(a, heads), paths),
                &|a| ops::block_reference(&a[0], &block_params(a, heads), paths)?.narrow(1, 0, 1),
                &args,
                2.0,
            );
        }
        // the same weights twice, so that gradients are added to what is there
        let both: Vec<PathFactors> = vec![paths.clone(), paths.clone()];
        same(
            "two blocks",
            &|a| {
                let p = block_params(a, heads);
                ops::blocks(&a[0], &[p.clone(), p], &both)
            },
            &|a| {
                let p = block_params(a, heads);
                let x = ops::block_reference(&a[0], &p, Some(&paths))?;
                ops::block_reference(&x, &p, Some(&paths))
            },
            &args,
            4.0,
        );
    }
}

#[test]
fn rows_patches_and_losses() {
    let ids: Vec<u32> = [1, 7, 3, 2]
        .into_iter()
        .chain(std::iter::repeat_n(3, 199))
        .chain([4, 5, 1])
        .collect();
    let index = Tensor::new(ids.as_slice(), &Device::Cpu).unwrap();
    same(
        "gather_rows",
        &|a| ops::gather_rows(&a[0], ids.clone()),
        &|a| a[0].index_select(&index, 0),
        &[random(&[9, 130], 1)],
        1.0,
    );
    let unit = |a: &[Tensor]| a[0].broadcast_div(&a[0].sqr()?.sum_keepdim(1)?.sqrt()?);
    same(
        "unit_rows",
        &|a| ops::unit_rows(&a[0]),
        &unit,
        &[random(&[70, 256], 2)],
        1.0,
    );
    for (device, _) in devices() {
        let images = random(&[2, 3, 8, 12], 1);
        let want = flat(&ops::patchify(&images, 4).unwrap()).unwrap();
        let got = ops::patchify(&images.to_device(&device).unwrap(), 4).unwrap();
        assert_eq!(flat(&got).unwrap(), want);
        assert!(ops::gather_rows(&got.get(0).unwrap(), vec![99]).is_err());
    }
}

#[test]
fn dino_on_logits() {
    let (batch, views, k) = (3, 5, 1000);
    let teacher = random(&[2 * batch, k], 3);
    let centre = random(&[k], 4).to_vec1::<f32>().unwrap();
    let softmax = |x: &Tensor| -> Result<Tensor> {
        let exp = x.broadcast_sub(&x.max_keepdim(D::Minus1)?)?.exp()?;
        exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)
    };
    let shifted = teacher
        .broadcast_sub(&Tensor::new(centre.as_slice(), &Device::Cpu).unwrap())
        .unwrap();
    let by = 1.0 / 0.07;
    let want = softmax(&(shifted.to_dtype(DType::F64).unwrap() * by).unwrap()).unwrap();
    for (device, _) in devices() {
        let there = teacher.to_device(&device).unwrap();
        let got = ops::teacher_softmax(&there, &centre, by as f32).unwrap();
        assert_close(
            "teacher",
            &flat(&got.targets).unwrap(),
            &flat(&want).unwrap(),
            1e-4,
        );
        let sums = flat(&teacher.sum(0).unwrap()).unwrap();
        assert_close("column sums", &got.column_sums, &sums, 1e-5);
        assert!(got.entropy > 0.0 && got.entropy < (k as f64).ln());
    }
    let targets = want.to_dtype(DType::F32).unwrap();
    let temperature = 0.1;
    same(
        "cross-entropy",
        &|a| {
            let targets = targets.to_device(a[0].device())?;
            ops::crops_cross_entropy(&a[0], &targets, 2, temperature)
        },
        &|a| {
            let s = (&a[0] / temperature)?;
            let log = s.broadcast_sub(&s.exp()?.sum_keepdim(1)?.log()?)?;
            let mut total = Tensor::new(0f64, &Device::Cpu)?;
            for q in 0..2 {
                let t = targets.narrow(0, q * batch, batch)?.to_dtype(DType::F64)?;
                for v in (0..views).filter(|&v| v != q) {
                    total = (total - (&t * log.narrow(0, v * batch, batch)?)?.sum_all()?)?;
                }
            }
            total / (2 * (views - 1) * batch) as f64
        },
        &[random(&[views * batch, k], 5)],
        1.0,
    );
}

#[test]
fn updates_of_parameters() {
    let make = |device: &Device| {
        let mut params = Params::on(device);
        for (name, len) in [("bias", 33), ("weight", 40_000), ("one", 1)] {
            let value = random(&[len], len as u64).to_device(device).unwrap();
            let var = Var::from_tensor(&value).unwrap();
            params.insert(name, var, len > 100).unwrap();
        }
        params
    };
    let run = |device: &Device| {
        let (params, teacher) = (make(device), make(device));
        let mut optimiser = AdamW::new(&params, AdamWConfig::default()).unwrap();
        let mut norms = Vec::new();
        for _ in 0..3 {
            let mut loss = Tensor::new(0f32, device).unwrap();
            for (_, p) in params.iter() {
                loss = (loss + p.var.sqr().unwrap().sum_all().unwrap()).unwrap();
            }
            let grads = backward(&loss).unwrap();
            norms.push(GradNorms::of(&params, &grads, &|_| true).unwrap().global());
            let update = Update {
                lr: 1e-2,
                weight_decay: 0.1,
                factor: &|name| (name != "one").then_some(0.5),
            };
            optimiser.step(&params, &grads, &update).unwrap();
            ema(&teacher, &params, 0.9).unwrap();
        }
        let state = optimiser.state().unwrap();
        let mut again = AdamW::new(&params, AdamWConfig::default()).unwrap();
        again.load_state(&state).unwrap();
        for (name, tensor) in again.state().unwrap() {
            assert_eq!(
                flat(&tensor).unwrap(),
                flat(&state[&name]).unwrap(),
                "{name}"
            );
        }
        let mut all = vec![norms];
        for params in [&params, &teacher] {
            all.extend(params.iter().map(|(_, p)| flat(&p.var).unwrap()));
        }
        all.extend(state.values().map(|t| flat(t).unwrap()));
        all
    };
    let want = run(&Device::Cpu);
    for (device, _) in devices() {
        for (i, (got, want)) in run(&device).iter().zip(&want).enumerate() {
            assert_close(&format!("update, part {i}"), got, want, 1e-5);
        }
    }
}

#[test]
fn an_encoder_is_the_cpus_and_every_parameter_gets_a_gradient() {
    let config = VitConfig {
        dim: 128,
        heads: 2,
        depth: 3,
        image_size: [64, 64],
        ..VitConfig::named("vit_s16").unwrap()
    };
    let images = random(&[3, 3, 64, 64], 1);
    let target = random(&[3, 128], 2);
    let run = |device: &Device| {
        let mut params = Params::on(device);
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let vit = Vit::init(&config, &mut params, "", &mut rng).unwrap();
        let tokens = vit.forward(&images.to_device(device).unwrap()).unwrap();
        let cls = vit
            .forward_cls(&images.to_device(device).unwrap(), &[])
            .unwrap();
        let error = (&cls - target.to_device(device).unwrap()).unwrap();
        let loss = (error.sqr().unwrap().sum_all().unwrap()
            + tokens.sqr().unwrap().sum_all().unwrap())
        .unwrap();
        let grads = backward(&loss).unwrap();
        let mut all = vec![("tokens".to_owned(), flat(&tokens).unwrap())];
        for (name, p) in params.iter() {
            let grad = grads
                .get(&p.var)
                .unwrap_or_else(|| panic!("{name} has no gradient"));
            all.push((name.to_owned(), flat(grad).unwrap()));
        }
        all
    };
    let want = run(&Device::Cpu);
    for (device, tolerance) in devices() {
        for ((name, got), (_, want)) in run(&device).iter().zip(&want) {
            assert!(got.iter().all(|v| v.is_finite()), "{name}");
            assert!(got.iter().any(|v| *v != 0.0), "{name}");
            assert_close(name, got, want, 5.0 * tolerance);
        }
    }
}
