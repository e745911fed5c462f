//! AdamW with decay groups, saved state and gradient clipping, in place on the parameters' own storage.

mod average;
mod clip;
mod rule;
mod slot;

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, Device, Layout, Result, Tensor, bail};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use clip::{Clip, GradNorms};
use rule::{AdamWOp, Rates};
use slot::Slot;

use crate::ops::no_kernel_while_composed;
use crate::params::{Param, Params};

/// Elements that one task updates; fixed, so that sums do not depend on the number of threads.
pub(crate) const BLOCK: usize = 1 << 14;

/// Coefficients of [`AdamW`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
        }
    }
}

/// AdamW (Loshchilov & Hutter 2019) as in PyTorch: decoupled weight decay, bias-corrected moments, moments in f32.
///
/// Weight decay applies to parameters whose `decay` is set. A parameter that a step skips, or that has no gradient,
/// keeps its value, its moments and its own step count, so that its bias correction starts when its training does.
#[derive(Clone, Debug)]
pub struct AdamW {
    config: AdamWConfig,
    slots: BTreeMap<String, Slot>,
}

/// A parameter, its moments, its gradient and the factor on that.
type Work<'a> = (&'a Param, &'a mut Slot, &'a Tensor, f64);

/// What one step needs besides parameters and gradients.
pub struct Update<'a> {
    /// Learning rate.
    pub lr: f64,
    /// Weight decay of the parameters that decay.
    pub weight_decay: f64,
    /// Factor on the gradient of a parameter, by name (see [`Clip::factor`]); `None` leaves the parameter as it is.
    pub factor: &'a dyn Fn(&str) -> Option<f64>,
}

impl AdamW {
    /// Zero moments for every parameter, where it is.
    ///
    /// # Errors
    /// A GPU whose memory does not suffice.
    pub fn new(params: &Params, config: AdamWConfig) -> Result<Self> {
        let slots = params
            .iter()
            .map(|(name, param)| Ok((name.to_string(), Slot::new(param)?)))
            .collect::<Result<_>>()?;
        Ok(Self { config, slots })
    }

    /// One update of every parameter that has a gradient, in one pass over each.
    ///
    /// # Errors
    /// A parameter that was not there when the optimiser was made, or whose gradient has another shape.
    pub fn step(&mut self, params: &Params, grads: &GradStore, update: &Update) -> Result<()> {
        let config = self.config;
        let rates = Rates::of(config, update);
        let named = self.work(params, grads, update)?;
        let work: Vec<_> = named.into_iter().map(|(_, work)| work).collect();
        #[cfg(feature = "cuda")]
        if params.device().is_cuda() {
            return slot::step_on_gpu(config, work, update.lr, update.weight_decay);
        }
        if work.iter().any(|(_, slot, ..)| slot.on_gpu.is_some()) {
            return slot::step_composed(rates, work);
        }
        work.into_par_iter()
            .try_for_each(|(param, slot, grad, factor)| {
                let op = AdamWOp::new(rates, param, slot, factor);
                param.var.inplace_op2(&grad.contiguous()?, &op)
            })
    }

