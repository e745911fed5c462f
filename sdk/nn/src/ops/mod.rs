//! Differentiable operations.
//!
//! Each has a reference in plain tensors and, for f32 on the CPU and (feature `cuda`) on NVIDIA GPUs, fast kernels with their own
//! backward. Other types and devices, Metal among them, use the reference, which candle's autograd differentiates. Tests compare kernel
//! and reference, forward and backward, in f64.

mod attention;
mod block;
mod composed;
mod distil;
mod gelu;
pub(crate) mod layer_norm;
mod linear;
mod patchify;
mod product;
mod rows;
mod scratch;
#[cfg(all(feature = "metal", target_os = "macos"))]
mod sdpa;
pub(crate) mod simd;
pub(crate) mod softmax;

#[cfg(any(feature = "cuda", all(test, target_os = "linux")))]
pub(crate) use attention::Sizes;
pub use attention::{attention, attention_reference};
pub use block::{
    Affine, BlockParams, PathFactors, block, block_first_token, block_reference, blocks,
};
pub use composed::{composed, has_losses, is_composed, no_kernel_while_composed};
pub use distil::{
    Teacher, crops_cross_entropy, crops_cross_entropy_reference, teacher_softmax, unit_rows,
    unit_rows_reference,
};
pub use gelu::{Gelu, gelu, gelu_reference};
pub use layer_norm::{layer_norm, layer_norm_reference};
pub use linear::{linear, linear_of_input, linear_reference};
pub use patchify::{patchify, unpatchify};
pub use rows::{gather_rows, patch_loss, patch_loss_reference};
pub use scratch::release_scratch;

use std::ops::{Deref, Range};

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor, bail};
use rayon::iter::{IndexedParallelIterator, MaxLen};

/// Pieces of work that threads take one after the other.
///
/// Left to itself rayon splits work into four leaves on two threads, and cores are seldom equally fast: one then waits for the other's leaf.
trait OneByOne: IndexedParallelIterator {
    fn one_by_one(self) -> MaxLen<Self> {
        self.with_max_len(1)
    }
}

impl<I: IndexedParallelIterator> OneByOne for I {}

/// Rows handled by one task where rows are summed; fixed, so that sums do not depend on the number of threads.
const ROWS_PER_SUM: usize = 64;

fn has_kernel(x: &Tensor) -> bool {
    let has_kernels = x.device().is_cpu() || (cfg!(feature = "cuda") && x.device().is_cuda());
    has_kernels && x.dtype() == DType::F32 && !is_composed(x.device())
}

fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    no_kernel_while_composed()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("kernel needs a contiguous tensor, got {layout:?}"),
    }
}

/// Calls `f` with the values of a contiguous f32 CPU tensor.
fn with_slice<R>(x: &Tensor, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    match &*storage {
        Storage::Cpu(cpu) => f(slice(cpu, layout)?),
        _ => bail!("kernel needs a CPU tensor"),
    }
}

/// The values of a contiguous f32 CPU tensor, locked for reading.
struct Values<'t> {
    storage: Box<dyn Deref<Target = Storage> + 't>,
    range: Range<usize>,
}

impl<'t> Values<'t> {
    fn of(x: &'t Tensor) -> Result<Self> {
        let (storage, layout) = x.storage_and_layout();
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("kernel needs a contiguous tensor, got {layout:?}")
        };
        if !matches!(&*storage, Storage::Cpu(CpuStorage::F32(_))) {
            bail!("kernel needs an f32 CPU tensor")
        }
        Ok(Self {
            storage: Box::new(storage),
            range: start..end,
        })
    }
}

impl Deref for Values<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &**self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.range.clone()],
            _ => unreachable!("checked when it was made"),
        }
    }
}

#[cfg(test)]
pub(crate) mod check {
    //! Compares a kernel with its reference: values and the gradient of every argument, the reference in f64.

    use candle_core::{DType, Device, Result, Tensor, Var};
    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
    use rand_distr::{Distribution, StandardNormal};

    pub(crate) fn random(shape: &[usize], seed: u64) -> Result<Tensor> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let n = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|_| StandardNormal.sample(&mut rng)).collect();
        Tensor::from_vec(values, shape, &Device::Cpu)
    }

    fn run(
        f: &dyn Fn(&[Tensor]) -> Result<Tensor>,
        args: &[Tensor],
        upstream: &Tensor,
        dtype: DType,
    ) -> Result<Vec<Vec<f64>>> {
        let vars = args
            .iter()
            .map(|a| Var::from_tensor(&a.to_dtype(dtype)?))
            .collect::<Result<Vec<_>>>()?;
        let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let y = f(&tensors)?;
        let grads = crate::backward(&(&y * upstream.to_dtype(dtype)?)?.sum_all()?)?;
        let flat = |t: &Tensor| t.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
        let mut out = vec![flat(&y)?];
        for v in &vars {
            out.push(flat(grads.get(v).expect("every argument has a gradient"))?);
        }
        Ok(out)
    }

    /// Largest difference, relative to the largest value of each output or gradient; of the kernel, and of the composition that stands in
    /// for it on Metal.
    pub(crate) fn kernel_equals_reference(
        kernel: &dyn Fn(&[Tensor]) -> Result<Tensor>,
        reference: &dyn Fn(&[Tensor]) -> Result<Tensor>,
        args: &[Tensor],
        tolerance: f64,
    ) -> Result<()> {
        let shape = kernel(args)?.dims().to_vec();
        let upstream = random(&shape, 99)?;
        let want = run(reference, args, &upstream, DType::F64)?;
        let got = run(kernel, args, &upstream, DType::F32)?;
        near("kernel", &got, &want, tolerance);
        let got = super::composed(|| run(kernel, args, &upstream, DType::F32))?;
        near("composition", &got, &want, tolerance);
        Ok(())
    }

    fn near(what: &str, got: &[Vec<f64>], want: &[Vec<f64>], tolerance: f64) {
        assert_eq!(got.len(), want.len());
        for (i, (g, w)) in got.iter().zip(want).enumerate() {
            let scale = w.iter().fold(1e-6, |m: f64, x| m.max(x.abs()));
            let worst = g
                .iter()
                .zip(w)
                .fold(0.0, |m: f64, (a, b)| m.max((a - b).abs()));
            assert!(
                worst <= tolerance * scale,
                "{what}, output {i} (0 is the value, then gradients): off by {worst:e} of {scale:e}"
            );
        }
    }
}
