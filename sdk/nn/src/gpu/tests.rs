//! The kernels' sources, and the order in which they run, against plain tensors in f64, on the emulated machine.

use std::collections::BTreeMap;

use candle_core::{D, DType, Device, Result, Tensor, Var};

use super::block::{Blocks, Sink, Weights};
use super::emulated::Emulated;
use super::linear::{Layer, cast};
use super::losses::{self, Crops, Hidden};
use super::multi::{self, Slot};
use super::{Kind, Machine, Memory, View, attention, kernels};
use crate::ops::check::random;
use crate::ops::{self, Affine, BlockParams, Gelu, Sizes};

/// Both types of products and both orders of threads, with the tolerance that goes with the type.
fn machines() -> [(Emulated, f64); 4] {
    [(Kind::F32, false), (Kind::F32, true), (Kind::Bf16, false), (Kind::Bf16, true)].map(|(work, reversed)| {
        let tolerance = if work == Kind::F32 { 2e-5 } else { 2e-2 };
        (Emulated { work, reversed }, tolerance)
    })
}

fn put(machine: &dyn Machine, x: &Tensor) -> Result<Memory> {
    let values: Vec<f32> = x.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
    machine.upload(Kind::F32, &bytes)
}

/// The values in the type of products.
fn put_work(machine: &dyn Machine, x: &Tensor) -> Result<Memory> {
    let memory = put(machine, x)?;
    let work = machine.alloc(machine.work(), memory.view.len)?;
    kernels::scale(machine, memory.view, None, work.view)?;
    Ok(work)
}

fn floats(machine: &dyn Machine, len: usize) -> Result<Memory> {
    machine.alloc(Kind::F32, len)
}

fn f64s(x: &Tensor) -> Result<Vec<f64>> {
    x.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
}

/// Largest difference over the largest value at most `tolerance`.
fn close(machine: &dyn Machine, what: &str, got: View, want: &Tensor, tolerance: f64) -> Result<()> {
    let (got, want) = (machine.download(got)?, f64s(want)?);
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(1e-6, |m: f64, v| m.max(v.abs()));
    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
        let difference = (f64::from(*g) - w).abs();
        assert!(difference <= tolerance * scale, "{what}[{i}]: {g} instead of {w} (largest {scale:e})");
    }
    Ok(())
}

/// Gradients of `f(args)` weighted by `upstream`, in f64, after its value.
fn reference(f: &dyn Fn(&[Tensor]) -> Result<Tensor>, args: &[&Tensor], upstream: &Tensor) -> Result<Vec<Tensor>> {
    let vars = args.iter().map(|a| Var::from_tensor(&a.to_dtype(DType::F64)?)).collect::<Result<Vec<_>>>()?;
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let y = f(&tensors)?;
    let grads = crate::backward(&(&y * upstream.to_dtype(DType::F64)?)?.sum_all()?)?;
    let mut all = vec![y];
    for v in &vars {
        all.push(grads.get(v).expect("every argument has a gradient").clone());
    }
    Ok(all)
}

#[test]
fn layer_norm_and_its_gradient() -> Result<()> {
    for (machine, tolerance) in machines() {
        for (rows, d) in [(5, 7), (70, 64), (9, 384), (3, 2000)] {
            let x = ((random(&[rows, d], 1)? * 2.0)? + 0.7)?;
            let (w, b, g) = (random(&[d], 2)?, random(&[d], 3)?, random(&[rows, d], 4)?);
            let add = random(&[rows, d], 5)?;
            let want = reference(&|a| ops::layer_norm_reference(&a[0], &a[1], &a[2], 1e-6), &[&x, &w, &b], &g)?;
            let m = &machine;
            let (px, pw, pb) = (put(m, &x)?, put(m, &w)?, put(m, &b)?);
            let y = m.alloc(m.work(), rows * d)?;
            let stats = kernels::layer_norm(m, px.view, pw.view, pb.view, y.view, 1e-6)?;
            close(m, "y", y.view, &want[0], tolerance)?;
            let (grad, padd) = (put_work(m, &g)?, put(m, &add)?);
            let narrow = m.alloc(m.work(), rows * d)?;
            let factors = put(m, &random(&[rows], 6)?)?;
            let (dx, dw, db) = (floats(m, rows * d)?, put(m, &b)?, put(m, &b)?);
            let at = kernels::NormGrad {
                x: px.view,
                weight: pw.view,
                stats: stats.view,
                grad: grad.view,
                add: Some(padd.view),
                narrow: Some((narrow.view, Some((&factors, 1)))),
            };
            kernels::layer_norm_grad(m, &at, dx.view, [dw.view, db.view], true)?;
            let sum = (&want[1] + add.to_dtype(DType::F64)?)?;
            close(m, "dx", dx.view, &sum, tolerance)?;
            let scaled = sum.broadcast_mul(&random(&[rows], 6)?.to_dtype(DType::F64)?.unsqueeze(1)?)?;
            close(m, "narrow dx", narrow.view, &scaled, tolerance)?;
            let b64 = b.to_dtype(DType::F64)?;
            close(m, "dw", dw.view, &(&want[2] + &b64)?, tolerance)?;
            close(m, "db", db.view, &(&want[3] + &b64)?, tolerance)?;
            kernels::layer_norm_grad(m, &kernels::NormGrad { add: None, narrow: None, ..at }, dx.view, [dw.view, db.view], false)?;
            close(m, "dx alone", dx.view, &want[1], tolerance)?;
            close(m, "dw anew", dw.view, &want[2], tolerance)?;
        }
    }
    Ok(())
}