    /// The parameters that an update changes, with their names.
    fn work<'a>(
        &'a mut self,
        params: &'a Params,
        grads: &'a GradStore,
        update: &Update,
    ) -> Result<Vec<(&'a str, Work<'a>)>> {
        let mut work = Vec::with_capacity(params.len());
        let mut slots: BTreeMap<&str, &mut Slot> = self
            .slots
            .iter_mut()
            .map(|(name, slot)| (name.as_str(), slot))
            .collect();
        for (name, param) in params.iter() {
            let Some(slot) = slots.remove(name) else {
                bail!("parameter `{name}` is unknown to the optimiser")
            };
            let factor = (update.factor)(name);
            if let (Some(factor), Some(grad)) = (factor, grads.get(&param.var)) {
                if grad.shape() != param.var.shape() {
                    bail!("the gradient of `{name}` has shape {:?}", grad.dims())
                }
                work.push((name, (param, slot, grad, factor)));
            }
        }
        Ok(work)
    }

    /// The moments and step counts as tensors: `first.NAME` and `second.NAME` in f32, `step.NAME` `[1]` in i64.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        let cpu = &Device::Cpu;
        for (name, slot) in &self.slots {
            let [first, second] = slot.moments()?;
            state.insert(format!("first.{name}"), first);
            state.insert(format!("second.{name}"), second);
            let tensor = Tensor::from_slice(&[slot.step], 1, cpu)?;
            state.insert(format!("step.{name}"), tensor);
        }
        Ok(state)
    }

    /// Takes over what [`AdamW::state`] wrote; the names and shapes must be those of the parameters.
    ///
    /// # Errors
    /// A missing or left-over entry, or one of another shape or type; the optimiser is then unchanged.
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        if state.len() != 3 * self.slots.len() {
            bail!(
                "optimiser state has {} entries, {} expected: it belongs to another model",
                state.len(),
                3 * self.slots.len()
            )
        }
        let entry = |kind: &str, name: &str, shape: &[usize]| {
            let key = format!("{kind}.{name}");
            match state.get(&key) {
                Some(tensor) if tensor.dims() == shape => Ok(tensor),
                Some(tensor) => bail!(
                    "optimiser state `{key}` has shape {:?}, {shape:?} expected",
                    tensor.dims()
                ),
                None => bail!("optimiser state lacks `{key}`"),
            }
        };
        let mut slots = BTreeMap::new();
        for (name, slot) in &self.slots {
            let [first, second] = [
                entry("first", name, &slot.shape)?,
                entry("second", name, &slot.shape)?,
            ];
            let mut loaded = slot.clone();
            loaded.step = entry("step", name, &[1])?.to_vec1::<i64>()?[0];
            match &slot.on_gpu {
                None => {
                    loaded.first = first.flatten_all()?.to_vec1()?;
                    loaded.second = second.flatten_all()?.to_vec1()?;
                }
                Some([there, _]) => {
                    let copied = |moment: &Tensor| moment.to_device(there.device())?.contiguous();
                    loaded.on_gpu = Some([copied(first)?, copied(second)?]);
                }
            }
            slots.insert(name.clone(), loaded);
        }
        self.slots = slots;
        Ok(())
    }
}

/// The f32 values of a contiguous tensor.
pub(crate) fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    no_kernel_while_composed()?;
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => bail!("a contiguous f32 tensor is needed"),
    }
}

