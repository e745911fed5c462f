//! The backward pass.
//!
//! candle gives an op three arguments at most and adds every gradient to a tensor of zeros. Fused ops with more parameters
//! instead sum the parameters' gradients in place, here, and [`backward`] puts them among candle's.

use std::cell::RefCell;
use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, TensorId, bail};

/// The gradients of one parameter, summed.
enum Sum {
    Host(Vec<f32>),
    #[cfg(feature = "cuda")]
    Device(Tensor),
}

#[derive(Default)]
struct Sums(HashMap<TensorId, (Tensor, Sum)>);

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
        let sum = match sum {
            Sum::Host(sum) => Tensor::from_vec(sum, param.shape(), param.device())?,
            #[cfg(feature = "cuda")]
            Sum::Device(sum) => sum,
        };
        let grad = match grads.remove(&param) {
            Some(other) => (other + sum)?,
            None => sum,
        };
        grads.insert(&param, grad);
    }
    Ok(grads)
}

/// Takes the sum of a parameter out: a thread pool may start another backward pass on this thread meanwhile.
fn take(param: &Tensor) -> Result<Option<Sum>> {
    let entry = UNDER_WAY.with_borrow_mut(|stack| Some(stack.last_mut()?.0.remove(&param.id())));
    match entry {
        Some(entry) => Ok(entry.map(|(_, sum)| sum)),
        None => bail!("use ssl_edge_nn::backward(&loss) in place of loss.backward()"),
    }
}

fn put_back(param: &Tensor, sum: Sum) {
    UNDER_WAY.with_borrow_mut(|stack| {
        if let Some(sums) = stack.last_mut() {
            sums.0.insert(param.id(), (param.clone(), sum));
        }
    });
}

/// Lets `add` change the sum of a parameter's gradients; the flag says that the values are still to be set, not added to.
pub(crate) fn accumulate(param: &Tensor, add: impl FnOnce(&mut [f32], bool)) -> Result<()> {
    let (mut sum, first) = match take(param)? {
        None => (vec![0.0; param.elem_count()], true),
        Some(Sum::Host(sum)) => (sum, false),
        #[cfg(feature = "cuda")]
        Some(Sum::Device(_)) => bail!("the gradient of a parameter on a GPU is summed there"),
    };
    add(&mut sum, first);
    put_back(param, Sum::Host(sum));
    Ok(())
}

/// The same for two parameters on a GPU; the flag of `write` says that values are to be added to.
#[cfg(feature = "cuda")]
pub(crate) fn accumulate_pair(
    params: [&Tensor; 2],
    write: &mut dyn FnMut([crate::gpu::View; 2], bool) -> Result<()>,
) -> Result<()> {
    use crate::gpu::ops::{empty_like, view_of};

    let found = [take(params[0])?, take(params[1])?];
    let add = found.iter().any(Option::is_some);
    let mut sums = Vec::with_capacity(2);
    for (sum, param) in found.into_iter().zip(params) {
        sums.push(match sum {
            Some(Sum::Device(sum)) => sum,
            Some(Sum::Host(_)) => bail!("the gradient of a parameter on the CPU is summed there"),
            None if add => param.zeros_like()?.detach(),
            None => empty_like(param)?,
        });
    }
    write([view_of(&sums[0])?, view_of(&sums[1])?], add)?;
    for (sum, param) in sums.into_iter().zip(params) {
        put_back(param, Sum::Device(sum));
    }
    Ok(())
}
