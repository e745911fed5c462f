//! Gaussian error linear unit, <https://arxiv.org/abs/1606.08415>: `x Φ(x)`, and its tanh form.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::simd::{self, vectorised};
use super::{OneByOne, has_kernel, slice, with_slice};

const SQRT_2_OVER_PI: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;
const DENSITY: f32 = 0.398_942_3; // 1 / √(2π)
const CHUNK: usize = 16 * 1024;

/// Which of the two common definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gelu {
    /// `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))`; encoders trained here.
    Tanh,
    /// `0.5 x (1 + erf(x / √2))`; public checkpoints.
    Erf,
}

/// GELU of every element.
pub fn gelu(x: &Tensor, form: Gelu) -> Result<Tensor> {
    if has_kernel(x) {
        x.contiguous()?.apply_op1(form)
    } else {
        gelu_reference(x, form)
    }
}

/// The same in plain tensors. candle's own tanh form is used where no gradient is wanted: its backward takes powers of negative numbers.
pub fn gelu_reference(x: &Tensor, form: Gelu) -> Result<Tensor> {
    match form {
        Gelu::Tanh if x.track_op() => {
            let cube = (x.sqr()? * x)?;
            let inner = ((x + (cube * f64::from(CUBIC))?)? * f64::from(SQRT_2_OVER_PI))?;
            x * ((inner.tanh()? + 1.0)? * 0.5)?
        }
        Gelu::Tanh => x.gelu(),
        Gelu::Erf => x.gelu_erf(),
    }
}

// 0.5 (1 + tanh u) = 1 / (1 + e^(-2u)).
#[inline(always)]
fn sigmoid_of_twice<const FMA: bool>(u: f32) -> f32 {
    1.0 / (1.0 + simd::exp::<FMA>(-2.0 * u))
}

vectorised! {
    fn tanh_form(x: &[f32], y: &mut [f32]) {
        for (x, y) in x.iter().zip(y) {
            *y = x * sigmoid_of_twice::<FMA>(SQRT_2_OVER_PI * (x + CUBIC * x * x * x));
        }
    }
}

vectorised! {
    fn tanh_form_grad(x: &[f32], g: &[f32], dx: &mut [f32]) {
        for ((x, g), dx) in x.iter().zip(g).zip(dx) {
            let s = sigmoid_of_twice::<FMA>(SQRT_2_OVER_PI * (x + CUBIC * x * x * x));
            let du = SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * x * x);
            *dx = g * (s + x * 2.0 * s * (1.0 - s) * du);
        }
    }
}

vectorised! {
    /// The value over `x`, and `g` times the derivative over `g`.
    fn tanh_form_both(x: &mut [f32], g: &mut [f32]) {
        for (x, g) in x.iter_mut().zip(g) {
            let s = sigmoid_of_twice::<FMA>(SQRT_2_OVER_PI * (*x + CUBIC * *x * *x * *x));
            let du = SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * *x * *x);
            *g *= s + *x * 2.0 * s * (1.0 - s) * du;
            *x *= s;
        }
    }
}

vectorised! {
    fn tanh_form_in_place(x: &mut [f32]) {
        for x in x {
            *x *= sigmoid_of_twice::<FMA>(SQRT_2_OVER_PI * (*x + CUBIC * *x * *x * *x));
        }
    }
}

vectorised! {
    fn erf_form_in_place(x: &mut [f32]) {
        for x in x {
            *x *= 0.5 * (1.0 + simd::erf::<FMA>(*x * std::f32::consts::FRAC_1_SQRT_2).0);
        }
    }
}

vectorised! {
    fn erf_form(x: &[f32], y: &mut [f32]) {
        for (x, y) in x.iter().zip(y) {
            *y = 0.5 * x * (1.0 + simd::erf::<FMA>(x * std::f32::consts::FRAC_1_SQRT_2).0);
        }
    }
}

