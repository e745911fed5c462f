//! Rows of matrices by number, and the loss of masked patches.

use candle_core::{D, Result, Tensor, bail};

/// Rows `ids` of `x [R, D]`, `[ids, D]`.
pub fn gather_rows(x: &Tensor, ids: Vec<u32>) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if super::has_kernel(x) && x.device().is_cuda() {
        return x
            .contiguous()?
            .apply_op1(crate::gpu::rows_op::GatherRows(ids));
    }
    let len = ids.len();
    // candle's Metal kernel reads other tensors at wrong places.
    let x = x.contiguous()?;
    x.index_select(&Tensor::from_vec(ids, len, x.device())?, 0)
}

/// Mean squared error of predicted patches `pred [ids, 3·A]`, pixels in (row, column, channel) order, against rows `ids` of
/// `patches [.., 3·A]`, in (channel, row, column) order; with `normalise` each of these less its mean and over √(variance + 1e-6), the
/// variance unbiased. A scalar; no gradient flows to `patches`.
///
/// # Errors
/// Tensors on the CPU, where training makes the target on the host.
pub fn patch_loss(
    pred: &Tensor,
    patches: &Tensor,
    ids: Vec<u32>,
    normalise: bool,
) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if pred.device().is_cuda() {
        let patches = patches.detach().contiguous()?;
        let op = crate::gpu::rows_op::PatchLoss::new(patches, ids, normalise);
        return pred.contiguous()?.apply_op1(op);
    }
    if super::is_composed(pred.device()) {
        return patch_loss_reference(pred, patches, ids, normalise);
    }
    bail!(
        "patch_loss of {:?} and {:?}, {} rows, normalised: {normalise}: it needs tensors on a GPU",
        pred.dims(),
        patches.dims(),
        ids.len()
    )
}

/// The same in plain tensors.
pub fn patch_loss_reference(
    pred: &Tensor,
    patches: &Tensor,
    ids: Vec<u32>,
    normalise: bool,
) -> Result<Tensor> {
    let (rows, pixels) = pred.dims2()?;
    let patches = patches.detach().reshape(((), pixels))?;
    let target = gather_rows(&patches, ids)?; // [ids, 3·A]
    let target = target
        .reshape((rows, 3, pixels / 3))?
        .transpose(1, 2)?
        .contiguous()?
        .reshape((rows, pixels))?;
    let target = if normalise {
        let centred = target.broadcast_sub(&target.mean_keepdim(D::Minus1)?)?;
        let squares = centred.sqr()?.sum_keepdim(D::Minus1)?;
        let variance = (squares / (pixels as f64 - 1.0))?;
        centred.broadcast_div(&(variance + 1e-6)?.sqrt()?)?
    } else {
        target
    };
    (pred - target)?.sqr()?.mean_all()
}
