//! Updates of all parameters in one launch.

use crate::{Result, bail};

use crate::kernels::{SUMS, THREADS};
use crate::{Arg, Kind, Launch, Machine, View, int};

/// Values of one block; as `CHUNK` in `kernels/optimiser.cu`.
const CHUNK: usize = 1 << 14;

/// One tensor's part of an update; what `a`, `b`, `c` and `d` are depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Weights, or the average.
    pub a: Option<View>,
    /// Gradients, or what is averaged or summed.
    pub b: View,
    /// First moments.
    pub c: Option<View>,
    /// Second moments.
    pub d: Option<View>,
    /// `keep`, `rate`, `second_scale` and `grad_factor` of AdamW.
    pub factors: [f32; 4],
}

/// Bytes of one slot; as `Slot` in `kernels/optimiser.cu`.
const SLOT: usize = 4 * 8 + 2 * 8 + 4 * 4;

/// The table as the kernels read it, and its number of chunks.
fn table(slots: &[Slot]) -> Result<(Vec<u8>, usize)> {
    let mut bytes = Vec::with_capacity(slots.len() * SLOT);
    let mut chunks = 0;
    for slot in slots {
        let views = [slot.a, Some(slot.b), slot.c, slot.d];
        if slot.b.len == 0
            || views
                .iter()
                .flatten()
                .any(|view| view.len != slot.b.len || view.kind != Kind::F32)
        {
            bail!("parameters, gradients and moments must be f32 of the same length, not 0")
        }
        for view in views {
            bytes.extend(view.map_or(0, |view| view.address).to_ne_bytes());
        }
        bytes.extend((slot.b.len as i64).to_ne_bytes());
        bytes.extend((chunks as i64).to_ne_bytes());
        slot.factors
            .iter()
            .for_each(|factor| bytes.extend(factor.to_ne_bytes()));
        chunks += slot.b.len.div_ceil(CHUNK);
    }
    Ok((bytes, chunks))
}

fn launch(machine: &dyn Machine, kernel: &str, slots: &[Slot], more: &[Arg]) -> Result<()> {
    if slots.is_empty() {
        return Ok(());
    }
    let (bytes, chunks) = table(slots)?;
    let table = machine.upload(Kind::U8, &bytes)?;
    let launch = Launch {
        file: "optimiser",
        kernel: kernel.into(),
        grid: [chunks, 1],
        threads: THREADS,
        shared: SUMS,
    };
    let mut args = vec![table.view.into(), int(slots.len())?];
    args.extend(more);
    // SAFETY: the table has the slots, whose views are as long as it says, and a block for each chunk.
    unsafe { machine.launch(&launch, &args) }
}

/// AdamW of weights `a` with gradients `b` and moments `c` and `d`; `constants` are beta1, 1 - beta1, beta2, 1 - beta2, eps.
pub fn adamw(machine: &dyn Machine, slots: &[Slot], constants: [f32; 5]) -> Result<()> {
    if slots
        .iter()
        .any(|slot| slot.a.is_none() || slot.c.is_none() || slot.d.is_none())
    {
        bail!("adamw needs weights and moments")
    }
    launch(machine, "adamw", slots, &constants.map(Arg::F32))
}

/// `a += weight * (b - a)`.
pub fn ema(machine: &dyn Machine, slots: &[Slot], weight: f32) -> Result<()> {
    if slots.iter().any(|slot| slot.a.is_none()) {
        bail!("a moving average needs something to average into")
    }
    launch(machine, "ema", slots, &[Arg::F32(weight)])
}

/// The sum of squares of each slot's `b`.
pub fn squares(machine: &dyn Machine, slots: &[Slot]) -> Result<Vec<f64>> {
    let counts: Vec<usize> = slots
        .iter()
        .map(|slot| slot.b.len.div_ceil(CHUNK))
        .collect();
    let sums = machine.alloc(Kind::F32, counts.iter().sum::<usize>().max(1))?;
    launch(machine, "squares", slots, &[sums.view.into()])?;
    if slots.is_empty() {
        return Ok(Vec::new());
    }
    let all = machine.download(sums.view)?;
    let mut rest = all.as_slice();
    let mut sum_of = |count: usize| {
        let (own, after) = rest.split_at(count);
        rest = after;
        own.iter().map(|&v| f64::from(v)).sum()
    };
    Ok(counts.into_iter().map(&mut sum_of).collect())
}
