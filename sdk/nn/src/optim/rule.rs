//! AdamW's rule for one parameter, block by block.

use std::cell::RefCell;

use candle_core::{CpuStorage, InplaceOp2, Layout, Result};
use rayon::prelude::*;

use super::slot::Slot;
use super::{AdamWConfig, BLOCK, Update, slice, slice_mut};
use crate::params::Param;

/// Scalars of one parameter's update.
#[derive(Clone, Copy)]
pub(super) struct Coefficients {
    pub(super) beta1: f32,
    pub(super) rest1: f32,
    pub(super) beta2: f32,
    pub(super) rest2: f32,
    pub(super) eps: f32,
    pub(super) grad_factor: f32,
    pub(super) keep: f32,
    pub(super) rate: f32,
    pub(super) second_scale: f32,
}

/// What all parameters of a step share.
#[derive(Clone, Copy)]
pub(super) struct Rates {
    config: AdamWConfig,
    lr: f64,
    weight_decay: f64,
}

impl Rates {
    pub(super) fn of(config: AdamWConfig, update: &Update) -> Self {
        Self {
            config,
            lr: update.lr,
            weight_decay: update.weight_decay,
        }
    }

    pub(super) fn coefficients(&self, param: &Param, step: i64, factor: f64) -> Coefficients {
        let decay = if param.decay { self.weight_decay } else { 0.0 };
        Coefficients::new(self.config, self.lr, decay, step, factor)
    }
}

impl Coefficients {
    pub(super) fn new(
        config: AdamWConfig,
        lr: f64,
        decay: f64,
        step: i64,
        grad_factor: f64,
    ) -> Self {
        let step = step as i32;
        Self {
            beta1: config.beta1 as f32,
            rest1: (1.0 - config.beta1) as f32,
            beta2: config.beta2 as f32,
            rest2: (1.0 - config.beta2) as f32,
            eps: config.eps as f32,
            grad_factor: grad_factor as f32,
            keep: (1.0 - lr * decay) as f32,
            rate: (lr / (1.0 - config.beta1.powi(step))) as f32,
            second_scale: (1.0 / (1.0 - config.beta2.powi(step)).sqrt()) as f32,
        }
    }

    /// Updates one block; slices of equal length.
    pub(super) fn apply(&self, w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
        let c = *self;
        for (((w, g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
            let g = g * c.grad_factor;
            *m = c.beta1 * *m + c.rest1 * g;
            *v = c.beta2 * *v + c.rest2 * (g * g);
            let denominator = v.sqrt() * c.second_scale + c.eps;
            *w = *w * c.keep - c.rate * (*m / denominator);
        }
    }
}

pub(super) struct AdamWOp<'a> {
    pub(super) coefficients: Coefficients,
    pub(super) moments: RefCell<(&'a mut [f32], &'a mut [f32])>,
}

impl<'a> AdamWOp<'a> {
    /// The next step of one parameter, which is counted.
    pub(super) fn new(rates: Rates, param: &Param, slot: &'a mut Slot, factor: f64) -> Self {
        slot.step += 1;
        Self {
            coefficients: rates.coefficients(param, slot.step, factor),
            moments: RefCell::new((&mut slot.first, &mut slot.second)),
        }
    }
}

impl InplaceOp2 for AdamWOp<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(
        &self,
        weights: &mut CpuStorage,
        weights_layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> Result<()> {
        let weights = slice_mut(weights, weights_layout)?;
        let grad = slice(grad, grad_layout)?;
        let (first, second) = &mut *self.moments.borrow_mut();
        let coefficients = self.coefficients;
        weights
            .par_chunks_mut(BLOCK)
            .zip(grad.par_chunks(BLOCK))
            .zip(first.par_chunks_mut(BLOCK))
            .zip(second.par_chunks_mut(BLOCK))
            .for_each(|(((w, g), m), v)| coefficients.apply(w, g, m, v));
        Ok(())
    }
}
