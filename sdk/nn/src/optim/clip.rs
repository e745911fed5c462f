//! Gradient clipping: globally or for each tensor.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{Result, Storage, Tensor, bail};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{BLOCK, slice};
use crate::ops::is_composed;
use crate::params::Params;

/// How gradients are kept small. `{ kind = "global", max = 1.0 }` in a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "max", rename_all = "snake_case")]
pub enum Clip {
    /// As they are.
    None,
    /// All together, to a total norm of at most this.
    Global(f64),
    /// Each tensor for itself, to a norm of at most this (DINO).
    PerTensor(f64),
}

impl Clip {
    /// Factor on the gradient of parameter `name`: `min(1, max / (norm + 1e-6))`, as PyTorch's `clip_grad_norm_`.
    pub fn factor(&self, norms: &GradNorms, name: &str) -> f64 {
        let limited = |max: f64, norm: f64| (max / (norm + 1e-6)).min(1.0);
        match *self {
            Clip::None => 1.0,
            Clip::Global(max) => limited(max, norms.global()),
            Clip::PerTensor(max) => limited(max, norms.get(name).unwrap_or(0.0)),
        }
    }
}

/// Euclidean norms of gradients by parameter name.
#[derive(Clone, Debug, Default)]
pub struct GradNorms {
    by_name: BTreeMap<String, f64>,
    global: f64,
}

impl GradNorms {
    /// Norms of the gradients of all parameters for which `keep` holds; one without a gradient counts as absent.
    pub fn of(params: &Params, grads: &GradStore, keep: &dyn Fn(&str) -> bool) -> Result<Self> {
        let mut found = Vec::new();
        for (name, param) in params.iter() {
            if let (true, Some(grad)) = (keep(name), grads.get(&param.var)) {
                found.push((name, grad.contiguous()?));
            }
        }
        let mut by_name = BTreeMap::new();
        let mut sum = 0.0;
        for ((name, _), square) in found.iter().zip(square_sums(&found)?) {
            by_name.insert(name.to_string(), square.sqrt());
            sum += square;
        }
        Ok(Self {
            by_name,
            global: sum.sqrt(),
        })
    }

    /// Norm over all parameters together.
    pub fn global(&self) -> f64 {
        self.global
    }

    /// Norm of one parameter's gradient; `None` where it has none.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.by_name.get(name).copied()
    }
}

/// The sum of squares of each tensor.
fn square_sums(tensors: &[(&str, Tensor)]) -> Result<Vec<f64>> {
    #[cfg(feature = "cuda")]
    if let Some((_, first)) = tensors.first()
        && first.device().is_cuda()
    {
        let tensors: Vec<&Tensor> = tensors.iter().map(|(_, tensor)| tensor).collect();
        return crate::gpu::update::squares(&tensors);
    }
    match tensors.first() {
        Some((_, first)) if is_composed(first.device()) => square_sums_composed(tensors),
        _ => tensors
            .iter()
            .map(|(_, tensor)| square_sum(tensor))
            .collect(),
    }
}

/// All sums in one transfer.
fn square_sums_composed(tensors: &[(&str, Tensor)]) -> Result<Vec<f64>> {
    let sums = tensors
        .iter()
        .map(|(_, tensor)| tensor.detach().sqr()?.sum_all())
        .collect::<Result<Vec<_>>>()?;
    let sums = Tensor::stack(&sums, 0)?.to_vec1::<f32>()?;
    Ok(sums.into_iter().map(f64::from).collect())
}

fn square_sum(tensor: &Tensor) -> Result<f64> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        bail!("gradient norms are computed on the CPU or on a GPU")
    };
    let values = slice(storage, layout)?;
    let partial: Vec<f64> = values
        .par_chunks(BLOCK)
        .map(|chunk| chunk.iter().map(|&x| f64::from(x) * f64::from(x)).sum())
        .collect();
    Ok(partial.iter().sum())
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn clipping_limits_norms() {
        let mut params = Params::new();
        for (name, len) in [("bias", 33), ("weight", 40_000)] {
            let values: Vec<f32> = (0..len).map(|i| (i as f32 * 0.7 + 0.3).sin()).collect();
            let var = Var::from_slice(&values, len, &Device::Cpu).unwrap();
            params.insert(name, var, true).unwrap();
        }
        // The gradient of half the sum of squares is the values themselves.
        let half_square = |name: &str| {
            let var = &params.get(name).unwrap().var;
            (var.sqr().unwrap().sum_all().unwrap() / 2.0).unwrap()
        };
        let loss = (half_square("bias") + half_square("weight")).unwrap();
        let grads = crate::backward(&loss).unwrap();
        let norm = |name: &str| {
            let values: Vec<f32> = params.get(name).unwrap().var.to_vec1().unwrap();
            values
                .iter()
                .map(|v| f64::from(*v).powi(2))
                .sum::<f64>()
                .sqrt()
        };
        let (weight, bias) = (norm("weight"), norm("bias"));
        let norms = GradNorms::of(&params, &grads, &|_| true).unwrap();
        assert!((norms.get("weight").unwrap() / weight - 1.0).abs() < 1e-6);
        assert!((norms.global() / weight.hypot(bias) - 1.0).abs() < 1e-6);
        assert_eq!(Clip::None.factor(&norms, "weight"), 1.0);
        assert!((Clip::Global(2.0).factor(&norms, "bias") * norms.global() - 2.0).abs() < 1e-6);
        assert!((Clip::PerTensor(3.0).factor(&norms, "weight") * weight - 3.0).abs() < 1e-5);
        assert_eq!(Clip::PerTensor(1e9).factor(&norms, "bias"), 1.0);
        let bias_only = GradNorms::of(&params, &grads, &|n| n == "bias").unwrap();
        assert!((bias_only.global() / bias - 1.0).abs() < 1e-6);
        assert_eq!(bias_only.get("weight"), None);
    }
}