/// As [`slice`], to write to.
pub(crate) fn slice_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&mut values[start..end]),
        _ => bail!("a contiguous f32 parameter is needed"),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;

    fn params() -> Params {
        let mut params = Params::default();
        let mut add = |name: &str, len: usize, decay: bool| {
            let values: Vec<f32> = (0..len).map(|i| (i as f32 * 0.7 + 0.3).sin()).collect();
            let var = Var::from_slice(&values, len, &Device::Cpu).unwrap();
            params.insert(name, var, decay).unwrap();
        };
        add("weight", 40_000, true);
        add("bias", 33, false);
        params
    }

    /// Gradient of `sum(w^2 * s / 2 + w)` is `w * s + 1`.
    fn grads(params: &Params, s: f64) -> GradStore {
        let mut loss = Tensor::new(0f32, &Device::Cpu).unwrap();
        for (_, param) in params.iter() {
            let square = param.var.sqr().unwrap().affine(s / 2.0, 0.0).unwrap();
            let term = (square + param.var.as_tensor()).unwrap();
            loss = (loss + term.sum_all().unwrap()).unwrap();
        }
        crate::backward(&loss).unwrap()
    }

    fn values(params: &Params, name: &str) -> Vec<f32> {
        params.get(name).unwrap().var.to_vec1().unwrap()
    }

    #[test]
    fn equals_a_plain_f64_adamw() {
        let params = params();
        let config = AdamWConfig {
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
        };
        let mut optimiser = AdamW::new(&params, config).unwrap();
        let names = ["bias", "weight"];
        let mut reference: Vec<Vec<[f64; 3]>> = names
            .iter()
            .map(|n| {
                values(&params, n)
                    .iter()
                    .map(|&w| [f64::from(w), 0.0, 0.0])
                    .collect()
            })
            .collect();
        for t in 1..=20 {
            let (lr, wd, s) = (1e-2 / f64::from(t), 0.1, 0.5 * f64::from(t));
            let update = Update {
                lr,
                weight_decay: wd,
                factor: &|_| Some(0.5),
            };
            optimiser
                .step(&params, &grads(&params, s), &update)
                .unwrap();
            for (name, slots) in names.iter().zip(&mut reference) {
                let wd = if *name == "weight" { wd } else { 0.0 };
                for [w, m, v] in slots {
                    let g = 0.5 * (*w * s + 1.0);
                    *m = 0.9 * *m + 0.1 * g;
                    *v = 0.95 * *v + 0.05 * g * g;
                    let (mh, vh) = (*m / (1.0 - 0.9f64.powi(t)), *v / (1.0 - 0.95f64.powi(t)));
                    *w = *w * (1.0 - lr * wd) - lr * mh / (vh.sqrt() + 1e-8);
                }
            }
        }
        for (name, slots) in names.iter().zip(&reference) {
            for (got, expected) in values(&params, name).iter().zip(slots) {
                assert!(
                    (f64::from(*got) - expected[0]).abs() < 2e-6,
                    "{name}: {got} {}",
                    expected[0]
                );
            }
        }
    }

    #[test]
    fn a_skipped_parameter_keeps_value_moments_and_step_count() {
        let params = params();
        let mut optimiser = AdamW::new(&params, AdamWConfig::default()).unwrap();
        let before = values(&params, "weight");
        let bias = values(&params, "bias");
        let factor = |name: &str| (name != "weight").then_some(1.0);
        let update = Update {
            lr: 0.1,
            weight_decay: 0.1,
            factor: &factor,
        };
        optimiser
            .step(&params, &grads(&params, 1.0), &update)
            .unwrap();
        assert_eq!(values(&params, "weight"), before);
        assert_ne!(values(&params, "bias"), bias);
        assert_eq!(optimiser.slots["weight"].step, 0);
        assert!(optimiser.slots["weight"].first.iter().all(|&m| m == 0.0));
        assert_eq!(optimiser.slots["bias"].step, 1);
    }

    #[test]
    fn state_continues_exactly() {
        let run = |params: &Params, optimiser: &mut AdamW, steps: std::ops::Range<u32>| {
            for t in steps {
                let update = Update {
                    lr: 1e-2,
                    weight_decay: 0.05,
                    factor: &|_| Some(1.0),
                };
                optimiser
                    .step(params, &grads(params, f64::from(t)), &update)
                    .unwrap();
            }
        };
        let straight = params();
        run(
            &straight,
            &mut AdamW::new(&straight, AdamWConfig::default()).unwrap(),
            0..7,
        );
        let stopped = params();
        let mut first = AdamW::new(&stopped, AdamWConfig::default()).unwrap();
        run(&stopped, &mut first, 0..3);
        let mut second = AdamW::new(&stopped, AdamWConfig::default()).unwrap();
        second.load_state(&first.state().unwrap()).unwrap();
        run(&stopped, &mut second, 3..7);
        assert_eq!(values(&straight, "weight"), values(&stopped, "weight"));
        assert_eq!(values(&straight, "bias"), values(&stopped, "bias"));
    }

    #[test]
    fn state_of_another_model_is_refused() {
        let params = params();
        let mut optimiser = AdamW::new(&params, AdamWConfig::default()).unwrap();
        let mut state = optimiser.state().unwrap();
        let moment = state.remove("first.bias").unwrap();
        assert!(optimiser.load_state(&state).is_err());
        state.insert("first.bias".into(), moment.narrow(0, 0, 5).unwrap());
        let error = optimiser.load_state(&state).unwrap_err().to_string();
        assert!(error.contains("first.bias"), "{error}");
    }
}
