//! The encoder on the emulated machine against plain loops in f64.

use std::collections::HashMap;

use super::*;
use crate::emulated::{Emulated, f16_to_f32, f32_to_f16};

struct Named(HashMap<String, Vec<f32>>);

impl Tensors for Named {
    fn get(&self, name: &str) -> Option<&[f32]> {
        self.0.get(name).map(Vec::as_slice)
    }
}

/// Numbers between -1 and 1 that depend on the seed and the place.
fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn tensors(c: &Config) -> Named {
    let mut named = HashMap::new();
    let mut put = |name: String, len: usize, scale: f32, shift: f32| {
        let seed = named.len() as u64 + 3;
        let values = noise(seed, len).iter().map(|v| v * scale + shift).collect();
        named.insert(name, values);
    };
    let (d, pixels) = (c.dim, 3 * c.patch * c.patch);
    put("cls_token".into(), d, 0.5, 0.0);
    put("pos_embed".into(), (1 + c.n_patches()) * d, 0.5, 0.0);
    if c.registers > 0 {
        put("register_tokens".into(), c.registers * d, 0.5, 0.0);
    }
    let mut linear = |name: &str, n: usize, k: usize| {
        put(
            format!("{name}.weight"),
            n * k,
            1.5 / (k as f32).sqrt(),
            0.0,
        );
        put(format!("{name}.bias"), n, 0.3, 0.0);
    };
    linear("patch_embed.proj", d, pixels);
    for block in 0..c.depth {
        linear(&format!("blocks.{block}.attn.qkv"), 3 * d, d);
        linear(&format!("blocks.{block}.attn.proj"), d, d);
        linear(&format!("blocks.{block}.mlp.fc1"), c.hidden, d);
        linear(&format!("blocks.{block}.mlp.fc2"), d, c.hidden);
    }
    let norms = (0..c.depth).flat_map(|b| [1, 2].map(|n| format!("blocks.{b}.norm{n}")));
    for name in norms.chain(["norm".to_owned()]) {
        put(format!("{name}.weight"), d, 0.3, 1.0);
        put(format!("{name}.bias"), d, 0.3, 0.0);
    }
    Named(named)
}

/// Rows of f64.
type Rows = Vec<Vec<f64>>;

/// The encoder in f64.
struct Plain<'a>(&'a Config, &'a Named);

