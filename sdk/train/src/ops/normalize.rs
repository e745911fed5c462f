//! L2 normalisation of rows, with its backward.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;
use ssl_edge_nn::ops::has_losses;

use super::slice;

/// Smallest norm divided by, as PyTorch's `normalize`.
const EPS: f64 = 1e-12;

/// Each row of `x [R, D]` over its Euclidean norm.
pub(crate) fn l2_normalize(x: &Tensor) -> Result<Tensor> {
    if has_losses(x.device()) {
        return ssl_edge_nn::ops::unit_rows(x);
    }
    x.contiguous()?.apply_op1(Normalize)
}

struct Normalize;

/// With `y = x / |x|`: `dx = (g - y (g · y)) / |x|`.
struct NormalizeGrad;

fn norm(row: &[f32]) -> f64 {
    let square: f64 = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
    square.sqrt().max(EPS)
}

impl CustomOp1 for Normalize {
    fn name(&self) -> &'static str {
        "l2_normalize"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(x, layout)?;
        let (_, width) = layout.shape().dims2()?;
        let mut y = vec![0f32; x.len()];
        y.par_chunks_exact_mut(width)
            .zip(x.par_chunks_exact(width))
            .for_each(|(y, x)| {
                let scale = (1.0 / norm(x)) as f32;
                for (y, x) in y.iter_mut().zip(x) {
                    *y = x * scale;
                }
            });
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        Ok(Some(x.apply_op2_no_bwd(&grad, &NormalizeGrad)?))
    }
}

impl CustomOp2 for NormalizeGrad {
    fn name(&self) -> &'static str {
        "l2_normalize_grad"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = slice(x, layout)?;
        let grad = slice(grad, grad_layout)?;
        let (_, width) = layout.shape().dims2()?;
        let mut dx = vec![0f32; x.len()];
        dx.par_chunks_exact_mut(width)
            .zip(x.par_chunks_exact(width))
            .zip(grad.par_chunks_exact(width))
            .for_each(|((dx, x), g)| {
                let norm = norm(x);
                let dot: f64 = x
                    .iter()
                    .zip(g)
                    .map(|(&x, &g)| f64::from(x) * f64::from(g))
                    .sum();
                let along = (dot / (norm * norm * norm)) as f32;
                let scale = (1.0 / norm) as f32;
                for ((dx, x), g) in dx.iter_mut().zip(x).zip(g) {
                    *dx = g * scale - x * along;
                }
            });
        Ok((CpuStorage::F32(dx), layout.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{D, DType, Device, Var};

    use super::*;

    #[test]
    fn value_and_gradient_equal_f64_autograd() {
        let values: Vec<f32> = (0..60)
            .map(|i| (i as f32 * 1.7).sin() * (1.0 + i as f32))
            .collect();
        let x = Var::from_slice(&values, (5, 12), &Device::Cpu).unwrap();
        let weights = Tensor::arange(0f32, 60f32, &Device::Cpu)
            .unwrap()
            .reshape((5, 12))
            .unwrap();
        let y = l2_normalize(&x).unwrap();
        let grads = (&y * &weights)
            .unwrap()
            .sum_all()
            .unwrap()
            .backward()
            .unwrap();

        let x64 = Var::from_tensor(&x.to_dtype(DType::F64).unwrap()).unwrap();
        let norm = x64
            .sqr()
            .unwrap()
            .sum_keepdim(D::Minus1)
            .unwrap()
            .sqrt()
            .unwrap();
        let y64 = x64.broadcast_div(&norm).unwrap();
        let weights = weights.to_dtype(DType::F64).unwrap();
        let grads64 = (&y64 * &weights)
            .unwrap()
            .sum_all()
            .unwrap()
            .backward()
            .unwrap();

        let pairs = [
            (&y, &y64),
            (grads.get(&x).unwrap(), grads64.get(&x64).unwrap()),
        ];
        for (got, expected) in pairs {
            let got: Vec<f32> = got.flatten_all().unwrap().to_vec1().unwrap();
            let expected: Vec<f64> = expected.flatten_all().unwrap().to_vec1().unwrap();
            let scale = expected.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
            for (got, expected) in got.iter().zip(expected) {
                assert!(
                    (f64::from(*got) - expected).abs() < 1e-6 * scale,
                    "{got} {expected}"
                );
            }
        }
    }
}
