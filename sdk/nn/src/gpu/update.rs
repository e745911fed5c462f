//! Updates of parameters on a GPU, all in one launch.

use candle_core::{Result, Tensor};

use super::multi::{self, Slot};
use super::ops::{machine, view_of};
use super::{OrCandle, View};

/// AdamW's step of one parameter.
pub(crate) struct AdamWUpdate<'a> {
    pub(crate) weight: &'a Tensor,
    pub(crate) grad: Tensor,
    pub(crate) moments: [Tensor; 2],
    /// `keep`, `rate`, `second_scale` and `grad_factor`.
    pub(crate) factors: [f32; 4],
}

fn slot(b: View) -> Slot {
    Slot {
        a: None,
        b,
        c: None,
        d: None,
        factors: [0.0; 4],
    }
}

/// See [`multi::adamw`].
pub(crate) fn adamw(updates: &[AdamWUpdate<'_>], constants: [f32; 5]) -> Result<()> {
    let Some(first) = updates.first() else {
        return Ok(());
    };
    let slots = updates.iter().map(|update| {
        Ok(Slot {
            a: Some(view_of(update.weight)?),
            c: Some(view_of(&update.moments[0])?),
            d: Some(view_of(&update.moments[1])?),
            factors: update.factors,
            ..slot(view_of(&update.grad)?)
        })
    });
    multi::adamw(
        &*machine(first.weight)?,
        &slots.collect::<Result<Vec<_>>>()?,
        constants,
    )
    .or_candle()
}

/// `teacher += weight * (student - teacher)` for pairs of both.
pub(crate) fn ema(pairs: &[(&Tensor, &Tensor)], weight: f32) -> Result<()> {
    let Some((first, _)) = pairs.first() else {
        return Ok(());
    };
    let slots = pairs.iter().map(|(teacher, student)| {
        Ok(Slot {
            a: Some(view_of(teacher)?),
            ..slot(view_of(student)?)
        })
    });
    multi::ema(
        &*machine(first)?,
        &slots.collect::<Result<Vec<_>>>()?,
        weight,
    )
    .or_candle()
}

/// The sum of squares of each tensor.
pub(crate) fn squares(tensors: &[&Tensor]) -> Result<Vec<f64>> {
    let Some(first) = tensors.first() else {
        return Ok(Vec::new());
    };
    let slots = tensors.iter().map(|tensor| Ok(slot(view_of(tensor)?)));
    multi::squares(&*machine(first)?, &slots.collect::<Result<Vec<_>>>()?).or_candle()
}
