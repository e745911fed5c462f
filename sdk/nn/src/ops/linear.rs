//! `y = x Wᵀ + b`, with `W [N, K]` as in PyTorch.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::product::{Accum, product_parallel, rows, rows_mut};
use super::simd::vectorised;
use super::{OneByOne, ROWS_PER_SUM, has_kernel, slice, with_slice};
use crate::compute::{Precision, cast_precision};

struct Linear {
    /// Whether `x` may need a gradient; input images never do.
    input_grad: bool,
    /// Of the products on a CPU, in the backward too.
    precision: Precision,
}

/// `x Wᵀ + b` for `x [.., K]`, `weight [N, K]`, `bias [N]`; gives `[.., N]`.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    apply(x, weight, bias, true)
}

/// [`linear`] for an `x` that is data: its gradient is never computed.
pub fn linear_of_input(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    apply(x, weight, bias, false)
}

/// The same in plain tensors, of the weight's type: with a weight in f16 the product reads and gives f16.
pub fn linear_reference(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (rows, n, k, out) = sizes(x.dims(), weight.dims())?;
    let x = x.to_dtype(weight.dtype())?.reshape((rows, k))?;
    let y = x.matmul(&weight.t()?)?;
    debug_assert_eq!(y.dims(), [rows, n]);
    let y = match bias {
        Some(b) => y.broadcast_add(b)?,
        None => y,
    };
    y.reshape(out)
}

fn apply(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, input_grad: bool) -> Result<Tensor> {
    if !has_kernel(x) || weight.dtype() != DType::F32 {
        return linear_reference(x, weight, bias);
    }
    let x = x.contiguous()?;
    let weight = weight.contiguous()?;
    let op = Linear {
        input_grad,
        precision: cast_precision(),
    };
    match bias {
        Some(b) => x.apply_op3(&weight, &b.contiguous()?, op),
        None => x.apply_op2(&weight, op),
    }
}

/// `([M, K], [N, K])` to `(M, N, K, output shape)`.
fn sizes(x: &[usize], w: &[usize]) -> Result<(usize, usize, usize, Shape)> {
    let (Some((&k, lead)), &[n, wk]) = (x.split_last(), w) else {
        bail!("linear: x {x:?} and weight {w:?} must have ranks >= 1 and 2")
    };
    if wk != k {
        bail!("linear: x {x:?} does not fit weight {w:?}")
    }
    let mut out = lead.to_vec();
    out.push(n);
    Ok((lead.iter().product(), n, k, Shape::from(out)))
}

impl Linear {
    fn forward(
        &self,
        (x, x_dims): (&[f32], &[usize]),
        (w, w_dims): (&[f32], &[usize]),
        bias: Option<&[f32]>,
    ) -> Result<(CpuStorage, Shape)> {
        let (m, n, k, shape) = sizes(x_dims, w_dims)?;
        let mut y = vec![0f32; m * n];
        let accum = bias.map_or(Accum::Replace, Accum::Bias);
        product_parallel(
            rows_mut(&mut y, m, n, n),
            accum,
            rows(x, m, k, k),
            rows(w, n, k, k).transpose(),
            self.precision,
        );
        Ok((CpuStorage::F32(y), shape))
    }

    /// Gradients of `x` and `weight`.
    fn backward(
        &self,
        x: &Tensor,
        weight: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Tensor)> {
        let (m, n, k, _) = sizes(x.dims(), weight.dims())?;
        with_slice(grad, |g| {
            let mut dw = vec![0f32; n * k];
            with_slice(x, |x| {
                product_parallel(
                    rows_mut(&mut dw, n, k, k),
                    Accum::Replace,
                    rows(g, m, n, n).transpose(),
                    rows(x, m, k, k),
                    self.precision,
                );
                Ok(())
            })?;
            let dw = Tensor::from_vec(dw, (n, k), x.device())?;
            if !self.input_grad {
                return Ok((None, dw));
            }
            let mut dx = vec![0f32; m * k];
            with_slice(weight, |w| {
                product_parallel(
                    rows_mut(&mut dx, m, k, k),
                    Accum::Replace,
                    rows(g, m, n, n),
                    rows(w, n, k, k),
                    self.precision,
                );
                Ok(())
            })?;
            Ok((Some(Tensor::from_vec(dx, x.shape(), x.device())?), dw))
        })
    }
}

fn check_bias(weight: &Layout, bias: &Layout) -> Result<()> {
    let len = bias.shape().elem_count();
    if weight.dims().first() != Some(&len) {
        bail!(
            "linear: bias has {len} values, weight is {:?}",
            weight.dims()
        )
    }
    Ok(())
}

/// Every row of `y` becomes that of `x` plus `bias`.
pub(super) fn fill_residual(y: &mut [f32], x: &[f32], bias: &[f32]) {
    let n = bias.len();
    y.par_chunks_mut(n * ROWS_PER_SUM)
        .zip(x.par_chunks(n * ROWS_PER_SUM))
        .one_by_one()
        .for_each(|(y, x)| {
            for (y, x) in y.chunks_exact_mut(n).zip(x.chunks_exact(n)) {
                for ((y, x), b) in y.iter_mut().zip(x).zip(bias) {
                    *y = x + b;
                }
            }
        });
}

