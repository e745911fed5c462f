//! Images to rows of patch pixels and back.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{has_kernel, slice};

struct Patchify {
    patch: usize,
}

/// `[B, C, H, W]` to `[B, (H/P)(W/P), C·P·P]`, patches row-major, each in (channel, row, column) order as a convolution's weight.
///
/// For images: no gradient flows back through its kernels.
pub fn patchify(images: &Tensor, patch: usize) -> Result<Tensor> {
    let (b, c, h, w) = images.dims4()?;
    if patch == 0 || h % patch != 0 || w % patch != 0 || h * w == 0 {
        bail!("image of {h}x{w} pixels is not a whole number of {patch}-pixel patches")
    }
    if has_kernel(images) {
        return images.contiguous()?.apply_op1_no_bwd(&Patchify { patch });
    }
    images
        .reshape(&[b, c, h / patch, patch, w / patch, patch][..])?
        .permute(vec![0, 2, 4, 1, 3, 5])?
        .reshape((b, h / patch * (w / patch), c * patch * patch))
}

/// The inverse of [`patchify`] for an image of `grid` patches.
pub fn unpatchify(patches: &Tensor, patch: usize, grid: [usize; 2]) -> Result<Tensor> {
    let (b, n, d) = patches.dims3()?;
    let channels = d / (patch * patch);
    if n != grid[0] * grid[1] || d != channels * patch * patch {
        bail!("{n} patches of {d} values are not {grid:?} patches of {patch} pixels")
    }
    patches
        .reshape(&[b, grid[0], grid[1], channels, patch, patch][..])?
        .permute(vec![0, 3, 1, 4, 2, 5])?
        .reshape((b, channels, grid[0] * patch, grid[1] * patch))
}

impl CustomOp1 for Patchify {
    fn name(&self) -> &'static str {
        "patchify"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(storage, layout)?;
        let (b, c, h, w) = layout.shape().dims4()?;
        let p = self.patch;
        let (columns, width) = (w / p, c * p * p);
        let mut out = vec![0f32; x.len()];
        // One task writes one row of patches.
        out.par_chunks_mut(columns * width)
            .enumerate()
            .for_each(|(task, out)| {
                let (image, patch_row) = (task / (h / p), task % (h / p));
                for channel in 0..c {
                    for row in 0..p {
                        let start = ((image * c + channel) * h + patch_row * p + row) * w;
                        for (column, from) in x[start..start + w].chunks_exact(p).enumerate() {
                            let to = column * width + (channel * p + row) * p;
                            out[to..to + p].copy_from_slice(from);
                        }
                    }
                }
            });
        Ok((
            CpuStorage::F32(out),
            Shape::from((b, h / p * columns, width)),
        ))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        storage: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let (b, c, h, w) = layout.shape().dims4()?;
        let p = self.patch;
        let shape = Shape::from((b, (h / p) * (w / p), c * p * p));
        crate::gpu::ops::patchify((storage, layout), [b, c, h, w], p, shape)
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::random;
    use super::*;
    use candle_core::DType;

    #[test]
    fn kernel_equals_permutation_and_inverts() -> Result<()> {
        let x = random(&[2, 3, 8, 12], 1)?;
        let fast = patchify(&x, 4)?;
        let plain = patchify(&x.to_dtype(DType::F64)?, 4)?.to_dtype(DType::F32)?;
        assert_eq!(fast.to_vec3::<f32>()?, plain.to_vec3::<f32>()?);
        let back = unpatchify(&fast, 4, [2, 3])?;
        assert_eq!(
            back.flatten_all()?.to_vec1::<f32>()?,
            x.flatten_all()?.to_vec1::<f32>()?
        );
        Ok(())
    }

    #[test]
    fn partial_patches_are_an_error() -> Result<()> {
        assert!(patchify(&random(&[1, 3, 8, 9], 1)?, 4).is_err());
        Ok(())
    }
}
