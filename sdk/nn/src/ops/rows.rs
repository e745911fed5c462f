//! Rows of matrices by number, and the loss of masked patches.

use candle_core::{Result, Tensor, bail};

/// Rows `ids` of `x [R, D]`, `[ids, D]`.
pub fn gather_rows(x: &Tensor, ids: Vec<u32>) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if super::has_kernel(x) && x.device().is_cuda() {
        return x
            .contiguous()?
            .apply_op1(crate::gpu::rows_op::GatherRows(ids));
    }
    let len = ids.len();
    x.index_select(&Tensor::from_vec(ids, len, x.device())?, 0)
}

/// Mean squared error of predicted patches `pred [ids, 3·A]`, pixels in (row, column, channel) order, against rows `ids` of
/// `patches [.., 3·A]`, in (channel, row, column) order; with `normalise` each of these less its mean and over √(variance + 1e-6), the
/// variance unbiased. A scalar; no gradient flows to `patches`.
///
/// # Errors
/// Tensors that are not on a GPU: elsewhere the target is made on the host.
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
    bail!(
        "patch_loss of {:?} and {:?}, {} rows, normalised: {normalise}: it needs CUDA tensors",
        pred.dims(),
        patches.dims(),
        ids.len()
    )
}
