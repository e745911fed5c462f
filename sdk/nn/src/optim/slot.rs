//! The moments of one parameter, and the step of all of them on a GPU or composed of tensor operations.

use candle_core::{Device, Result, Tensor, bail};

use super::Work;
use super::rule::Rates;
#[cfg(feature = "cuda")]
use super::{AdamWConfig, rule::Coefficients};
use crate::ops::is_composed;
use crate::params::Param;

#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) step: i64,
    /// Empty where the moments are tensors.
    pub(super) first: Vec<f32>,
    pub(super) second: Vec<f32>,
    /// Both moments where the parameter is on a GPU, or its operations are composed.
    pub(super) on_gpu: Option<[Tensor; 2]>,
    pub(super) shape: Vec<usize>,
}

impl Slot {
    /// Zero moments of a parameter.
    pub(super) fn new(param: &Param) -> Result<Self> {
        let len = param.var.elem_count();
        let on_gpu = match param.var.device() {
            device @ Device::Cpu if !is_composed(device) => None,
            _ => Some([
                param.var.zeros_like()?.detach(),
                param.var.zeros_like()?.detach(),
            ]),
        };
        let host = if on_gpu.is_some() { 0 } else { len };
        Ok(Self {
            step: 0,
            first: vec![0.0; host],
            second: vec![0.0; host],
            on_gpu,
            shape: param.var.dims().to_vec(),
        })
    }

    /// The moments on the CPU.
    pub(super) fn moments(&self) -> Result<[Tensor; 2]> {
        let cpu = &Device::Cpu;
        match &self.on_gpu {
            Some([first, second]) => Ok([first.to_device(cpu)?, second.to_device(cpu)?]),
            None => {
                let shape = self.shape.as_slice();
                Ok([
                    Tensor::from_slice(&self.first, shape, cpu)?,
                    Tensor::from_slice(&self.second, shape, cpu)?,
                ])
            }
        }
    }
}

/// The update of every parameter, composed of tensor operations.
pub(super) fn step_composed(rates: Rates, work: Vec<Work<'_>>) -> Result<()> {
    for (param, slot, grad, factor) in work {
        let c = rates.coefficients(param, slot.step + 1, factor);
        let Some([first, second]) = &slot.on_gpu else {
            bail!("the moments of a parameter are not where it is")
        };
        // Gradients of variables carry the graph of the whole step with them.
        let grad = (grad.detach() * f64::from(c.grad_factor))?;
        let scaled = |x: &Tensor, factor: f32| x * f64::from(factor);
        let first = (scaled(first, c.beta1)? + scaled(&grad, c.rest1)?)?;
        let second = (scaled(second, c.beta2)? + scaled(&grad.sqr()?, c.rest2)?)?;
        let root = (second.sqrt()? * f64::from(c.second_scale))?;
        let change = (&first / (root + f64::from(c.eps))?)?;
        let kept = scaled(&param.var.as_detached_tensor(), c.keep)?;
        param.var.set(&(kept - scaled(&change, c.rate)?)?)?;
        slot.on_gpu = Some([first, second]);
        slot.step += 1;
    }
    Ok(())
}

/// The update of every parameter in one launch.
#[cfg(feature = "cuda")]
pub(super) fn step_on_gpu(
    config: AdamWConfig,
    work: Vec<(&Param, &mut Slot, &Tensor, f64)>,
    lr: f64,
    weight_decay: f64,
) -> Result<()> {
    let mut updates = Vec::with_capacity(work.len());
    let mut slots = Vec::with_capacity(work.len());
    for (param, slot, grad, factor) in work {
        let decay = if param.decay { weight_decay } else { 0.0 };
        let c = Coefficients::new(config, lr, decay, slot.step + 1, factor);
        let Some(moments) = slot.on_gpu.clone() else {
            bail!("the moments of a parameter are not where it is")
        };
        updates.push(crate::gpu::update::AdamWUpdate {
            weight: param.var.as_tensor(),
            grad: grad.contiguous()?,
            moments,
            factors: [c.keep, c.rate, c.second_scale, c.grad_factor],
        });
        slots.push(slot);
    }
    let beta = [
        config.beta1,
        1.0 - config.beta1,
        config.beta2,
        1.0 - config.beta2,
        config.eps,
    ];
    crate::gpu::update::adamw(&updates, beta.map(|v| v as f32))?;
    for slot in slots {
        slot.step += 1;
    }
    Ok(())
}