#[test]
fn gelu_and_its_gradient() -> Result<()> {
    for (machine, tolerance) in machines() {
        let m = &machine;
        for n in [4000, 1001] {
            for form in [Gelu::Tanh, Gelu::Erf] {
                let (x, g) = ((random(&[n], 1)? * 3.0)?, random(&[n], 2)?);
                let want = reference(&|a| ops::gelu_reference(&a[0], form), &[&x], &g)?;
                let (px, pg) = (put_work(m, &x)?, put_work(m, &g)?);
                let y = m.alloc(m.work(), n)?;
                kernels::gelu(m, px.view, y.view, form)?;
                close(m, "y", y.view, &want[0], tolerance)?;
                kernels::gelu_grad(m, px.view, pg.view, Some(px.view), pg.view, form)?;
                close(m, "y in place", px.view, &want[0], tolerance)?;
                close(m, "dx in place", pg.view, &want[1], tolerance)?;
            }
        }
    }
    Ok(())
}

#[test]
fn linear_and_its_gradients() -> Result<()> {
    for (machine, tolerance) in machines() {
        let m = &machine;
        for (rows, k, n) in [(5, 7, 3), (130, 24, 36)] {
            let (x, w, b, g) = (random(&[rows, k], 1)?, random(&[n, k], 2)?, random(&[n], 3)?, random(&[rows, n], 4)?);
            let residual = random(&[rows, n], 5)?;
            let want = reference(&|a| ops::linear_reference(&a[0], &a[1], Some(&a[2])), &[&x, &w, &b], &g)?;
            let (pw, pb) = (put(m, &w)?, put(m, &b)?);
            let layer = Layer::new(m, pw.view, Some(pb.view), [n, k])?;
            let (px, pg, pr) = (put_work(m, &x)?, put_work(m, &g)?, put(m, &residual)?);
            let y = floats(m, rows * n)?;
            layer.forward(m, px.view, Some(pr.view), y.view)?;
            close(m, "y + residual", y.view, &(&want[0] + residual.to_dtype(DType::F64)?)?, tolerance)?;
            let y = m.alloc(m.work(), rows * n)?;
            layer.forward(m, px.view, None, y.view)?;
            close(m, "y", y.view, &want[0], tolerance)?;
            let twice = (&want[0] + b.to_dtype(DType::F64)?.broadcast_as((rows, n))?)?;
            kernels::add_bias(m, y.view, cast(m, pb.view, m.work())?.view)?;
            close(m, "y with the bias again", y.view, &twice, tolerance)?;
            let (dx, dw, db) = (floats(m, rows * k)?, put(m, &w)?, put(m, &b)?);
            layer.input_grad(m, pg.view, dx.view)?;
            close(m, "dx", dx.view, &want[1], tolerance)?;
            layer.param_grads(m, px.view, pg.view, [dw.view, db.view], true)?;
            close(m, "dw added", dw.view, &(&want[2] + w.to_dtype(DType::F64)?)?, tolerance)?;
            close(m, "db added", db.view, &(&want[3] + b.to_dtype(DType::F64)?)?, tolerance)?;
            layer.param_grads(m, px.view, pg.view, [dw.view, db.view], false)?;
            close(m, "dw", dw.view, &want[2], tolerance)?;
            close(m, "db", db.view, &want[3], tolerance)?;
        }
    }
    Ok(())
}

