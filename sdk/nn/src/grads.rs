//! The backward pass.
//!
//! candle gives an op three arguments at most and adds every gradient to a tensor of zeros. Fused ops with more parameters
//! instead sum the parameters' gradients in place, here, and [`backward`] puts them among candle's.

use std::cell::RefCell;
use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, TensorId, bail};

#[derive(Default)]
struct Sums(HashMap<TensorId, (Tensor, Vec<f32>)>);

thread_local! {
    /// One entry for each [`backward`] under way on this thread.
    static UNDER_WAY: RefCell<Vec<Sums>> = const { RefCell::new(Vec::new()) };
}

/// Gradients of a scalar with respect to every variable it depends on. In place of [`Tensor::backward`], which does not know
/// the parameters of fused ops.
///
/// # Errors
/// Those of candle's ops.
pub fn backward(loss: &Tensor) -> Result<GradStore> {
    UNDER_WAY.with_borrow_mut(|stack| stack.push(Sums::default()));
    let grads = loss.backward();
    let sums = UNDER_WAY.with_borrow_mut(Vec::pop).unwrap_or_default();
    let mut grads = grads?;
    for (param, sum) in sums.0.into_values() {
        let sum = Tensor::from_vec(sum, param.shape(), param.device())?;
        let grad = match grads.remove(&param) {
            Some(other) => (other + sum)?,
            None => sum,
        };
        grads.insert(&param, grad);
    }
    Ok(grads)
}

/// Lets `add` change the sum of a parameter's gradients; the flag says that the values are still to be set, not added to.
pub(crate) fn accumulate(param: &Tensor, add: impl FnOnce(&mut [f32], bool)) -> Result<()> {
    // Taken out while `add` runs: a thread pool may start another backward pass on this thread meanwhile.
    let entry = UNDER_WAY.with_borrow_mut(|stack| Some(stack.last_mut()?.0.remove(&param.id())));
    let Some(entry) = entry else {
        bail!("use ssl_edge_nn::backward(&loss) in place of loss.backward()")
    };
    let first = entry.is_none();
    let (param, mut sum) = entry.unwrap_or_else(|| (param.clone(), vec![0.0; param.elem_count()]));
    add(&mut sum, first);
    UNDER_WAY.with_borrow_mut(|stack| {
        if let Some(sums) = stack.last_mut() {
            sums.0.insert(param.id(), (param, sum));
        }
    });
    Ok(())
}
