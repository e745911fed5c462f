//! Rows, losses and updates.

use candle_core::D;

use super::*;
use ssl_edge_gpu::losses::{self, Crops, Hidden};
use ssl_edge_gpu::multi::{self, Slot};

#[test]
fn rows_are_gathered_and_their_gradients_summed() -> Result<()> {
    for (machine, _) in machines() {
        let m = &machine;
        let (rows, d) = (9, 130);
        // Row 3 is asked for 200 times, rows 0 and 8 never.
        let ids: Vec<u32> = [1, 7, 3, 2]
            .into_iter()
            .chain(std::iter::repeat_n(3, 199))
            .chain([4, 5, 6, 1])
            .collect();
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
            let rows = patches
                .to_dtype(DType::F64)?
                .index_select(&Tensor::new(&ids, &Device::Cpu)?, 0)?;
            let target = match normalise {
                true => {
                    let centred = rows.broadcast_sub(&rows.mean_keepdim(1)?)?;
                    let var = (centred.sqr()?.sum_keepdim(1)? / (3 * area - 1) as f64)?;
                    centred.broadcast_div(&(var + 1e-6)?.sqrt()?)?
                }
                false => rows,
            };
            let target = target
                .reshape((ids.len(), 3, area))?
                .transpose(1, 2)?
                .reshape((ids.len(), 3 * area))?;
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
            let (up, grad) = (
                put(m, &Tensor::new(&[1.5f32], &Device::Cpu)?)?,
                floats(m, pred.elem_count())?,
            );
            hidden.grad(m, px.view, stats.view, up.view, grad.view)?;
            close(m, "gradient", grad.view, &want[1], 1e-5)?;
        }
    }
    Ok(())
}

fn softmax(x: &Tensor) -> candle_core::Result<Tensor> {
    let exp = x
        .broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?
        .exp()?;
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
            let t = teacher32
                .narrow(0, q * batch, batch)?
                .to_dtype(DType::F64)?;
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

        let (pl, pc, p) = (
            put(m, &logits)?,
            put(m, &centre)?,
            floats(m, 2 * batch * k)?,
        );
        let got = losses::teacher_rows(m, pl.view, pc.view, by as f32, p.view)?;
        close(m, "teacher", p.view, &teacher, 2e-5)?;
        close(m, "entropy", got.view, &entropy, 2e-5)?;

        let crops = Crops {
            batch,
            globals: 2,
            width: k,
        };
        let (ps, pt, loss) = (put(m, &student)?, put(m, &teacher32)?, floats(m, 1)?);
        let (by, factor) = ((1.0 / temperature) as f32, (1.0 / terms) as f32);
        let sums = losses::cross_entropy(m, [ps.view, pt.view], crops, by, factor, loss.view)?;
        close(m, "cross-entropy", loss.view, &want_loss[0], 1e-5)?;
        let (up, grad) = (
            put(m, &Tensor::new(&[upstream as f32], &Device::Cpu)?)?,
            floats(m, student.elem_count())?,
        );
        let at = losses::CrossEntropyGrad {
            log_sums: sums.view,
            upstream: up.view,
        };
        losses::cross_entropy_grad(m, [ps.view, pt.view], crops, [by, factor], &at, grad.view)?;
        close(
            m,
            "gradient of cross-entropy",
            grad.view,
            &want_loss[1],
            1e-5,
        )?;
    }
    Ok(())
}

#[test]
fn updates_of_many_tensors_are_those_of_each() -> Result<()> {
    let lens = [5usize, 40_000, 16_384, 1];
    let values = |seed: u64| {
        lens.iter()
            .map(|&n| random(&[n], seed + n as u64))
            .collect::<candle_core::Result<Vec<_>>>()
    };
    let (w, g, m1, m2) = (values(1)?, values(2)?, values(3)?, values(4)?);
    for (machine, _) in machines() {
        let m = &machine;
        let there = |all: &[Tensor]| all.iter().map(|x| put(m, x)).collect::<Result<Vec<_>>>();
        let (pw, pg, pm) = (there(&w)?, there(&g)?, there(&m1)?);
        let pv = there(
            &m2.iter()
                .map(Tensor::sqr)
                .collect::<candle_core::Result<Vec<_>>>()?,
        )?;
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
            let (w, g) = (
                w[i].to_dtype(DType::F64)?,
                (g[i].to_dtype(DType::F64)? * 0.5)?,
            );
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
    let machine = Emulated {
        work: Kind::F32,
        reversed: false,
    };
    let (t, s) = (random(&[20_000], 1)?, random(&[20_000], 2)?);
    let (pt, ps) = (put(&machine, &t)?, put(&machine, &s)?);
    let slot = Slot {
        a: Some(pt.view),
        b: ps.view,
        c: None,
        d: None,
        factors: [0.0; 4],
    };
    multi::ema(&machine, &[slot], 0.25)?;
    close(
        &machine,
        "average",
        pt.view,
        &((t * 0.75)? + (s * 0.25)?)?,
        1e-6,
    )?;
    multi::ema(&machine, &[slot], 0.0)?;
    assert!(multi::adamw(&machine, &[slot], [0.0; 5]).is_err());
    Ok(())
}
