//! From a frame to the tensor an encoder sees. Training, export and device share this code, so they cannot disagree.

use std::fmt;
use std::str::FromStr;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::frame::{Frame, FrameError, Roi};
use crate::picture::Image;
use crate::scale::{self, Affine};

/// Channel means of ImageNet, RGB, for samples in 0..=1.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Channel standard deviations of ImageNet, RGB, for samples in 0..=1.
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// How a region of another aspect ratio becomes the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// Stretch the whole region to the input: nothing is lost at the border.
    Squash,
    /// Take the largest centred part with the aspect ratio of the input, to the nearest whole pixel.
    CenterCrop,
}

/// A name that is no [`Fit`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown fit `{0}`; use `squash` or `center_crop`")]
pub struct UnknownFit(pub String);

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Squash => "squash",
            Self::CenterCrop => "center_crop",
        })
    }
}

impl FromStr for Fit {
    type Err = UnknownFit;

    fn from_str(name: &str) -> Result<Self, UnknownFit> {
        match name {
            "squash" => Ok(Self::Squash),
            "center_crop" => Ok(Self::CenterCrop),
            other => Err(UnknownFit(other.to_owned())),
        }
    }
}

/// Resize, scale to 0..=1, normalise: `out[c] = (pixel[c] / max - mean[c]) / std[c]`, `[3, height, width]` f32.
///
/// A frame of any [`PixelFormat`](crate::PixelFormat) is decoded row by row as [`Frame::to_image`] does, resampled by an antialiased
/// Catmull-Rom and normalised in one pass, with the same result, to the last bit, as its decoded image. No sample is rounded to 8 bit between; values
/// beyond the range of the codes, which the filter makes at sharp edges, are clamped to it. Grey fills all three channels.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// Rows of the input.
    pub height: u32,
    /// Columns of the input.
    pub width: u32,
    /// What happens to other aspect ratios.
    pub fit: Fit,
    /// Channel means, RGB, for samples in 0..=1.
    pub mean: [f32; 3],
    /// Channel standard deviations, RGB, for samples in 0..=1.
    pub std: [f32; 3],
}

impl Preprocess {
    /// Input of `height` x `width` with the statistics of ImageNet.
    pub fn imagenet(height: u32, width: u32, fit: Fit) -> Self {
        Self {
            height,
            width,
            fit,
            mean: IMAGENET_MEAN,
            std: IMAGENET_STD,
        }
    }

    /// Values written by [`apply`](Self::apply): `3 * height * width`.
    pub fn len(&self) -> usize {
        (self.height as usize)
            .saturating_mul(self.width as usize)
            .saturating_mul(3)
    }

    /// True if a size is zero, which [`validate`](Self::validate) rejects.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Checks sizes and statistics, which may come from a file.
    ///
    /// # Errors
    /// [`FrameError::Preprocess`] if a size is 0 or above 16384, a mean is not finite, or a standard deviation is not
    /// finite and positive.
    pub fn validate(&self) -> Result<(), FrameError> {
        let bad = |field, value: String, remedy| {
            Err(FrameError::Preprocess {
                field,
                value,
                remedy,
            })
        };
        for (field, size) in [("height", self.height), ("width", self.width)] {
            if !(1..=16_384).contains(&size) {
                return bad(field, size.to_string(), "set it to 1..=16384 pixels");
            }
        }
        if self.mean.iter().any(|m| !m.is_finite()) {
            return bad("mean", format!("{:?}", self.mean), "set finite numbers");
        }
        // a subnormal deviation would overflow to infinity on division
        if self.std.iter().any(|s| !s.is_finite() || *s < 1e-6) {
            return bad("std", format!("{:?}", self.std), "set it to 1e-6 or more");
        }
        Ok(())
    }

    /// Writes the region of interest of `frame` to `out` as `[3, height, width]`.
    ///
    /// # Errors
    /// [`FrameError::Output`] if `out` has another length, [`FrameError::Preprocess`] if a parameter is unusable.
    pub fn apply(&self, frame: &Frame, out: &mut [f32]) -> Result<(), FrameError> {
        self.validate()?;
        if out.len() != self.len() {
            return Err(FrameError::Output {
                expected: self.len(),
                actual: out.len(),
            });
        }
        let window = match self.fit {
            Fit::Squash => frame.region(),
            Fit::CenterCrop => self.centre_of(frame.region()),
        };
        let size = (self.width, self.height);
        scale::resample(frame, window, size, [0, 1, 2].map(|c| self.affine(c)), out);
        Ok(())
    }

    fn centre_of(&self, region: Roi) -> Roi {
        let (w, h) = (u64::from(region.width), u64::from(region.height));
        let (out_w, out_h) = (u64::from(self.width), u64::from(self.height));
        // round(a * b / c), at least 1
        let scaled = |a: u64, b: u64, c: u64| ((2 * a * b + c) / (2 * c)).max(1) as u32;
        let (width, height) = if w * out_h > h * out_w {
            (scaled(h, out_w, out_h).min(region.width), region.height)
        } else {
            (region.width, scaled(w, out_h, out_w).min(region.height))
        };
        Roi {
            x: region.x + (region.width - width) / 2,
            y: region.y + (region.height - height) / 2,
            width,
            height,
        }
    }

    fn affine(&self, channel: usize) -> Affine {
        let (mean, std) = (f64::from(self.mean[channel]), f64::from(self.std[channel]));
        Affine {
            scale: 1.0 / std,
            shift: -mean / std,
        }
    }
}

/// [`Preprocess::apply`] on many images in parallel: `[B, 3, H, W]`.
///
/// # Errors
/// [`FrameError::Preprocess`] if a parameter is unusable.
pub fn preprocess_batch(
    images: &[&Image],
    preprocess: &Preprocess,
) -> Result<Vec<f32>, FrameError> {
    preprocess.validate()?;
    let mut out = vec![0.0; images.len() * preprocess.len()];
    out.par_chunks_exact_mut(preprocess.len())
        .zip(images)
        .try_for_each(|(out, image)| preprocess.apply(&image.frame(), out))?;
    Ok(out)
}

#[cfg(test)]
mod tests;
