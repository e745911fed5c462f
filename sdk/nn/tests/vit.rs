//! The encoder as a whole: names, gradients, equality with plain f64 tensors, other image sizes.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_distr::{Distribution, StandardNormal};
use ssl_edge_nn::ops::composed;
use ssl_edge_nn::{Error, Gelu, Params, Vit, VitConfig, resize_positions};

fn tiny(registers: usize) -> VitConfig {
    VitConfig {
        dim: 32,
        depth: 2,
        heads: 2,
        patch: 4,
        registers,
        mlp_ratio: 4,
        image_size: [16, 16],
        gelu: Gelu::Tanh,
        eps: 1e-6,
    }
}

fn images(shape: (usize, usize, usize, usize), seed: u64) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let n = shape.0 * shape.1 * shape.2 * shape.3;
    let values: Vec<f32> = (0..n).map(|_| StandardNormal.sample(&mut rng)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn encoder(config: &VitConfig, seed: u64) -> (Vit, Params) {
    let mut params = Params::new();
    let vit = Vit::init(
        config,
        &mut params,
        "",
        &mut ChaCha8Rng::seed_from_u64(seed),
    )
    .unwrap();
    (vit, params)
}

fn flat(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64)
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1()
        .unwrap()
}

fn worst(a: &Tensor, b: &Tensor) -> f64 {
    flat(a)
        .iter()
        .zip(flat(b))
        .fold(0.0, |m: f64, (x, y)| m.max((x - y).abs()))
}

#[test]
fn composed_as_on_metal_it_gives_the_kernels_tokens() {
    for registers in [0, 2] {
        let (vit, _) = encoder(&tiny(registers), 3);
        for size in [16, 24] {
            let images = images((3, 3, size, size), 7);
            let kernels = vit.forward(&images).unwrap();
            let metal = composed(|| vit.forward(&images)).unwrap();
            assert!(worst(&kernels, &metal) < 2e-5);
            let [kernels, metal] = [
                vit.forward_cls(&images, &[]).unwrap(),
                composed(|| vit.forward_cls(&images, &[])).unwrap(),
            ];
            assert!(worst(&kernels, &metal) < 2e-5);
        }
    }
}

#[test]
fn linear_layers_in_f16_give_nearly_the_same_tokens_in_f32() {
    let (vit, _) = encoder(&tiny(2), 3);
    let images = images((2, 3, 16, 16), 7);
    let half = vit.with_linear_in(DType::F16).unwrap();
    let got = composed(|| half.forward(&images)).unwrap();
    assert_eq!(got.dtype(), DType::F32);
    let difference = worst(&got, &vit.forward(&images).unwrap());
    assert!(difference > 1e-6 && difference < 1e-2, "{difference}");
    let same = vit.with_linear_in(DType::F32).unwrap();
    let difference = worst(
        &same.forward(&images).unwrap(),
        &vit.forward(&images).unwrap(),
    );
    assert_eq!(difference, 0.0);
}

#[test]
fn parameter_names_are_those_of_reference_checkpoints() {
    let mut want: Vec<String> = [
        "cls_token",
        "norm.bias",
        "norm.weight",
        "patch_embed.proj.bias",
        "patch_embed.proj.weight",
        "pos_embed",
        "register_tokens",
    ]
    .map(String::from)
    .to_vec();
    for i in 0..2 {
        for p in [
            "norm1",
            "attn.qkv",
            "attn.proj",
            "norm2",
            "mlp.fc1",
            "mlp.fc2",
        ] {
            want.push(format!("blocks.{i}.{p}.weight"));
            want.push(format!("blocks.{i}.{p}.bias"));
        }
    }
    want.sort();
    let (_, params) = encoder(&tiny(2), 1);
    let got: Vec<String> = params.iter().map(|(n, _)| n.to_owned()).collect();
    assert_eq!(got, want);
}

#[test]
fn every_parameter_gets_a_finite_nonzero_gradient() -> std::result::Result<(), Error> {
    let (vit, params) = encoder(&tiny(3), 1);
    let target = images((2, 1, 20, 32), 8).squeeze(1)?;
    let error = (vit.forward(&images((2, 3, 16, 16), 2))? - target)?;
    let grads = ssl_edge_nn::backward(&error.sqr()?.sum_all()?)?;
    for (name, p) in params.iter() {
        let g = flat(
            grads
                .get(&p.var)
                .unwrap_or_else(|| panic!("{name} has no gradient")),
        );
        assert!(g.iter().all(|v| v.is_finite()), "{name}");
        assert!(g.iter().any(|v| v.abs() > 1e-7), "{name}");
    }
    Ok(())
}

#[test]
fn kernels_and_plain_f64_tensors_agree() -> std::result::Result<(), Error> {
    for gelu in [Gelu::Tanh, Gelu::Erf] {
        let config = VitConfig { gelu, ..tiny(2) };
        let (vit, params) = encoder(&config, 1);
        let wide: BTreeMap<String, Tensor> = params
            .to_map()
            .into_iter()
            .map(|(n, t)| Ok((n, t.to_dtype(DType::F64)?)))
            .collect::<Result<_>>()?;
        let x = images((2, 3, 16, 24), 3);
        let reference = Vit::load(&config, &wide)?.forward(&x.to_dtype(DType::F64)?)?;
        let difference = worst(&vit.forward(&x)?, &reference);
        assert!(difference < 2e-5, "{gelu:?}: {difference}");
    }
    Ok(())
}

#[test]
fn resized_positions_equal_resampling_in_the_graph() -> std::result::Result<(), Error> {
    let (vit, params) = encoder(&tiny(1), 1);
    let x = images((1, 3, 24, 12), 4);
    let mut tensors = params.to_map();
    let config = resize_positions(&tiny(1), &mut tensors, [24, 12])?;
    let fixed = Vit::load(&config, &tensors)?;
    assert_eq!(config.image_size, [24, 12]);
    assert!(worst(&vit.forward(&x)?, &fixed.forward(&x)?) < 1e-6);
    Ok(())
}

#[test]
fn same_bits_for_any_number_of_threads() -> std::result::Result<(), Error> {
    let x = images((3, 3, 16, 16), 5);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let (vit, params) = encoder(&tiny(1), 1);
            let y = vit.forward(&x).unwrap();
            let grads = ssl_edge_nn::backward(&y.sqr().unwrap().sum_all().unwrap()).unwrap();
            let g: Vec<f64> = params
                .iter()
                .flat_map(|(_, p)| flat(grads.get(&p.var).unwrap()))
                .collect();
            (flat(&y), g)
        })
    };
    assert_eq!(run(1), run(3));
    Ok(())
}

#[test]
fn wrong_sizes_and_names_are_errors() {
    let (vit, _) = encoder(&tiny(0), 1);
    let error = vit
        .forward(&images((1, 3, 18, 16), 1))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("16x18") && error.contains("multiples of 4"),
        "{error}"
    );
    let error = VitConfig::named("vit_x16").unwrap_err().to_string();
    assert!(
        error.contains("vit_x16") && error.contains("vit_s16"),
        "{error}"
    );
    let config = VitConfig {
        heads: 3,
        ..tiny(0)
    };
    assert!(config.validate().unwrap_err().to_string().contains("heads"));
}
