//! Means and comparisons over the ranks that the training loop needs.

use candle_core::Tensor;
use candle_core::backprop::GradStore;
use ssl_edge_nn::Params;

use super::Collective;
use crate::error::{Result, TrainError};

/// Values that one exchange of gradients carries at least, where so many are left: few enough that the copy beside the
/// gradients stays small, many enough that the time of an exchange is that of its data.
const BUCKET: usize = 1 << 22;

/// Replaces the gradients of all parameters for which `keep` holds by their means over the ranks.
///
/// # Errors
/// Those of the ranks; gradients that are not f32.
pub(crate) fn average_gradients(
    ranks: &dyn Collective,
    params: &Params,
    grads: &mut GradStore,
    keep: &dyn Fn(&str) -> bool,
) -> Result<()> {
    if ranks.world() == 1 {
        return Ok(());
    }
    let mut bucket = Bucket::default();
    for (name, param) in params.iter() {
        let param = param.var.as_tensor();
        if let (true, Some(grad)) = (keep(name), grads.get(param)) {
            bucket.add(param, grad)?;
        }
        if bucket.values.len() >= BUCKET {
            std::mem::take(&mut bucket).average(ranks, grads)?;
        }
    }
    bucket.average(ranks, grads)
}

/// Gradients of several parameters behind each other.
#[derive(Default)]
struct Bucket {
    params: Vec<Tensor>,
    values: Vec<f32>,
}

impl Bucket {
    fn add(&mut self, param: &Tensor, grad: &Tensor) -> Result<()> {
        self.values
            .extend(grad.flatten_all()?.to_vec1::<f32>()?.iter());
        self.params.push(param.clone());
        Ok(())
    }

    fn average(mut self, ranks: &dyn Collective, grads: &mut GradStore) -> Result<()> {
        if self.params.is_empty() {
            return Ok(());
        }
        ranks.all_reduce_sum(&mut self.values)?;
        let scale = 1.0 / ranks.world() as f32;
        for value in &mut self.values {
            *value *= scale;
        }
        let mut rest = self.values.as_slice();
        for param in &self.params {
            let (values, after) = rest.split_at(param.elem_count());
            let grad = Tensor::from_slice(values, param.shape(), param.device())?;
            grads.insert(param, grad);
            rest = after;
        }
        Ok(())
    }
}

/// The values of all ranks, in order.
pub(crate) fn gather_f64(ranks: &dyn Collective, value: f64) -> Result<Vec<f64>> {
    let bits = ranks.all_gather(value.to_bits())?;
    Ok(bits.into_iter().map(f64::from_bits).collect())
}

/// Compares a fingerprint of `what` with those of the other ranks.
///
/// # Errors
/// [`TrainError::RanksDiffer`], on all ranks, with those whose fingerprint is not that of rank 0.
pub(crate) fn same_on_all(
    ranks: &dyn Collective,
    what: &'static str,
    fingerprint: u64,
    remedy: &'static str,
) -> Result<()> {
    let all = ranks.all_gather(fingerprint)?;
    let others: Vec<usize> = (0..all.len()).filter(|&r| all[r] != all[0]).collect();
    if others.is_empty() {
        return Ok(());
    }
    Err(TrainError::RanksDiffer {
        ranks: others,
        what,
        remedy,
    })
}