impl Plain<'_> {
    fn values(&self, name: &str) -> Vec<f64> {
        let values = self.1.get(name).expect("it was made");
        values.iter().map(|&v| f64::from(v)).collect()
    }

    fn linear(&self, name: &str, x: &Rows) -> Rows {
        let weight = self.values(&format!("{name}.weight"));
        let bias = self.values(&format!("{name}.bias"));
        let row = |x: &Vec<f64>| {
            let rows = weight.chunks_exact(x.len()).zip(&bias);
            rows.map(|(w, b)| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>() + b)
                .collect()
        };
        x.iter().map(row).collect()
    }

    fn norm(&self, name: &str, x: &Rows) -> Rows {
        let weight = self.values(&format!("{name}.weight"));
        let bias = self.values(&format!("{name}.bias"));
        let row = |x: &Vec<f64>| {
            let n = x.len() as f64;
            let mean = x.iter().sum::<f64>() / n;
            let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
            let by = 1.0 / (variance + f64::from(self.0.eps)).sqrt();
            let scaled = x.iter().zip(&weight).zip(&bias);
            scaled.map(|((v, w), b)| (v - mean) * by * w + b).collect()
        };
        x.iter().map(row).collect()
    }

    fn attend(&self, qkv: &Rows) -> Rows {
        let (d, head) = (self.0.dim, self.0.dim / self.0.heads);
        let mut out = vec![vec![0.0; d]; qkv.len()];
        for (query, out) in qkv.iter().zip(&mut out) {
            for first in (0..d).step_by(head) {
                let score = |key: &Vec<f64>| {
                    let products = (first..first + head).map(|i| query[i] * key[d + i]);
                    (products.sum::<f64>() / (head as f64).sqrt()).exp()
                };
                let scores: Vec<f64> = qkv.iter().map(score).collect();
                let total: f64 = scores.iter().sum();
                for (value, score) in qkv.iter().zip(&scores) {
                    for i in first..first + head {
                        out[i] += score / total * value[2 * d + i];
                    }
                }
            }
        }
        out
    }

    fn gelu(&self, x: f64) -> f64 {
        match self.0.gelu {
            Gelu::Tanh => {
                let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                0.5 * x * (1.0 + u.tanh())
            }
            // The integral of the normal density by Simpson's rule.
            Gelu::Erf => {
                let (n, density) = (2000, |t: f64| (-0.5 * t * t).exp() / 2.506_628_274_631);
                let h = x / f64::from(n);
                let weight = |i| match i {
                    0 => 1.0,
                    i if i == n => 1.0,
                    i => 2.0 + 2.0 * f64::from(i % 2),
                };
                let sum: f64 = (0..=n).map(|i| weight(i) * density(h * f64::from(i))).sum();
                x * (0.5 + sum * h / 3.0)
            }
        }
    }

    fn tokens(&self, image: &[f32]) -> Rows {
        let c = self.0;
        let ([height, width], p) = (c.image_size, c.patch);
        let mut pixels = Vec::new();
        for y in (0..height).step_by(p) {
            for x in (0..width).step_by(p) {
                let at = |i: usize| {
                    let (channel, row, column) = (i / (p * p), i / p % p, i % p);
                    f64::from(image[(channel * height + y + row) * width + x + column])
                };
                pixels.push((0..3 * p * p).map(at).collect());
            }
        }
        let add = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + b).collect();
        let positions = self.values("pos_embed");
        let mut positions = positions.chunks_exact(c.dim);
        let first = positions.next().expect("CLS has one");
        let mut tokens = vec![add(&self.values("cls_token"), first)];
        if c.registers > 0 {
            let registers = self.values("register_tokens");
            tokens.extend(registers.chunks_exact(c.dim).map(<[f64]>::to_vec));
        }
        let embedded = self.linear("patch_embed.proj", &pixels);
        tokens.extend(embedded.iter().zip(positions).map(|(x, p)| add(x, p)));
        tokens
    }

    fn run(&self, image: &[f32]) -> Rows {
        let add = |x: &mut Rows, branch: Rows| {
            for (x, branch) in x.iter_mut().flatten().zip(branch.into_iter().flatten()) {
                *x += branch;
            }
        };
        let mut x = self.tokens(image);
        for block in 0..self.0.depth {
            let name = |part: &str| format!("blocks.{block}.{part}");
            let qkv = self.linear(&name("attn.qkv"), &self.norm(&name("norm1"), &x));
            add(&mut x, self.linear(&name("attn.proj"), &self.attend(&qkv)));
            let mut hidden = self.linear(&name("mlp.fc1"), &self.norm(&name("norm2"), &x));
            hidden.iter_mut().flatten().for_each(|v| *v = self.gelu(*v));
            add(&mut x, self.linear(&name("mlp.fc2"), &hidden));
        }
        self.norm("norm", &x)
    }
}

const SMALL: Config = Config {
    dim: 48,
    depth: 2,
    heads: 2,
    patch: 4,
    registers: 2,
    hidden: 80,
    image_size: [8, 12],
    gelu: Gelu::Erf,
    eps: 1e-6,
};

/// Heads of 32 and 64 channels, which are on tensor cores in 16 bits, and 9 to 70 tokens, on both sides of a tile's edge.
fn shapes() -> [Config; 3] {
    let wide = Config {
        dim: 64,
        gelu: Gelu::Tanh,
        registers: 0,
        ..SMALL
    };
    let long = Config {
        heads: 1,
        depth: 1,
        registers: 5,
        image_size: [32, 32],
        ..wide
    };
    [SMALL, wide, long]
}

fn machine(work: Kind) -> Emulated {
    Emulated {
        work,
        reversed: false,
    }
}

fn put(to: View, values: &[f32]) {
    assert_eq!(to.len, values.len());
    // SAFETY: the emulated machine's memory is the host's, and has as many values.
    unsafe { std::slice::from_raw_parts_mut(to.address as *mut f32, to.len) }
        .copy_from_slice(values);
}

/// All tokens of a batch in memory for `room` images.
fn run(machine: &Emulated, encoder: &Encoder, at: &Buffers, images: &[f32]) -> Vec<f32> {
    let config = encoder.config();
    let n = images.len() / config.image();
    put(at.input(n, config), images);
    encoder.forward(machine, at, n).unwrap();
    machine.download(at.output(n, config)).unwrap()
}

