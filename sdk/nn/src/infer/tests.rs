//! The kernels and the packed encoder beside plain loops and the encoder that trains.

use candle_core::{DType, Device, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::layer::{Layer, Packed, Rows, Target};
use super::quantise::Quantised;
use super::*;
use crate::kernels::Kernels;
use crate::{Gelu, Params, Vit, VitConfig};

fn available() -> Vec<Isa> {
    Isa::ALL.into_iter().filter(|i| i.is_available()).collect()
}

pub(super) fn floats(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let unit = |word: u32| word as f32 / u32::MAX as f32 * 2.0 - 1.0;
    (0..n).map(|_| unit(rng.next_u32())).collect()
}

fn int8(n: usize, k: usize, seed: u64) -> Stored {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut values: Vec<i8> = (0..n * k)
        .map(|_| (rng.next_u32() % 255) as i8 as i32)
        .map(|v| v.max(-127) as i8)
        .collect();
    // Extremes in a row: where 16-bit pairs of `vpmaddubsw` would saturate.
    values[..k].fill(127);
    Stored::I8 {
        dims: [n, k],
        values,
        scale: (0..n).map(|i| 1.0 / (i + 1) as f32).collect(),
    }
}

struct Case {
    weight: Stored,
    bias: Vec<f32>,
    x: Vec<f32>,
    rows: usize,
    k: usize,
}

impl Case {
    fn apply(&self, isa: Isa, add: bool) -> Vec<f32> {
        let kernels = Kernels::of(isa);
        let layer = Layer::new(
            Packed::new(&self.weight, [self.bias.len(), self.k], &kernels).unwrap(),
            &self.bias,
            self.k,
        )
        .unwrap();
        let mut quantised = Quantised::new(self.rows, self.k, kernels.form).unwrap();
        let x = Rows {
            data: &self.x,
            stride: self.k,
            count: self.rows,
        };
        let mut y = vec![0.5; self.rows * self.bias.len()];
        let mut target = Target {
            data: &mut y,
            stride: self.bias.len(),
            add,
        };
        layer.apply(&kernels, x, &mut quantised, &mut target);
        y
    }
}

const SHAPES: [(usize, usize, usize); 7] = [
    (1, 4, 32),
    (1, 1, 1),
    (3, 7, 33),
    (13, 192, 64),
    (25, 64, 96),
    (7, 1536, 40),
    (12, 30, 31),
];

/// Sums in i64 from activations that are integers, so that quantisation does not round.
#[test]
fn integer_sums_are_exact_on_every_instruction_set() {
    for (rows, k, n) in SHAPES {
        let x: Vec<f32> = floats(rows * k, 1)
            .iter()
            .enumerate()
            .map(|(i, v)| {
                if i % k == 0 {
                    127.0
                } else {
                    (v * 127.0).round()
                }
            })
            .collect();
        let Stored::I8 { values, dims, .. } = int8(n, k, 2) else {
            unreachable!()
        };
        let case = Case {
            weight: Stored::I8 {
                dims,
                values: values.clone(),
                scale: vec![1.0; n],
            },
            bias: vec![0.0; n],
            x: x.clone(),
            rows,
            k,
        };
        for isa in available() {
            let y = case.apply(isa, false);
            for (i, got) in y.iter().enumerate() {
                let (row, column) = (i / n, i % n);
                let want: i64 = (0..k)
                    .map(|j| x[row * k + j] as i64 * i64::from(values[column * k + j]))
                    .sum();
                assert_eq!(*got, want as f32, "{isa} {rows}x{k}x{n} at {i}");
            }
        }
    }
}

#[test]
fn an_int8_layer_gives_the_same_bits_on_every_instruction_set() {
    for (rows, k, n) in SHAPES {
        let case = Case {
            weight: int8(n, k, 3),
            bias: floats(n, 4),
            x: floats(rows * k, 5),
            rows,
            k,
        };
        for add in [false, true] {
            let want = case.apply(Isa::Portable, add);
            for isa in available() {
                assert_eq!(case.apply(isa, add), want, "{isa} {rows}x{k}x{n}");
            }
        }
    }
}

#[test]
fn calls_of_every_height_and_depth_give_the_same_bits() {
    for rows in 1..=Kernels::MOST_ROWS {
        for k in [2, 29, 44, 70] {
            let case = Case {
                weight: int8(17, k, 6),
                bias: floats(17, 7),
                x: floats(rows * k, 8),
                rows,
                k,
            };
            let want = case.apply(Isa::Portable, true);
            for isa in available() {
                assert_eq!(case.apply(isa, true), want, "{isa} {rows}x{k}");
            }
        }
    }
}

/// FNV-1a over the bits, least significant byte first.
fn checksum<'a>(values: impl IntoIterator<Item = &'a f32>) -> u64 {
    let bytes = values.into_iter().flat_map(|v| v.to_bits().to_le_bytes());
    bytes.fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

/// The number was made by the plain loops on x86; every architecture must come to it.
#[test]
fn int8_layers_give_the_same_bits_on_every_architecture() {
    for isa in available() {
        let mut all = Vec::new();
        for (rows, k, n) in SHAPES {
            let case = Case {
                weight: int8(n, k, 3),
                bias: floats(n, 4),
                x: floats(rows * k, 5),
                rows,
                k,
            };
            all.extend(case.apply(isa, false));
            all.extend(case.apply(isa, true));
        }
        assert_eq!(checksum(&all), 0x9D8F_96BC_F7C2_2F4E, "{isa}");
    }
}

/// Between the integer products everything is one rounding after another, and products of f32 are fused wherever the CPU can.
#[test]
fn the_int8_encoder_gives_the_same_bits_on_every_architecture_that_fuses_products() {
    let config = config(64, 2, 4, Gelu::Tanh);
    let mut params = Params::new();
    Vit::init(&config, &mut params, "", &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
    let tensors = params.to_map();
    // Not the random weights themselves: those went through logarithms of the platform.
    let plain = tensors.iter().enumerate().map(|(i, (name, tensor))| {
        let offset = f32::from(u8::from(name.contains("norm") && name.ends_with("weight")));
        let values = floats(tensor.elem_count(), i as u64).into_iter();
        let values: Vec<f32> = values.map(|v| v * 0.25 + offset).collect();
        let tensor = Tensor::from_vec(values, tensor.dims(), &Device::Cpu).unwrap();
        (name.clone(), tensor)
    });
    let float = EncoderWeights::from_tensors(&plain.collect()).unwrap();
    let int8 = rounded(&float, &config);
    let images = floats(2 * 3 * 32 * 40, 2);
    let fused = |isa: &Isa| *isa != Isa::Portable || cfg!(target_arch = "aarch64");
    for isa in available().into_iter().filter(fused) {
        let options = PackedOptions {
            isa,
            ..PackedOptions::default()
        };
        let (cls, patches) = run(&config, &int8, options, &images);
        assert!(cls.iter().all(|v| v.is_finite()));
        let found = checksum(cls.iter().chain(&patches));
        assert_eq!(found, 0xC4DB_BF1D_5618_7C58, "{isa}");
    }
}

#[test]
fn an_f32_layer_equals_sums_in_f64() {
    for (rows, k, n) in SHAPES {
        let weight = floats(n * k, 6);
        let case = Case {
            weight: Stored::F32 {
                dims: vec![n, k],
                values: weight.clone(),
            },
            bias: floats(n, 7),
            x: floats(rows * k, 8),
            rows,
            k,
        };
        for isa in available() {
            for add in [false, true] {
                let y = case.apply(isa, add);
                for (i, got) in y.iter().enumerate() {
                    let (row, column) = (i / n, i % n);
                    let sum: f64 = (0..k)
                        .map(|j| f64::from(case.x[row * k + j]) * f64::from(weight[column * k + j]))
                        .sum();
                    let want = sum + f64::from(case.bias[column]) + if add { 0.5 } else { 0.0 };
                    let error = (f64::from(*got) - want).abs();
                    assert!(
                        error < 3e-6 * (k as f64).sqrt(),
                        "{isa} {rows}x{k}x{n}: {error}"
                    );
                }
            }
        }
    }
}

pub(super) fn config(dim: usize, heads: usize, registers: usize, gelu: Gelu) -> VitConfig {
    VitConfig {
        dim,
        depth: 3,
        heads,
        patch: 4,
        registers,
        mlp_ratio: 4,
        image_size: [32, 40],
        gelu,
        eps: 1e-6,
    }
}

pub(super) fn tensors(config: &VitConfig, seed: u64) -> std::collections::BTreeMap<String, Tensor> {
    let mut params = Params::new();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Vit::init(config, &mut params, "", &mut rng).unwrap();
    let noise = |t: &Tensor, i: usize| {
        let n = t.elem_count();
        let noise = Tensor::from_vec(floats(n, 100 + i as u64), t.dims(), &Device::Cpu).unwrap();
        (t + (noise * 0.1).unwrap()).unwrap()
    };
    let map = params.to_map();
    let noisy = map.iter().enumerate();
    noisy.map(|(i, (k, t))| (k.clone(), noise(t, i))).collect()
}

pub(super) fn run(
    config: &VitConfig,
    weights: &EncoderWeights,
    options: PackedOptions,
    images: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let batch = images.len() / (3 * config.image_size[0] * config.image_size[1]);
    let [rows, columns] = config.grid(config.image_size).unwrap();
    let encoder = PackedVit::new(config, weights.clone(), &options).unwrap();
    let mut cls = vec![0.0; batch * config.dim];
    let mut patches = vec![0.0; batch * rows * columns * config.dim];
    encoder.run(images, batch, &mut cls, &mut patches).unwrap();
    (cls, patches)
}

#[test]
fn the_packed_encoder_equals_the_one_that_trains() {
    for (config, batch) in [
        (config(64, 2, 4, Gelu::Tanh), 1),
        (config(48, 3, 0, Gelu::Erf), 3),
        (config(12, 1, 1, Gelu::Tanh), 2),
    ] {
        let tensors = tensors(&config, 1);
        let images = floats(batch * 3 * 32 * 40, 2);
        let f64s = tensors
            .iter()
            .map(|(k, t)| (k.clone(), t.to_dtype(DType::F64).unwrap()))
            .collect();
        let vit = Vit::load(&config, &f64s).unwrap();
        let input = Tensor::from_slice(&images, (batch, 3, 32, 40), &Device::Cpu).unwrap();
        let want = vit.forward(&input.to_dtype(DType::F64).unwrap()).unwrap();
        let n = want.dim(1).unwrap() - config.n_prefix();
        let part = |start, len| {
            let part = want.narrow(1, start, len).unwrap();
            part.flatten_all().unwrap().to_vec1::<f64>().unwrap()
        };
        let want = [part(0, 1), part(config.n_prefix(), n)];
        let weights = EncoderWeights::from_tensors(&tensors).unwrap();
        for isa in available() {
            let options = PackedOptions {
                threads: 3,
                images: 2,
                isa,
            };
            let (cls, patches) = run(&config, &weights, options, &images);
            for (got, want) in [cls, patches].iter().zip(&want) {
                assert_eq!(got.len(), want.len());
                for (got, want) in got.iter().zip(want) {
                    assert!((f64::from(*got) - want).abs() < 2e-5, "{isa}: {got} {want}");
                }
            }
        }
    }
}

/// Weights in which every linear layer is int8, rounded to the nearest.
fn rounded(weights: &EncoderWeights, config: &VitConfig) -> EncoderWeights {
    let mut all = weights.clone();
    for name in EncoderWeights::layer_names(config) {
        let stored = all.0.get_mut(&format!("{name}.weight")).unwrap();
        let Stored::F32 { dims, values } = stored else {
            unreachable!()
        };
        let dims = [dims[0], dims[1]];
        let largest = |row: &[f32]| row.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        let rows = values.chunks_exact(dims[1]);
        let scale: Vec<f32> = rows.clone().map(|row| largest(row) / 127.0).collect();
        let values = rows
            .zip(&scale)
            .flat_map(|(row, s)| row.iter().map(move |v| (v / s).round() as i8))
            .collect();
        *stored = Stored::I8 {
            dims,
            values,
            scale,
        };
    }
    all
}

#[test]
fn neither_threads_nor_batches_nor_passes_change_a_bit() {
    let config = config(64, 2, 4, Gelu::Tanh);
    let float = EncoderWeights::from_tensors(&tensors(&config, 1)).unwrap();
    let images = floats(5 * 3 * 32 * 40, 2);
    for weights in [rounded(&float, &config), float] {
        let options = |threads, images| PackedOptions {
            threads,
            images,
            ..PackedOptions::default()
        };
        let (cls, patches) = run(&config, &weights, options(1, 1), &images);
        for (threads, at_once) in [(1, 5), (2, 1), (3, 2), (16, 4)] {
            let got = run(&config, &weights, options(threads, at_once), &images);
            assert_eq!(got, (cls.clone(), patches.clone()), "{threads} {at_once}");
        }
        let one = run(&config, &weights, options(2, 1), &images[..3 * 32 * 40]);
        assert_eq!(one.0, cls[..64]);
    }
}

#[test]
fn the_int8_encoder_is_near_its_own_f32_weights_and_equal_where_products_are_fused() {
    let config = config(64, 2, 4, Gelu::Tanh);
    let float = EncoderWeights::from_tensors(&tensors(&config, 1)).unwrap();
    let int8 = rounded(&float, &config);
    assert!(int8.has_int8() && !float.has_int8());
    let images = floats(2 * 3 * 32 * 40, 2);
    let (want, _) = run(&config, &float, PackedOptions::default(), &images);
    let mut bits = Vec::new();
    for isa in available() {
        let options = PackedOptions {
            isa,
            ..PackedOptions::default()
        };
        let (got, patches) = run(&config, &int8, options, &images);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let cosine = dot(&got, &want) / (dot(&got, &got) * dot(&want, &want)).sqrt();
        assert!(cosine > 0.999, "{isa}: {cosine}");
        if isa != Isa::Portable || cfg!(target_arch = "aarch64") {
            bits.push((got, patches));
        }
    }
    assert!(bits.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn frames_from_several_threads_take_turns() {
    let config = config(64, 2, 4, Gelu::Tanh);
    let float = EncoderWeights::from_tensors(&tensors(&config, 1)).unwrap();
    let weights = rounded(&float, &config);
    let options = PackedOptions {
        threads: 2,
        ..PackedOptions::default()
    };
    let encoder = PackedVit::new(&config, weights.clone(), &options).unwrap();
    let inputs: Vec<Vec<f32>> = (0..4).map(|i| floats(3 * 32 * 40, i)).collect();
    let cls = |input: &[f32]| {
        let (mut cls, mut patches) = (vec![0.0; 64], vec![0.0; 80 * 64]);
        encoder.run(input, 1, &mut cls, &mut patches).unwrap();
        cls
    };
    let want: Vec<Vec<f32>> = inputs.iter().map(|input| cls(input)).collect();
    std::thread::scope(|scope| {
        for (input, want) in inputs.iter().zip(&want) {
            scope.spawn(|| (0..25).for_each(|_| assert_eq!(cls(input), *want)));
        }
    });
}

#[test]
fn wrong_lengths_and_weights_are_errors() {
    let config = config(12, 1, 1, Gelu::Tanh);
    let weights = EncoderWeights::from_tensors(&tensors(&config, 1)).unwrap();
    let encoder = PackedVit::new(&config, weights.clone(), &PackedOptions::default()).unwrap();
    let error = encoder.run(&[0.0; 7], 1, &mut [0.0; 12], &mut [0.0; 80 * 12]);
    assert!(error.unwrap_err().to_string().contains("images has 7"));
    let mut missing = weights.clone();
    missing.0.remove("blocks.1.mlp.fc2.weight");
    let error = PackedVit::new(&config, missing.clone(), &PackedOptions::default());
    assert!(matches!(
        error.map(|_| ()),
        Err(Error::MissingTensor { .. })
    ));
}

use crate::Error;