fn sizes(tokens: usize, heads: usize, head_dim: usize) -> Sizes {
    Sizes { tokens, dim: heads * head_dim, heads, head_dim }
}

#[test]
fn attention_and_its_gradient() -> Result<()> {
    // 64 and 32 channels are on tensor cores in bf16; the numbers of tokens lie on and around the edges of tiles.
    for (b, n, heads, head_dim) in [(2, 5, 3, 8), (1, 33, 2, 40), (1, 64, 1, 64), (2, 70, 2, 64), (1, 129, 2, 32), (1, 1, 1, 32)] {
        let qkv = (random(&[b, n, 3 * heads * head_dim], 7)? * 1.5)?;
        let g = random(&[b, n, heads * head_dim], 8)?;
        let want = reference(&|a| ops::attention_reference(&a[0], heads), &[&qkv], &g)?;
        for (machine, tolerance) in machines() {
            let m = &machine;
            let (x, grad) = (put_work(m, &qkv)?, put_work(m, &g)?);
            let sizes = sizes(n, heads, head_dim);
            let attended = attention::forward(m, x.view, &sizes)?;
            close(m, "attended", attended.out.view, &want[0], tolerance)?;
            let dqkv = attention::backward(m, x.view, &attended, grad.view, &sizes)?;
            close(m, &format!("dqkv of {n} tokens, {head_dim} channels"), dqkv.view, &want[1], tolerance)?;
        }
    }
    Ok(())
}

#[test]
fn large_scores_stay_finite() -> Result<()> {
    for (machine, _) in machines() {
        let m = &machine;
        let x = put_work(m, &(random(&[1, 70, 3 * 64], 3)? * 1e3)?)?;
        let grad = put_work(m, &random(&[1, 70, 64], 4)?)?;
        let sizes = sizes(70, 1, 64);
        let attended = attention::forward(m, x.view, &sizes)?;
        let dqkv = attention::backward(m, x.view, &attended, grad.view, &sizes)?;
        for view in [attended.out.view, dqkv.view] {
            assert!(m.download(view)?.iter().all(|v| v.is_finite()));
        }
    }
    Ok(())
}

/// Gradients by block and pair.
struct Kept<'a> {
    machine: &'a dyn Machine,
    sizes: Vec<[usize; 2]>,
    grads: BTreeMap<(usize, usize), [Memory; 2]>,
}