#[test]
fn tokens_are_those_of_plain_loops() {
    for config in shapes() {
        let named = tensors(&config);
        let images = noise(1, 2 * config.image());
        let want: Vec<f64> = images
            .chunks_exact(config.image())
            .flat_map(|image| Plain(&config, &named).run(image))
            .flatten()
            .collect();
        for (work, tolerance) in [(Kind::F32, 2e-5), (Kind::Bf16, 4e-2), (Kind::F16, 5e-3)] {
            let m = machine(work);
            let encoder = Encoder::new(&m, &config, &named).unwrap();
            let buffers = encoder.buffers(&m, 2).unwrap();
            let got = run(&m, &encoder, &buffers, &images);
            assert_eq!(got.len(), want.len());
            let largest = want.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
            for (got, want) in got.iter().zip(&want) {
                let off = (f64::from(*got) - want).abs() / largest;
                assert!(
                    off < tolerance,
                    "{config:?} in {work:?}: {got} instead of {want}"
                );
            }
        }
    }
}

#[test]
fn a_batch_and_what_was_there_before_change_nothing() {
    let m = machine(Kind::F16);
    let named = tensors(&SMALL);
    let encoder = Encoder::new(&m, &SMALL, &named).unwrap();
    let buffers = encoder.buffers(&m, 3).unwrap();
    let images = noise(9, 3 * SMALL.image());
    let together = run(&m, &encoder, &buffers, &images);
    let image = SMALL.tokens() * SMALL.dim;
    for (one, want) in images
        .chunks_exact(SMALL.image())
        .zip(together.chunks_exact(image))
    {
        assert_eq!(run(&m, &encoder, &buffers, one), want);
    }
    for images in [0, 4] {
        assert!(encoder.forward(&m, &buffers, images).is_err());
    }
}

#[test]
fn tensors_and_sizes_that_do_not_fit_are_named() {
    let m = machine(Kind::F16);
    let refused = |config: &Config, named: &Named| {
        let made = Encoder::new(&m, config, named);
        made.map(|_| ()).unwrap_err().to_string()
    };
    let mut named = tensors(&SMALL);
    named.0.remove("blocks.1.mlp.fc1.bias");
    assert!(refused(&SMALL, &named).contains("blocks.1.mlp.fc1.bias"));
    named = tensors(&SMALL);
    named.0.insert("norm.weight".into(), vec![0.0; 47]);
    let text = refused(&SMALL, &named);
    assert!(text.contains("norm.weight has 47 values"), "{text}");
    let named = tensors(&SMALL);
    let bad = [
        Config { dim: 0, ..SMALL },
        Config { heads: 5, ..SMALL },
        Config { patch: 5, ..SMALL },
        Config {
            depth: 1 << 20,
            ..SMALL
        },
        Config {
            eps: f32::NAN,
            ..SMALL
        },
    ];
    for config in bad {
        assert!(!refused(&config, &named).is_empty(), "{config:?}");
    }
}

#[test]
fn f16_rounds_to_the_nearest_even_on_both_sides_of_the_emulation() {
    let cases = [
        (0.0, 0x0000),
        (-0.0, 0x8000),
        (1.0, 0x3c00),
        (-2.5, 0xc100),
        (1.000_488_3, 0x3c00),
        (1.001_464_8, 0x3c02),
        (65504.0, 0x7bff),
        (65519.9, 0x7bff),
        (65520.0, 0x7c00),
        (-1e30, 0xfc00),
        (6.103_515_6e-5, 0x0400),
        (6.097_555e-5, 0x03ff),
        (5.960_464_5e-8, 0x0001),
        (2.9e-8, 0x0000),
        (8.940_697e-8, 0x0002),
        (0.000_061_02, 0x0400),
    ];
    for (value, bits) in cases {
        assert_eq!(f32_to_f16(value), bits, "{value}");
    }
    for bits in 0..=u16::MAX {
        let value = f16_to_f32(bits);
        assert!(value.is_nan() || f32_to_f16(value) == bits, "{bits:#x}");
    }
    // The kernels' own conversions, there and back.
    let m = machine(Kind::F16);
    let mut all: Vec<f32> = noise(4, 3000).iter().map(|v| v * v * v * 7e4).collect();
    all.extend(cases.map(|(value, _)| value));
    let bytes: Vec<u8> = all.iter().flat_map(|v| v.to_ne_bytes()).collect();
    let there = m.upload(Kind::F32, &bytes).unwrap();
    let narrow = cast(&m, there.view, Kind::F16).unwrap();
    let wide = cast(&m, narrow.view, Kind::F32).unwrap();
    for (got, value) in m.download(wide.view).unwrap().iter().zip(&all) {
        assert_eq!(*got, f16_to_f32(f32_to_f16(*value)), "{value}");
    }
}