vectorised! {
    fn erf_form_both(x: &mut [f32], g: &mut [f32]) {
        for (x, g) in x.iter_mut().zip(g) {
            let (erf, gauss) = simd::erf::<FMA>(*x * std::f32::consts::FRAC_1_SQRT_2);
            *g *= 0.5 * (1.0 + erf) + *x * DENSITY * gauss;
            *x *= 0.5 * (1.0 + erf);
        }
    }
}

vectorised! {
    fn erf_form_grad(x: &[f32], g: &[f32], dx: &mut [f32]) {
        for ((x, g), dx) in x.iter().zip(g).zip(dx) {
            let (erf, gauss) = simd::erf::<FMA>(x * std::f32::consts::FRAC_1_SQRT_2);
            *dx = g * (0.5 * (1.0 + erf) + x * DENSITY * gauss);
        }
    }
}

impl Gelu {
    /// GELU of every element, on the calling thread.
    pub(crate) fn in_place(self, x: &mut [f32]) {
        match self {
            Gelu::Tanh => tanh_form_in_place(x),
            Gelu::Erf => erf_form_in_place(x),
        }
    }

    /// GELU of every element of `x`.
    pub(super) fn forward_into(self, y: &mut [f32], x: &[f32]) {
        y.par_chunks_mut(CHUNK)
            .zip(x.par_chunks(CHUNK))
            .one_by_one()
            .for_each(|(y, x)| match self {
                Gelu::Tanh => tanh_form(x, y),
                Gelu::Erf => erf_form(x, y),
            });
    }

    /// Replaces `x` by its GELU and `g` by the gradient of `x`, in one pass.
    pub(super) fn value_and_grad(self, x: &mut [f32], g: &mut [f32]) {
        x.par_chunks_mut(CHUNK)
            .zip(g.par_chunks_mut(CHUNK))
            .one_by_one()
            .for_each(|(x, g)| match self {
                Gelu::Tanh => tanh_form_both(x, g),
                Gelu::Erf => erf_form_both(x, g),
            });
    }
}

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(storage, layout)?;
        let mut y = vec![0f32; x.len()];
        self.forward_into(&mut y, x);
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        storage: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        crate::gpu::ops::gelu((storage, layout), *self)
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return Ok(Some(crate::gpu::ops::gelu_grad(x, grad, *self)?));
        }
        let dx = with_slice(x, |x| {
            with_slice(grad, |g| {
                let mut dx = vec![0f32; x.len()];
                dx.par_chunks_mut(CHUNK)
                    .zip(x.par_chunks(CHUNK).zip(g.par_chunks(CHUNK)))
                    .for_each(|(dx, (x, g))| match self {
                        Gelu::Tanh => tanh_form_grad(x, g, dx),
                        Gelu::Erf => erf_form_grad(x, g, dx),
                    });
                Ok(dx)
            })
        })?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{kernel_equals_reference, random};
    use super::*;

    #[test]
    fn equals_reference() -> Result<()> {
        let x = (random(&[3, 1001], 5)? * 3.0)?;
        for (form, tolerance) in [(Gelu::Tanh, 1e-6), (Gelu::Erf, 1e-6)] {
            kernel_equals_reference(
                &|a| gelu(&a[0], form),
                &|a| gelu_reference(&a[0], form),
                std::slice::from_ref(&x),
                tolerance,
            )?;
        }
        Ok(())
    }

    #[test]
    fn far_values_are_finite_and_linear() -> Result<()> {
        let x = Tensor::new(&[-1e4f32, -40.0, 0.0, 40.0, 1e4], &candle_core::Device::Cpu)?;
        for form in [Gelu::Tanh, Gelu::Erf] {
            let y = gelu(&x, form)?.to_vec1::<f32>()?;
            assert!(
                y[0].abs() < 1e-6 && y[1].abs() < 1e-6 && y[2] == 0.0,
                "{y:?}"
            );
            assert_eq!(&y[3..], &[40.0, 1e4]);
        }
        Ok(())
    }
}
