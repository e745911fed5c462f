//! Owned images with tightly packed rows.

use crate::format::PixelFormat;
use crate::frame::{Frame, FrameError};
use crate::resample::{Resized, Scratch};

/// Samples of an [`Image`], row-major, channels interleaved, no padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pixels {
    /// 8-bit grey, `[H, W]`.
    Gray8(Vec<u8>),
    /// 16-bit grey, `[H, W]`.
    Gray16(Vec<u16>),
    /// 8-bit RGB, `[H, W, 3]`.
    Rgb8(Vec<u8>),
    /// 16-bit RGB, `[H, W, 3]`.
    Rgb16(Vec<u16>),
}

impl Pixels {
    /// The format of a [`Frame`] over these samples.
    pub fn format(&self) -> PixelFormat {
        match self {
            Self::Gray8(_) => PixelFormat::Gray8,
            Self::Gray16(_) => PixelFormat::Gray16,
            Self::Rgb8(_) => PixelFormat::Rgb8,
            Self::Rgb16(_) => PixelFormat::Rgb16,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Gray8(v) | Self::Rgb8(v) => v,
            Self::Gray16(v) | Self::Rgb16(v) => bytemuck::cast_slice(v),
        }
    }
}

/// An owned image of at least 1x1 pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    width: u32,
    height: u32,
    pixels: Pixels,
}

impl Image {
    /// Wraps `pixels`, which must hold exactly `width * height` pixels.
    ///
    /// # Errors
    /// [`FrameError::Empty`] if a size is zero, [`FrameError::Buffer`] if the number of samples is not the one needed.
    pub fn new(width: u32, height: u32, pixels: Pixels) -> Result<Self, FrameError> {
        let stride = pixels.format().row_bytes(width);
        let len = pixels.bytes().len();
        Frame::new(pixels.bytes(), stride, width, height, pixels.format(), None)?;
        if len != stride * height as usize {
            return Err(FrameError::Buffer {
                len,
                needed: stride * height as usize,
                stride,
                height,
                planes: "pixels",
            });
        }
        Ok(Self::tight(width, height, pixels))
    }

    pub(crate) fn tight(width: u32, height: u32, pixels: Pixels) -> Self {
        debug_assert_eq!(
            pixels.bytes().len(),
            pixels.format().row_bytes(width) * height as usize
        );
        Self {
            width,
            height,
            pixels,
        }
    }

    /// Columns.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// 1 for grey, 3 for RGB.
    pub fn channels(&self) -> usize {
        self.pixels.format().channels()
    }

    /// The samples.
    pub fn pixels(&self) -> &Pixels {
        &self.pixels
    }

    /// A view of the whole image.
    pub fn frame(&self) -> Frame<'_> {
        let format = self.pixels.format();
        let stride = format.row_bytes(self.width);
        Frame::new(
            self.pixels.bytes(),
            stride,
            self.width,
            self.height,
            format,
            None,
        )
        .expect("an image holds exactly width x height pixels")
    }

    /// The image scaled down, antialiased and with its aspect ratio kept, so that its shorter side has `side` pixels; an
    /// image whose shorter side has at most `side` pixels comes back as it is.
    ///
    /// # Panics
    /// If `side` is 0.
    pub fn shrink(self, side: u32) -> Image {
        assert!(side > 0, "an image has at least one pixel a side");
        let shorter = self.width.min(self.height);
        if shorter <= side {
            return self;
        }
        let scale = |size: u32| {
            (f64::from(size) * f64::from(side) / f64::from(shorter))
                .round()
                .max(1.0) as u32
        };
        let (width, height) = (scale(self.width), scale(self.height));
        let pixels = Scratch::with(|scratch| {
            let resized = scratch.resize(&self, self.frame().region(), width, height);
            match (resized, self.channels() == 1) {
                (Resized::U8(v), true) => Pixels::Gray8(v.to_vec()),
                (Resized::U8(v), false) => Pixels::Rgb8(v.to_vec()),
                (Resized::U16(v), true) => Pixels::Gray16(v.to_vec()),
                (Resized::U16(v), false) => Pixels::Rgb16(v.to_vec()),
            }
        });
        Image::tight(width, height, pixels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_samples_is_checked() {
        assert!(Image::new(2, 2, Pixels::Gray8(vec![0; 4])).is_ok());
        assert!(Image::new(2, 2, Pixels::Gray8(vec![0; 5])).is_err());
        assert!(Image::new(2, 2, Pixels::Rgb16(vec![0; 11])).is_err());
        assert!(Image::new(0, 2, Pixels::Gray8(vec![])).is_err());
    }

    #[test]
    fn shrinking_keeps_aspect_format_and_mean() {
        let gray = Image::new(60, 40, Pixels::Gray16(vec![40_000; 2400])).unwrap();
        let small = gray.clone().shrink(10);
        assert_eq!((small.width(), small.height()), (15, 10));
        assert_eq!(small.pixels(), &Pixels::Gray16(vec![40_000; 150]));
        assert_eq!(gray.clone().shrink(40), gray);
        let rgb = Image::new(9, 3, Pixels::Rgb8([10, 20, 30].repeat(27))).unwrap();
        assert_eq!(
            rgb.shrink(1).pixels(),
            &Pixels::Rgb8([10, 20, 30].repeat(3))
        );
    }

    #[test]
    fn a_frame_of_an_image_copies_back_to_it() {
        for pixels in [
            Pixels::Gray8((0..6).collect()),
            Pixels::Gray16((0..6).map(|v| v * 999).collect()),
            Pixels::Rgb8((0..18).collect()),
            Pixels::Rgb16((0..18).map(|v| v * 999).collect()),
        ] {
            let image = Image::new(3, 2, pixels).unwrap();
            assert_eq!(image.frame().to_image(), image);
        }
    }
}
