//! Transformer blocks.

use std::collections::BTreeMap;

use super::*;
use crate::ops::{Affine, BlockParams};
use ssl_edge_gpu::block::{Blocks, Sink, Weights};

/// Gradients by block and pair.
struct Kept<'a> {
    machine: &'a dyn Machine,
    sizes: Vec<[usize; 2]>,
    grads: BTreeMap<(usize, usize), [Memory; 2]>,
}

impl Sink for Kept<'_> {
    fn pair(
        &mut self,
        block: usize,
        pair: usize,
        write: &mut dyn FnMut([View; 2], bool) -> ssl_edge_gpu::Result<()>,
    ) -> ssl_edge_gpu::Result<()> {
        let first = !self.grads.contains_key(&(block, pair));
        if first {
            let [w, b] = self.sizes[pair];
            self.grads.insert(
                (block, pair),
                [floats(self.machine, w)?, floats(self.machine, b)?],
            );
        }
        let [w, b] = &self.grads[&(block, pair)];
        write([w.view, b.view], !first)
    }
}

/// Shapes of a block's parameters, weight before bias.
fn shapes(d: usize, h: usize) -> Vec<Vec<usize>> {
    vec![
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
    ]
}

fn params(args: &[Tensor], heads: usize, gelu: Gelu) -> BlockParams {
    let affine = |i: usize| Affine {
        weight: args[2 * i].clone(),
        bias: args[2 * i + 1].clone(),
    };
    BlockParams {
        norm1: affine(0),
        qkv: affine(1),
        proj: affine(2),
        norm2: affine(3),
        fc1: affine(4),
        fc2: affine(5),
        heads,
        gelu,
        eps: 1e-6,
    }
}

/// Two blocks of the same sizes on `[b, t, d]` against the single ops.
fn check_blocks(
    machine: &Emulated,
    [b, t, d, h, heads]: [usize; 5],
    gelu: Gelu,
    paths: bool,
    recompute: bool,
    tolerance: f64,
) -> Result<()> {
    let m: &dyn Machine = machine;
    let x = random(&[b, t, d], 1)?;
    let g = random(&[b, t, d], 2)?;
    let mut args = vec![x.clone()];
    for (i, shape) in shapes(d, h).iter().chain(&shapes(d, h)).enumerate() {
        args.push(
            (random(shape, 10 + i as u64)? / (*shape.last().unwrap_or(&1) as f64).powf(0.4))?,
        );
    }
    let factors: Vec<[Vec<f32>; 2]> = (0..2)
        .map(|i| [0, 1].map(|j| (0..b).map(|k| ((i + j + k) % 3) as f32 * 0.7).collect()))
        .collect();
    let forward = |a: &[Tensor]| {
        let path = |i: usize| paths.then_some(&factors[i]);
        let y = ops::block_reference(&a[0], &params(&a[1..13], heads, gelu), path(0))?;
        ops::block_reference(&y, &params(&a[13..25], heads, gelu), path(1))
    };
    let want = reference(&forward, &args.iter().collect::<Vec<_>>(), &g)?;

    let memory = args.iter().map(|a| put(m, a)).collect::<Result<Vec<_>>>()?;
    let weights = |first: usize| Weights {
        pairs: [0, 1, 2, 3, 4, 5]
            .map(|i| [memory[first + 2 * i].view, memory[first + 2 * i + 1].view]),
        gelu: gelu.into(),
        eps: 1e-6,
    };
    let put_factors = |f: &Vec<f32>| put(m, &Tensor::new(f.as_slice(), &Device::Cpu)?);
    let path = |f: &[Vec<f32>; 2]| Ok([put_factors(&f[0])?, put_factors(&f[1])?]);
    let paths = match paths {
        true => Some(factors.iter().map(path).collect::<Result<Vec<_>>>()?),
        false => None,
    };
    let blocks = Blocks {
        machine: m,
        weights: vec![weights(1), weights(13)],
        paths,
        sizes: sizes(t, heads, d / heads),
    };
    let y = floats(m, b * t * d)?;
    let trace = blocks.forward(memory[0].view, y.view, true, recompute)?;
    close(m, "y", y.view, &want[0], tolerance)?;
    let lens = shapes(d, h)
        .chunks(2)
        .map(|p| [p[0].iter().product(), p[1].iter().product()])
        .collect();
    let mut sink = Kept {
        machine: m,
        sizes: lens,
        grads: BTreeMap::new(),
    };
    let dx = blocks.backward(memory[0].view, put(m, &g)?.view, trace, &mut sink)?;
    close(m, "dx", dx.view, &want[1], tolerance)?;
    for block in 0..2 {
        for pair in 0..6 {
            for (i, memory) in sink.grads[&(block, pair)].iter().enumerate() {
                let what = format!("block {block}, pair {pair}, {}", ["weight", "bias"][i]);
                close(
                    m,
                    &what,
                    memory.view,
                    &want[2 + 12 * block + 2 * pair + i],
                    tolerance,
                )?;
            }
        }
    }
    Ok(())
}

#[test]
fn blocks_and_their_gradients() -> Result<()> {
    for (machine, tolerance) in machines() {
        let tolerance = 3.0 * tolerance;
        check_blocks(
            &machine,
            [3, 5, 12, 20, 2],
            Gelu::Tanh,
            false,
            false,
            tolerance,
        )?;
        check_blocks(
            &machine,
            [3, 5, 12, 20, 2],
            Gelu::Erf,
            true,
            true,
            tolerance,
        )?;
        check_blocks(
            &machine,
            [2, 67, 64, 64, 2],
            Gelu::Tanh,
            true,
            false,
            tolerance,
        )?;
        check_blocks(
            &machine,
            [1, 20, 128, 96, 2],
            Gelu::Tanh,
            false,
            true,
            tolerance,
        )?;
    }
    Ok(())
}
