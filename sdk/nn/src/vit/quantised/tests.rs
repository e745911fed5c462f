//! Layers in blocks on candle's CPU device, and on GPUs where there are any, beside the same weights in f32.

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use super::*;
use crate::compute::{Precision, Processor};
use crate::ops::check::random;
use crate::{Init, Params};

const FORMATS: [BlockFormat; 2] = BlockFormat::ALL;

fn config() -> VitConfig {
    VitConfig {
        dim: 64,
        depth: 3,
        heads: 2,
        patch: 8,
        registers: 2,
        mlp_ratio: 4,
        image_size: [32, 40],
        gelu: Gelu::Tanh,
        eps: 1e-6,
    }
}

/// Every tensor is random, so that no bias can be left out unnoticed; linear layers are in `format` but for one.
fn weights(config: &VitConfig, format: BlockFormat) -> EncoderWeights {
    let mut params = Params::new();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    Vit::init(config, &mut params, "", &mut rng).unwrap();
    let mut weights = EncoderWeights::from_tensors(&params.to_map()).unwrap();
    for stored in weights.0.values_mut() {
        let Stored::F32 { dims, values } = stored else {
            unreachable!("they were tensors")
        };
        let noise = Init::Normal(0.1).values(dims, &mut rng);
        values.iter_mut().zip(noise).for_each(|(v, n)| *v += n);
    }
    for layer in EncoderWeights::layer_names(config) {
        let stored = weights.0.get_mut(&format!("{layer}.weight")).unwrap();
        let (values, dims) = (stored.to_f32(), [stored.dims()[0], stored.dims()[1]]);
        if layer != "blocks.1.attn.proj" {
            *stored = Stored::Blocks {
                dims,
                format,
                bytes: format.quantise(&values, dims[1]).unwrap(),
            };
        }
    }
    weights
}

/// The same weights in f32, on the training graph.
fn dequantised(config: &VitConfig, weights: &EncoderWeights) -> Vit {
    let tensors = weights.0.iter().map(|(name, stored)| {
        let tensor = Tensor::from_vec(stored.to_f32(), stored.dims(), &Device::Cpu);
        (name.clone(), tensor.unwrap())
    });
    Vit::load(config, &tensors.collect()).unwrap()
}

fn flat(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// The GPUs of this machine that this build can use.
fn gpus() -> Vec<Device> {
    let all = [Processor::Cuda(0), Processor::Metal].into_iter();
    let opened = all.map(|gpu| gpu.open(Precision::F32, false));
    let told = opened.inspect(|gpu| {
        if let Err(error) = gpu {
            eprintln!("not run: {error}");
        }
    });
    told.flatten().collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// candle rounds a row's activations in blocks of 32 to 127 steps of the largest, so each is off by half a step at most and by the rounding of the
/// step's size to f16, 2⁻¹¹ of it; the sum is off by no more than the weights' magnitudes make of that, and by rounding in f32.
#[test]
fn a_product_is_off_by_no_more_than_rounded_activations_make_of_it() {
    let (m, n, k) = (37, 24, 256);
    let x = random(&[1, m, k], 1).unwrap();
    let weight = flat(&random(&[n, k], 2).unwrap());
    let bias = random(&[n], 3).unwrap();
    for format in FORMATS {
        let bytes = format.quantise(&weight, k).unwrap();
        let exact = format.dequantise(&bytes);
        let layer = Linear::Blocks {
            weight: on_device(format, &bytes, [n, k], &Device::Cpu).unwrap(),
            bias: bias.clone(),
        };
        let Linear::Blocks { weight, .. } = &layer else {
            unreachable!("just made")
        };
        assert_eq!(
            weight.storage_size_in_bytes(),
            bytes.len(),
            "kept as blocks"
        );
        let y = layer.forward(&x).unwrap();
        assert_eq!(y.dims(), [1, m, n]);
        let (x, y, bias) = (flat(&x), flat(&y), flat(&bias));
        for (row, y) in x.chunks_exact(k).zip(y.chunks_exact(n)) {
            for ((weight, y), bias) in exact.chunks_exact(k).zip(y).zip(&bias) {
                let (mut want, mut bound) = (f64::from(*bias), 1e-4);
                for (x, w) in row.chunks_exact(32).zip(weight.chunks_exact(32)) {
                    let most = x.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
                    let off = f64::from(most) * (0.5 / 127.0 + 0.5_f64.powi(11));
                    for (x, w) in x.iter().zip(w) {
                        want += f64::from(*x) * f64::from(*w);
                        bound += off * f64::from(w.abs());
                    }
                }
                let error = (f64::from(*y) - want).abs();
                assert!(error <= bound, "{format}: {error} of {bound}");
            }
        }
    }
}

/// An activation's rounding error is about 2.1 / 127 / √12 = 0.5 % of its size (the largest of 32 normal values is about 2.1 standard deviations), so 11
/// layers in a row, were nothing skipped, are off by √11 · 0.5 % = 1.6 %, a cosine of 1 - 0.016² / 2 = 0.99987.
#[test]
fn the_encoder_is_near_the_one_with_dequantised_weights_also_as_metal_composes_it() {
    let config = config();
    let images = random(&[2, 3, 32, 40], 5).unwrap();
    for format in FORMATS {
        let weights = weights(&config, format);
        let want = dequantised(&config, &weights).forward(&images).unwrap();
        let vit = QuantisedVit::load(&config, &weights, &Device::Cpu, DType::F32).unwrap();
        let found = vit.forward(&images).unwrap();
        assert_eq!(found.dims(), want.dims());
        let mut all = vec![("kernels", found)];
        for gpu in gpus() {
            let vit = QuantisedVit::load(&config, &weights, &gpu, DType::F32).unwrap();
            let found = vit.forward(&images.to_device(&gpu).unwrap()).unwrap();
            all.push(("GPU", found.to_device(&Device::Cpu).unwrap()));
        }
        let composed = ops::composed(|| vit.forward(&images)).unwrap();
        let half = QuantisedVit::load(&config, &weights, &Device::Cpu, DType::F16).unwrap();
        let half = ops::composed(|| half.forward(&images)).unwrap();
        all.extend([("composed", composed), ("f16", half)]);
        for (what, found) in all {
            assert_eq!(found.dtype(), DType::F32);
            let (found, want) = (flat(&found), flat(&want));
            for (found, want) in found.chunks(config.dim).zip(want.chunks(config.dim)) {
                let cosine = cosine(found, want);
                assert!(cosine > 0.9997, "{format}, {what}: {cosine}");
            }
        }
    }
}

#[test]
fn weights_that_do_not_fit_are_named() {
    let config = config();
    let load = |change: &dyn Fn(&mut BTreeMap<String, Stored>)| {
        let mut weights = weights(&config, BlockFormat::Q8_0);
        change(&mut weights.0);
        let loaded = QuantisedVit::load(&config, &weights, &Device::Cpu, DType::F32);
        loaded.map(|_| ()).unwrap_err().to_string()
    };
    let name = "blocks.2.mlp.fc1.weight";
    assert!(load(&|w| drop(w.remove(name))).contains(name));
    assert!(load(&|w| drop(w.remove("norm.bias"))).contains("norm.bias"));
    let blocks = load(&|w| drop(w.insert("norm.bias".to_owned(), w[name].clone())));
    assert!(blocks.contains("norm.bias is quantised"), "{blocks}");
    let other = load(&|w| drop(w.insert(name.to_owned(), w["blocks.2.mlp.fc2.weight"].clone())));
    assert!(other.contains(name), "{other}");
}