impl Sink for Kept<'_> {
    fn pair(&mut self, block: usize, pair: usize, write: &mut dyn FnMut([View; 2], bool) -> Result<()>) -> Result<()> {
        let first = !self.grads.contains_key(&(block, pair));
        if first {
            let [w, b] = self.sizes[pair];
            self.grads.insert((block, pair), [floats(self.machine, w)?, floats(self.machine, b)?]);
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
    let affine = |i: usize| Affine { weight: args[2 * i].clone(), bias: args[2 * i + 1].clone() };
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
fn check_blocks(machine: &Emulated, [b, t, d, h, heads]: [usize; 5], gelu: Gelu, paths: bool, recompute: bool, tolerance: f64) -> Result<()> {
    let m: &dyn Machine = machine;
    let x = random(&[b, t, d], 1)?;
    let g = random(&[b, t, d], 2)?;
    let mut args = vec![x.clone()];
    for (i, shape) in shapes(d, h).iter().chain(&shapes(d, h)).enumerate() {
        args.push((random(shape, 10 + i as u64)? / (*shape.last().unwrap_or(&1) as f64).powf(0.4))?);
    }
    let factors: Vec<[Vec<f32>; 2]> = (0..2).map(|i| [0, 1].map(|j| (0..b).map(|k| ((i + j + k) % 3) as f32 * 0.7).collect())).collect();
    let forward = |a: &[Tensor]| {
        let path = |i: usize| paths.then_some(&factors[i]);
        let y = ops::block_reference(&a[0], &params(&a[1..13], heads, gelu), path(0))?;
        ops::block_reference(&y, &params(&a[13..25], heads, gelu), path(1))
    };
    let want = reference(&forward, &args.iter().collect::<Vec<_>>(), &g)?;

    let memory = args.iter().map(|a| put(m, a)).collect::<Result<Vec<_>>>()?;
    let weights = |first: usize| Weights {
        pairs: [0, 1, 2, 3, 4, 5].map(|i| [memory[first + 2 * i].view, memory[first + 2 * i + 1].view]),
        gelu,
        eps: 1e-6,
    };
    let put_factors = |f: &Vec<f32>| put(m, &Tensor::new(f.as_slice(), &Device::Cpu)?);
    let path = |f: &[Vec<f32>; 2]| Ok([put_factors(&f[0])?, put_factors(&f[1])?]);
    let paths = match paths {
        true => Some(factors.iter().map(path).collect::<Result<Vec<_>>>()?),
        false => None,
    };
    let blocks = Blocks { machine: m, weights: vec![weights(1), weights(13)], paths, sizes: sizes(t, heads, d / heads) };
    let y = floats(m, b * t * d)?;
    let trace = blocks.forward(memory[0].view, y.view, true, recompute)?;
    close(m, "y", y.view, &want[0], tolerance)?;
    let lens = shapes(d, h).chunks(2).map(|p| [p[0].iter().product(), p[1].iter().product()]).collect();
    let mut sink = Kept { machine: m, sizes: lens, grads: BTreeMap::new() };
    let dx = blocks.backward(memory[0].view, put(m, &g)?.view, trace, &mut sink)?;
    close(m, "dx", dx.view, &want[1], tolerance)?;
    for block in 0..2 {
        for pair in 0..6 {
            for (i, memory) in sink.grads[&(block, pair)].iter().enumerate() {
                let what = format!("block {block}, pair {pair}, {}", ["weight", "bias"][i]);
                close(m, &what, memory.view, &want[2 + 12 * block + 2 * pair + i], tolerance)?;
            }
        }
    }
    Ok(())
}

#[test]
fn blocks_and_their_gradients() -> Result<()> {
    for (machine, tolerance) in machines() {
        let tolerance = 3.0 * tolerance;
        check_blocks(&machine, [3, 5, 12, 20, 2], Gelu::Tanh, false, false, tolerance)?;
        check_blocks(&machine, [3, 5, 12, 20, 2], Gelu::Erf, true, true, tolerance)?;
        check_blocks(&machine, [2, 67, 64, 64, 2], Gelu::Tanh, true, false, tolerance)?;
        check_blocks(&machine, [1, 20, 128, 96, 2], Gelu::Tanh, false, true, tolerance)?;
    }
    Ok(())
}

#[test]
fn rows_are_gathered_and_their_gradients_summed() -> Result<()> {
    for (machine, _) in machines() {
        let m = &machine;
        let (rows, d) = (9, 130);
        // Row 3 is asked for 200 times, rows 0 and 8 never.
        let ids: Vec<u32> = [1, 7, 3, 2].into_iter().chain(std::iter::repeat_n(3, 199)).chain([4, 5, 6, 1]).collect();
        let (x, g) = (random(&[rows, d], 1)?, random(&[ids.len(), d], 2)?);
        let index = Tensor::new(ids.as_slice(), &Device::Cpu)?;
        let want = reference(&|a| a[0].index_select(&index, 0), &[&x], &g)?;
        let (px, pg) = (put(m, &x)?, put(m, &g)?);
        let (y, dx) = (floats(m, ids.len() * d)?, floats(m, rows * d)?);
        kernels::gather_rows(m, px.view, &ids, y.view, d)?;
        close(m, "gathered", y.view, &want[0], 0.0)?;
        losses::scatter_rows(m, pg.view, &ids, dx.view, d)?;
        close(m, "summed", dx.view, &want[1], 1e-6)?;
        assert!(kernels::gather_rows(m, px.view, &[9], dx.view, d).is_err());
    }
    Ok(())
}

#[test]
fn patches_are_those_of_the_permutation() -> Result<()> {
    for (machine, _) in machines() {
        let x = random(&[2, 3, 8, 12], 1)?;
        let want = ops::patchify(&x.to_dtype(DType::F64)?, 4)?;
        let (px, out) = (put(&machine, &x)?, floats(&machine, x.elem_count())?);
        kernels::patchify(&machine, px.view, [2, 3, 8, 12], 4, out.view)?;
        close(&machine, "patches", out.view, &want, 0.0)?;
    }
    Ok(())
}

#[test]
fn the_loss_of_hidden_patches_and_its_gradient() -> Result<()> {
    let (n, area) = (6, 16);
    let patches = ((random(&[n, 3 * area], 1)? * 2.0)? + 1.0)?;
    let ids = [4u32, 0, 5];
    let pred = random(&[ids.len(), 3 * area], 2)?;
    for normalise in [false, true] {
        let f = |a: &[Tensor]| {
            let rows = patches.to_dtype(DType::F64)?.index_select(&Tensor::new(&ids, &Device::Cpu)?, 0)?;
            let target = match normalise {
                true => {
                    let centred = rows.broadcast_sub(&rows.mean_keepdim(1)?)?;
                    let var = (centred.sqr()?.sum_keepdim(1)? / (3 * area - 1) as f64)?;
                    centred.broadcast_div(&(var + 1e-6)?.sqrt()?)?
                }
                false => rows,
            };
            let target = target.reshape((ids.len(), 3, area))?.transpose(1, 2)?.reshape((ids.len(), 3 * area))?;
            (&a[0] - target)?.sqr()?.mean_all()
        };
        let want = reference(&f, &[&pred], &Tensor::new(1.5f64, &Device::Cpu)?)?;
        for (machine, _) in machines() {
            let m = &machine;
            let (pp, px) = (put(m, &patches)?, put(m, &pred)?);
            let hidden = Hidden::new(m, pp.view, &ids, area, normalise)?;
            let loss = floats(m, 1)?;
            let stats = hidden.loss(m, px.view, loss.view)?;
            close(m, "loss", loss.view, &want[0], 1e-5)?;
            let (up, grad) = (put(m, &Tensor::new(&[1.5f32], &Device::Cpu)?)?, floats(m, pred.elem_count())?);
            hidden.grad(m, px.view, stats.view, up.view, grad.view)?;
            close(m, "gradient", grad.view, &want[1], 1e-5)?;
        }
    }
    Ok(())
}

fn softmax(x: &Tensor) -> Result<Tensor> {
    let exp = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)
}

#[test]
fn unit_rows_teacher_and_cross_entropy() -> Result<()> {
    let (batch, views, k) = (3, 5, 300);
    let (x, g) = ((random(&[7, k], 1)? * 3.0)?, random(&[7, k], 2)?);
    let unit = |a: &[Tensor]| a[0].broadcast_div(&a[0].sqr()?.sum_keepdim(1)?.sqrt()?);
    let want_unit = reference(&unit, &[&x], &g)?;

    let (logits, centre) = ((random(&[2 * batch, k], 3)? * 2.0)?, random(&[k], 4)?);
    let by = 1.0 / 0.07;
    let teacher = softmax(&(logits.broadcast_sub(&centre)?.to_dtype(DType::F64)? * by)?)?;
    let entropy = (&teacher * (&teacher + 1e-300)?.log()?)?.sum(1)?.neg()?;

    let student = random(&[views * batch, k], 5)?;
    let (temperature, upstream) = (0.1, 3.0);
    let terms = (2 * (views - 1) * batch) as f64;
    let teacher32 = teacher.to_dtype(DType::F32)?;
    let cross = |a: &[Tensor]| {
        let s = (&a[0] / temperature)?;
        let log = s.broadcast_sub(&s.exp()?.sum_keepdim(1)?.log()?)?;
        let mut total = Tensor::new(0f64, &Device::Cpu)?;
        for q in 0..2 {
            let t = teacher32.narrow(0, q * batch, batch)?.to_dtype(DType::F64)?;
            for v in (0..views).filter(|&v| v != q) {
                total = (total - (&t * log.narrow(0, v * batch, batch)?)?.sum_all()?)?;
            }
        }
        total / terms
    };
    let want_loss = reference(&cross, &[&student], &Tensor::new(upstream, &Device::Cpu)?)?;

    for (machine, _) in machines() {
        let m = &machine;
        let (px, pg) = (put(m, &x)?, put(m, &g)?);
        let y = floats(m, 7 * k)?;
        losses::unit_rows(m, px.view, y.view, k)?;
        close(m, "unit rows", y.view, &want_unit[0], 1e-6)?;
        losses::unit_rows_grad(m, px.view, pg.view, y.view, k)?;
        close(m, "gradient of unit rows", y.view, &want_unit[1], 1e-5)?;

        let (pl, pc, p) = (put(m, &logits)?, put(m, &centre)?, floats(m, 2 * batch * k)?);
        let got = losses::teacher_rows(m, pl.view, pc.view, by as f32, p.view)?;
        close(m, "teacher", p.view, &teacher, 2e-5)?;
        close(m, "entropy", got.view, &entropy, 2e-5)?;

        let crops = Crops { batch, globals: 2, width: k };
        let (ps, pt, loss) = (put(m, &student)?, put(m, &teacher32)?, floats(m, 1)?);
        let (by, factor) = ((1.0 / temperature) as f32, (1.0 / terms) as f32);
        let sums = losses::cross_entropy(m, [ps.view, pt.view], crops, by, factor, loss.view)?;
        close(m, "cross-entropy", loss.view, &want_loss[0], 1e-5)?;
        let (up, grad) = (put(m, &Tensor::new(&[upstream as f32], &Device::Cpu)?)?, floats(m, student.elem_count())?);
        let at = losses::CrossEntropyGrad { log_sums: sums.view, upstream: up.view };
        losses::cross_entropy_grad(m, [ps.view, pt.view], crops, [by, factor], &at, grad.view)?;
        close(m, "gradient of cross-entropy", grad.view, &want_loss[1], 1e-5)?;
    }
    Ok(())
}

#[test]
fn updates_of_many_tensors_are_those_of_each() -> Result<()> {
    let lens = [5usize, 40_000, 16_384, 1];
    let values = |seed: u64| lens.iter().map(|&n| random(&[n], seed + n as u64)).collect::<Result<Vec<_>>>();
    let (w, g, m1, m2) = (values(1)?, values(2)?, values(3)?, values(4)?);
    for (machine, _) in machines() {
        let m = &machine;
        let there = |all: &[Tensor]| all.iter().map(|x| put(m, x)).collect::<Result<Vec<_>>>();
        let (pw, pg, pm) = (there(&w)?, there(&g)?, there(&m1)?);
        let pv = there(&m2.iter().map(Tensor::sqr).collect::<Result<Vec<_>>>()?)?;
        let slot = |i: usize| Slot {
            a: Some(pw[i].view),
            b: pg[i].view,
            c: Some(pm[i].view),
            d: Some(pv[i].view),
            factors: [0.99, 0.01 * (i + 1) as f32, 1.3, 0.5],
        };
        let slots: Vec<Slot> = (0..lens.len()).map(slot).collect();
        for (sum, g) in multi::squares(m, &slots)?.iter().zip(&g) {
            let want: f64 = f64s(g)?.iter().map(|v| v * v).sum();
            assert!((sum / want - 1.0).abs() < 1e-5, "{sum} {want}");
        }
        multi::adamw(m, &slots, [0.9, 0.1, 0.95, 0.05, 1e-8])?;
        for i in 0..lens.len() {
            let (w, g) = (w[i].to_dtype(DType::F64)?, (g[i].to_dtype(DType::F64)? * 0.5)?);
            let m1 = ((m1[i].to_dtype(DType::F64)? * 0.9)? + (&g * 0.1)?)?;
            let m2 = ((m2[i].to_dtype(DType::F64)?.sqr()? * 0.95)? + (g.sqr()? * 0.05)?)?;
            let step = (&m1 / ((m2.sqrt()? * 1.3)? + 1e-8)?)?;
            let want = ((w * 0.99)? - (step * (0.01 * (i + 1) as f64))?)?;
            close(m, "first moment", pm[i].view, &m1, 1e-6)?;
            close(m, "second moment", pv[i].view, &m2, 1e-6)?;
            close(m, "weight", pw[i].view, &want, 1e-5)?;
        }
    }
    Ok(())
}

#[test]
fn a_moving_average_keeps_what_is_equal() -> Result<()> {
    let machine = Emulated { work: Kind::F32, reversed: false };
    let (t, s) = (random(&[20_000], 1)?, random(&[20_000], 2)?);
    let (pt, ps) = (put(&machine, &t)?, put(&machine, &s)?);
    let slot = Slot { a: Some(pt.view), b: ps.view, c: None, d: None, factors: [0.0; 4] };
    multi::ema(&machine, &[slot], 0.25)?;
    close(&machine, "average", pt.view, &((t * 0.75)? + (s * 0.25)?)?, 1e-6)?;
    multi::ema(&machine, &[slot], 0.0)?;
    assert!(multi::adamw(&machine, &[slot], [0.0; 5]).is_err());
    Ok(())
}

#[test]
fn bf16_rounds_to_the_nearest_even() -> Result<()> {
    let machine = Emulated { work: Kind::Bf16, reversed: false };
    let x = Tensor::new(&[1.0f32, 1.003_906_2, 1.011_718_8, -2.5, 1e-40], &Device::Cpu)?;
    let memory = put(&machine, &x)?;
    let narrow = cast(&machine, memory.view, Kind::Bf16)?;
    let wide = cast(&machine, narrow.view, Kind::F32)?;
    let got = machine.download(wide.view)?;
    assert_eq!(&got[..4], &[1.0, 1.0, 1.015_625, -2.5]);
    Ok(())
}