/// Sum over rows of `g [M, N]`, gives `[N]`.
pub(super) fn column_sums(g: &[f32], n: usize) -> Vec<f32> {
    vectorised! {
        fn kernel(block: &[f32], n: usize) -> Vec<f32> {
            let mut sums = vec![0f32; n];
            for row in block.chunks_exact(n) {
                for (s, v) in sums.iter_mut().zip(row) {
                    *s += v;
                }
            }
            sums
        }
    }
    let partial: Vec<Vec<f32>> = g
        .par_chunks(n * ROWS_PER_SUM)
        .one_by_one()
        .map(|block| kernel(block, n))
        .collect();
    kernel(&partial.concat(), n)
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.forward((slice(x, xl)?, xl.dims()), (slice(w, wl)?, wl.dims()), None)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        xl: &Layout,
        w: &candle_core::CudaStorage,
        wl: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let (m, n, k, shape) = sizes(xl.dims(), wl.dims())?;
        crate::gpu::ops::linear((x, xl), (w, wl), None, [m, n, k], shape)
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            let (dx, dw, _) = crate::gpu::ops::linear_grad(x, w, grad, self.input_grad, false)?;
            return Ok((dx, Some(dw)));
        }
        let (dx, dw) = self.backward(x, w, grad)?;
        Ok((dx, Some(dw)))
    }
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
        b: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let bias = slice(b, bl)?;
        check_bias(wl, bl)?;
        self.forward(
            (slice(x, xl)?, xl.dims()),
            (slice(w, wl)?, wl.dims()),
            Some(bias),
        )
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        xl: &Layout,
        w: &candle_core::CudaStorage,
        wl: &Layout,
        b: &candle_core::CudaStorage,
        bl: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        check_bias(wl, bl)?;
        let (m, n, k, shape) = sizes(xl.dims(), wl.dims())?;
        crate::gpu::ops::linear((x, xl), (w, wl), Some((b, bl)), [m, n, k], shape)
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _b: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            let (dx, dw, db) = crate::gpu::ops::linear_grad(x, w, grad, self.input_grad, true)?;
            return Ok((dx, Some(dw), db));
        }
        let (dx, dw) = self.backward(x, w, grad)?;
        let n = w.dim(0)?;
        let db = with_slice(grad, |g| Tensor::from_vec(column_sums(g, n), n, w.device()))?;
        debug_assert_eq!(grad.dtype(), DType::F32);
        Ok((dx, Some(dw), Some(db)))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::super::check::{kernel_equals_reference, random};
    use super::*;
    use crate::compute::autocast;

    #[test]
    fn equals_reference_with_bias() -> Result<()> {
        for (m, k, n) in [(1, 1, 1), (5, 7, 3), (130, 64, 192), (3, 300, 17)] {
            let args = [
                random(&[2, m, k], 1)?,
                random(&[n, k], 2)?,
                random(&[n], 3)?,
            ];
            kernel_equals_reference(
                &|a| linear(&a[0], &a[1], Some(&a[2])),
                &|a| linear_reference(&a[0], &a[1], Some(&a[2])),
                &args,
                2e-6,
            )?;
        }
        Ok(())
    }

    #[test]
    fn equals_reference_without_bias_on_strided_input() -> Result<()> {
        let args = [random(&[6, 4], 1)?, random(&[5, 6], 2)?];
        kernel_equals_reference(
            &|a| linear(&a[0].t()?, &a[1], None),
            &|a| linear_reference(&a[0].t()?, &a[1], None),
            &args,
            2e-6,
        )
    }

    /// The values that are nearest in bf16, in f64.
    fn in_bf16(x: &Tensor) -> Result<Tensor> {
        x.to_dtype(DType::BF16)?.to_dtype(DType::F64)
    }

    #[test]
    fn in_bf16_all_three_products_read_rounded_factors() -> Result<()> {
        let (m, k, n) = (131, 75, 40);
        let [x, w] = [random(&[m, k], 1)?, random(&[n, k], 2)?];
        let (x, w) = (Var::from_tensor(&x)?, Var::from_tensor(&w)?);
        let y = autocast(Precision::Bf16, || linear(&x, &w, None))?;
        let g = random(&[m, n], 3)?;
        // the precision is the operation's, not that of the thread that goes back
        let grads = crate::backward(&(&y * &g)?.sum_all()?)?;
        let (bx, bw, bg) = (in_bf16(&x)?, in_bf16(&w)?, in_bf16(&g)?);
        for (got, want) in [
            (&y, bx.matmul(&bw.t()?)?),
            (grads.get(&x).expect("dx"), bg.matmul(&bw)?),
            (grads.get(&w).expect("dw"), bg.t()?.matmul(&bx)?),
        ] {
            let off = (got.to_dtype(DType::F64)? - want)?.abs()?.max_all()?;
            assert!(off.to_scalar::<f64>()? < 2e-5, "{off}");
        }
        Ok(())
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() -> Result<()> {
        let x = random(&[2, 3], 1)?;
        assert!(linear(&x, &random(&[4, 5], 2)?, None).is_err());
        assert!(linear(&x, &random(&[4, 3], 2)?, Some(&random(&[3], 2)?)).is_err());
        Ok(())
    }
}
