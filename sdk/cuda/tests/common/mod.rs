//! An encoder with random weights, opened through the table, and what the emulated machine says of it.

use std::collections::HashMap;

use ssl_edge_gpu::emulated::Emulated;
use ssl_edge_gpu::encoder::{Config, Encoder, Tensors};
use ssl_edge_gpu::{Gelu, Kind, Machine, View};
use ssl_edge_plugin::{Options, Plugin, PluginError, Precision, Shape};

pub(crate) fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

pub(crate) struct Named(HashMap<String, Vec<f32>>);

impl Tensors for Named {
    fn get(&self, name: &str) -> Option<&[f32]> {
        self.0.get(name).map(Vec::as_slice)
    }
}

pub(crate) const CONFIG: Config = Config {
    dim: 64,
    depth: 1,
    heads: 1,
    patch: 4,
    registers: 4,
    hidden: 128,
    image_size: [32, 32],
    gelu: Gelu::Tanh,
    eps: 1e-6,
};

pub(crate) fn tensors(c: &Config) -> Named {
    let (d, pixels) = (c.dim, 3 * c.patch * c.patch);
    let mut sizes = vec![
        ("cls_token".to_owned(), d, 0.5),
        ("pos_embed".into(), (1 + c.n_patches()) * d, 0.5),
        ("register_tokens".into(), c.registers * d, 0.5),
        ("norm.weight".into(), d, 1.0),
        ("norm.bias".into(), d, 0.3),
    ];
    let mut linear = |name: String, n: usize, k: usize| {
        let weight = 1.5 / (k as f32).sqrt();
        sizes.push((format!("{name}.weight"), n * k, weight));
        sizes.push((format!("{name}.bias"), n, 0.3));
    };
    linear("patch_embed.proj".into(), d, pixels);
    for block in 0..c.depth {
        let name = |part: &str| format!("blocks.{block}.{part}");
        linear(name("attn.qkv"), 3 * d, d);
        linear(name("attn.proj"), d, d);
        linear(name("mlp.fc1"), c.hidden, d);
        linear(name("mlp.fc2"), d, c.hidden);
        linear(name("norm1"), d, 1);
        linear(name("norm2"), d, 1);
    }
    let made = sizes
        .into_iter()
        .enumerate()
        .map(|(i, (name, len, scale))| {
            let values = noise(i as u64 + 5, len);
            (name, values.iter().map(|v| v * scale).collect())
        });
    Named(made.collect())
}

pub(crate) fn open(
    plugin: &Plugin,
    named: &Named,
    options: &Options,
) -> Result<ssl_edge_plugin::Encoder, PluginError> {
    let tensors: Vec<(&str, &[f32])> = named
        .0
        .iter()
        .map(|(name, values)| (name.as_str(), values.as_slice()))
        .collect();
    let c = &CONFIG;
    let shape = Shape {
        dim: c.dim,
        depth: c.depth,
        heads: c.heads,
        patch: c.patch,
        registers: c.registers,
        hidden: c.hidden,
        image_size: c.image_size,
        erf: false,
        eps: c.eps,
    };
    plugin.encoder(&shape, &tensors, options)
}

/// All tokens by the emulated machine, `[B, T, D]`.
pub(crate) fn emulated(named: &Named, images: &[f32]) -> Vec<f32> {
    let machine = Emulated {
        work: Kind::F32,
        reversed: false,
    };
    let n = images.len() / CONFIG.image();
    let encoder = Encoder::new(&machine, &CONFIG, named).unwrap();
    let buffers = encoder.buffers(&machine, n).unwrap();
    let View { address, len, .. } = buffers.input(n, &CONFIG);
    // SAFETY: the emulated machine's memory is the host's, and has as many values.
    unsafe { std::slice::from_raw_parts_mut(address as *mut f32, len) }.copy_from_slice(images);
    encoder.forward(&machine, &buffers, n).unwrap();
    machine.download(buffers.output(n, &CONFIG)).unwrap()
}

/// Whether tokens of three images, in passes of two, are those of the emulated machine, several times.
///
/// # Errors
/// The encoder cannot be opened.
pub(crate) fn compare(plugin: &Plugin) -> Result<(), PluginError> {
    let named = tensors(&CONFIG);
    let images = noise(1, 3 * CONFIG.image());
    let want = emulated(&named, &images);
    for (precision, tolerance) in [(Precision::F32, 1e-4), (Precision::F16, 1e-2)] {
        let options = Options {
            device: 0,
            precision,
            images: 2,
        };
        let encoder = open(plugin, &named, &options)?;
        assert!(encoder.memory() > 0);
        let (d, n, prefix) = (CONFIG.dim, CONFIG.n_patches(), CONFIG.n_prefix());
        let largest = want.iter().fold(0f32, |most, v| most.max(v.abs()));
        for _ in 0..2 {
            let (mut cls, mut patches) = (vec![0.0; 3 * d], vec![0.0; 3 * n * d]);
            encoder.run(&images, 3, &mut cls, &mut patches)?;
            for (image, want) in want.chunks_exact((prefix + n) * d).enumerate() {
                let got = [&cls[image * d..][..d], &patches[image * n * d..][..n * d]].concat();
                let want = [&want[..d], &want[prefix * d..]].concat();
                for (got, want) in got.iter().zip(&want) {
                    let off = (got - want).abs() / largest;
                    assert!(off < tolerance, "{precision:?}: {got} instead of {want}");
                }
            }
        }
    }
    Ok(())
}
