//! Gathering rows and the loss of masked patches, on CUDA tensors.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use super::losses::{self, Hidden};
use super::ops::{Computed, Output, first, machine, needs_gpu, view_of};
use super::{Cuda, Memory, OrCandle, kernels};

/// Rows of a matrix by number, with a gradient that sums rows in a fixed order.
pub(crate) struct GatherRows(pub(crate) Vec<u32>);

impl CustomOp1 for GatherRows {
    fn name(&self) -> &'static str {
        "gather_rows"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        needs_gpu(self.name())
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Computed {
        let (_, d) = layout.shape().dims2()?;
        let (machine, values) = first((x, layout))?;
        let out = Output::new(&machine, self.0.len() * d)?;
        kernels::gather_rows(&*machine, values, &self.0, out.view(), d).or_candle()?;
        Ok((out.storage(&machine), Shape::from((self.0.len(), d))))
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, d) = x.dims2()?;
        let machine = machine(x)?;
        let grad = grad.contiguous()?;
        let out = Output::new(&machine, x.elem_count())?;
        losses::scatter_rows(&*machine, view_of(&grad)?, &self.0, out.view(), d).or_candle()?;
        Ok(Some(out.tensor(&machine, x.shape())))
    }
}

/// See [`crate::ops::patch_loss`].
pub(crate) struct PatchLoss {
    pub(crate) patches: Tensor,
    pub(crate) ids: Vec<u32>,
    pub(crate) normalise: bool,
    kept: Mutex<Option<(Hidden, Memory)>>,
}

impl PatchLoss {
    pub(crate) fn new(patches: Tensor, ids: Vec<u32>, normalise: bool) -> Self {
        Self {
            patches,
            ids,
            normalise,
            kept: Mutex::new(None),
        }
    }

    fn hidden(&self, machine: &Cuda) -> Result<Hidden> {
        let area = self.patches.dim(candle_core::D::Minus1)? / 3;
        Hidden::new(
            machine,
            view_of(&self.patches)?,
            &self.ids,
            area,
            self.normalise,
        )
        .or_candle()
    }
}

impl CustomOp1 for PatchLoss {
    fn name(&self) -> &'static str {
        "patch_loss"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        needs_gpu(self.name())
    }

    fn cuda_fwd(&self, pred: &CudaStorage, layout: &Layout) -> Computed {
        let (machine, pred) = first((pred, layout))?;
        let hidden = self.hidden(&machine)?;
        let loss = Output::new(&machine, 1)?;
        let stats = hidden.loss(&*machine, pred, loss.view()).or_candle()?;
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some((hidden, stats));
        Ok((loss.storage(&machine), Shape::from(())))
    }

    fn bwd(&self, pred: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let machine = machine(pred)?;
        let (pred, grad) = (pred.contiguous()?, grad.contiguous()?);
        let out = Output::new(&machine, pred.elem_count())?;
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((hidden, stats)) = &*kept else {
            bail!("patch_loss: a gradient before the loss")
        };
        let (pred_there, upstream) = (view_of(&pred)?, view_of(&grad)?);
        hidden
            .grad(&*machine, pred_there, stats.view, upstream, out.view())
            .or_candle()?;
        Ok(Some(out.tensor(&machine, pred.shape())))
    }
}
