//! The kernels' sources, and the order in which they run, against plain tensors in f64, on the emulated machine.

mod blocks;
mod encoder;
mod losses;

use candle_core::{DType, Device, Tensor, Var};

use crate::ops::check::random;
use crate::ops::{self, Gelu};
use ssl_edge_gpu::emulated::Emulated;
use ssl_edge_gpu::linear::{Layer, cast};
use ssl_edge_gpu::{Kind, Machine, Memory, View, attention, kernels};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Both types of products and both orders of threads, with the tolerance that goes with the type.
fn machines() -> [(Emulated, f64); 4] {
    [
        (Kind::F32, false),
        (Kind::F32, true),
        (Kind::Bf16, false),
        (Kind::Bf16, true),
    ]
    .map(|(work, reversed)| {
        let tolerance = if work == Kind::F32 { 2e-5 } else { 2e-2 };
        (Emulated { work, reversed }, tolerance)
    })
}

fn put(machine: &dyn Machine, x: &Tensor) -> Result<Memory> {
    let values: Vec<f32> = x.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
    Ok(machine.upload(Kind::F32, &bytes)?)
}

/// The values in the type of products.
fn put_work(machine: &dyn Machine, x: &Tensor) -> Result<Memory> {
    let memory = put(machine, x)?;
    let work = machine.alloc(machine.work(), memory.view.len)?;
    kernels::scale(machine, memory.view, None, work.view)?;
    Ok(work)
}

fn floats(machine: &dyn Machine, len: usize) -> ssl_edge_gpu::Result<Memory> {
    machine.alloc(Kind::F32, len)
}

fn f64s(x: &Tensor) -> candle_core::Result<Vec<f64>> {
    x.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
}

/// Largest difference over the largest value at most `tolerance`.
fn close(
    machine: &dyn Machine,
    what: &str,
    got: View,
    want: &Tensor,
    tolerance: f64,
) -> Result<()> {
    let (got, want) = (machine.download(got)?, f64s(want)?);
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(1e-6, |m: f64, v| m.max(v.abs()));
    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
        let difference = (f64::from(*g) - w).abs();
        assert!(
            difference <= tolerance * scale,
            "{what}[{i}]: {g} instead of {w} (largest {scale:e})"
        );
    }
    Ok(())
}

/// Gradients of `f(args)` weighted by `upstream`, in f64, after its value.
fn reference(
    f: &dyn Fn(&[Tensor]) -> candle_core::Result<Tensor>,
    args: &[&Tensor],
    upstream: &Tensor,
) -> Result<Vec<Tensor>> {
    let vars = args
        .iter()
        .map(|a| Var::from_tensor(&a.to_dtype(DType::F64)?))
        .collect::<candle_core::Result<Vec<_>>>()?;
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
            let want = reference(
                &|a| ops::layer_norm_reference(&a[0], &a[1], &a[2], 1e-6),
                &[&x, &w, &b],
                &g,
            )?;
            let m = &machine;
            let (px, pw, pb) = (put(m, &x)?, put(m, &w)?, put(m, &b)?);
            let y = m.alloc(m.work(), rows * d)?;
            let stats = kernels::layer_norm(m, px.view, [pw.view, pb.view], y.view, 1e-6)?;
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
            let scaled =
                sum.broadcast_mul(&random(&[rows], 6)?.to_dtype(DType::F64)?.unsqueeze(1)?)?;
            close(m, "narrow dx", narrow.view, &scaled, tolerance)?;
            let b64 = b.to_dtype(DType::F64)?;
            close(m, "dw", dw.view, &(&want[2] + &b64)?, tolerance)?;
            close(m, "db", db.view, &(&want[3] + &b64)?, tolerance)?;
            kernels::layer_norm_grad(
                m,
                &kernels::NormGrad {
                    add: None,
                    narrow: None,
                    ..at
                },
                dx.view,
                [dw.view, db.view],
                false,
            )?;
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
                kernels::gelu(m, px.view, y.view, form.into())?;
                close(m, "y", y.view, &want[0], tolerance)?;
                kernels::gelu_grad(m, px.view, pg.view, Some(px.view), pg.view, form.into())?;
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
            let (x, w, b, g) = (
                random(&[rows, k], 1)?,
                random(&[n, k], 2)?,
                random(&[n], 3)?,
                random(&[rows, n], 4)?,
            );
            let residual = random(&[rows, n], 5)?;
            let want = reference(
                &|a| ops::linear_reference(&a[0], &a[1], Some(&a[2])),
                &[&x, &w, &b],
                &g,
            )?;
            let (pw, pb) = (put(m, &w)?, put(m, &b)?);
            let layer = Layer::new(m, pw.view, Some(pb.view), [n, k])?;
            let (px, pg, pr) = (put_work(m, &x)?, put_work(m, &g)?, put(m, &residual)?);
            let y = floats(m, rows * n)?;
            layer.forward(m, px.view, Some(pr.view), y.view)?;
            close(
                m,
                "y + residual",
                y.view,
                &(&want[0] + residual.to_dtype(DType::F64)?)?,
                tolerance,
            )?;
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
            close(
                m,
                "dw added",
                dw.view,
                &(&want[2] + w.to_dtype(DType::F64)?)?,
                tolerance,
            )?;
            close(
                m,
                "db added",
                db.view,
                &(&want[3] + b.to_dtype(DType::F64)?)?,
                tolerance,
            )?;
            layer.param_grads(m, px.view, pg.view, [dw.view, db.view], false)?;
            close(m, "dw", dw.view, &want[2], tolerance)?;
            close(m, "db", db.view, &want[3], tolerance)?;
        }
    }
    Ok(())
}

fn sizes(tokens: usize, heads: usize, head_dim: usize) -> ssl_edge_gpu::Sizes {
    ssl_edge_gpu::Sizes {
        tokens,
        dim: heads * head_dim,
        heads,
        head_dim,
    }
}

#[test]
fn attention_and_its_gradient() -> Result<()> {
    // 64 and 32 channels are on tensor cores in bf16; the numbers of tokens lie on and around the edges of tiles.
    for (b, n, heads, head_dim) in [
        (2, 5, 3, 8),
        (1, 33, 2, 40),
        (1, 64, 1, 64),
        (2, 70, 2, 64),
        (1, 129, 2, 32),
        (1, 1, 1, 32),
    ] {
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
            close(
                m,
                &format!("dqkv of {n} tokens, {head_dim} channels"),
                dqkv.view,
                &want[1],
                tolerance,
            )?;
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

#[test]
fn bf16_rounds_to_the_nearest_even() -> Result<()> {
    let machine = Emulated {
        work: Kind::Bf16,
        reversed: false,
    };
    let x = Tensor::new(
        &[1.0f32, 1.003_906_2, 1.011_718_8, -2.5, 1e-40],
        &Device::Cpu,
    )?;
    let memory = put(&machine, &x)?;
    let narrow = cast(&machine, memory.view, Kind::Bf16)?;
    let wide = cast(&machine, narrow.view, Kind::F32)?;
    let got = machine.download(wide.view)?;
    assert_eq!(&got[..4], &[1.0, 1.0, 1.015_625, -2.5]);
    Ok(())
}
