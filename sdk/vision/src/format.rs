//! Pixel formats: how the pixels of a row lie in its bytes, and what is needed to read luma and chroma as RGB.

use crate::frame::FrameError;

/// Layout of the pixels. 16-bit samples are native-endian and use the full range 0..=65535.
///
/// The names are those of GenICam's pixel format naming convention where it has one, of FourCC otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PixelFormat {
    /// One 8-bit grey sample.
    Gray8,
    /// One 16-bit grey sample.
    Gray16,
    /// Red, green, blue, 8 bit each.
    Rgb8,
    /// Blue, green, red, 8 bit each.
    Bgr8,
    /// Red, green, blue, alpha, 8 bit each; alpha is ignored.
    Rgba8,
    /// Red, green, blue, 16 bit each.
    Rgb16,
    /// Blue, green, red, alpha, 8 bit each; alpha is ignored.
    Bgra8,
    /// One 10-bit grey sample, packed without gaps from the lowest bit on: four pixels in five bytes. A row begins at a byte.
    Mono10p,
    /// One 12-bit grey sample, packed without gaps from the lowest bit on: two pixels in three bytes. A row begins at a byte.
    Mono12p,
    /// 8-bit colour filter array; the top left pixel of the frame is red, the one right of it green.
    BayerRg8,
    /// 8-bit colour filter array; the top left pixel of the frame is green, the one right of it red.
    BayerGr8,
    /// 8-bit colour filter array; the top left pixel of the frame is green, the one right of it blue.
    BayerGb8,
    /// 8-bit colour filter array; the top left pixel of the frame is blue, the one right of it green.
    BayerBg8,
    /// A plane of 8-bit luma, then a plane of interleaved Cb and Cr for every two by two pixels. Width and height are even.
    Nv12,
    /// Luma, Cb, luma, Cr of two neighbours in four bytes (YUY2). The width is even.
    Yuyv,
}

#[cfg(test)]
pub(crate) const FORMATS: [PixelFormat; 15] = [
    PixelFormat::Gray8,
    PixelFormat::Gray16,
    PixelFormat::Rgb8,
    PixelFormat::Bgr8,
    PixelFormat::Rgba8,
    PixelFormat::Rgb16,
    PixelFormat::Bgra8,
    PixelFormat::Mono10p,
    PixelFormat::Mono12p,
    PixelFormat::BayerRg8,
    PixelFormat::BayerGr8,
    PixelFormat::BayerGb8,
    PixelFormat::BayerBg8,
    PixelFormat::Nv12,
    PixelFormat::Yuyv,
];

/// How the samples of a pixel lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Whole samples side by side: so many a pixel, 8 or 16 bit, red, green and blue at these places.
    Interleaved {
        samples: usize,
        wide: bool,
        order: [usize; 3],
    },
    /// Grey samples of so many bits without gaps.
    Packed { bits: u32 },
    /// One sample a pixel; red is where column and row have these parities.
    Bayer { red: [u32; 2] },
    /// A plane of luma and a plane of chroma.
    Nv12,
    /// Luma and chroma interleaved.
    Yuyv,
}

impl PixelFormat {
    /// Colour channels of a decoded pixel: 1 for grey, 3 for all else.
    pub fn channels(self) -> usize {
        if self.is_gray() { 1 } else { 3 }
    }

    /// True for formats of one grey sample a pixel; a colour filter array is not grey.
    pub fn is_gray(self) -> bool {
        matches!(
            self,
            Self::Gray8 | Self::Gray16 | Self::Mono10p | Self::Mono12p
        )
    }

    /// Bytes that a row of `width` pixels fills, padding left out; of the luma plane for [`Nv12`](Self::Nv12).
    pub fn row_bytes(self, width: u32) -> usize {
        let width = width as usize;
        match self.layout() {
            Layout::Interleaved { samples, wide, .. } => {
                width.saturating_mul(samples << usize::from(wide))
            }
            Layout::Packed { bits } => width.saturating_mul(bits as usize).div_ceil(8),
            Layout::Bayer { .. } | Layout::Nv12 => width,
            Layout::Yuyv => width.saturating_mul(2),
        }
    }

    /// True for formats of luma and chroma, which [`Yuv`] says how to read.
    pub fn is_yuv(self) -> bool {
        matches!(self, Self::Nv12 | Self::Yuyv)
    }

    pub(crate) fn layout(self) -> Layout {
        let interleaved = |samples, wide, order| Layout::Interleaved {
            samples,
            wide,
            order,
        };
        match self {
            Self::Gray8 => interleaved(1, false, [0, 0, 0]),
            Self::Gray16 => interleaved(1, true, [0, 0, 0]),
            Self::Rgb8 => interleaved(3, false, [0, 1, 2]),
            Self::Bgr8 => interleaved(3, false, [2, 1, 0]),
            Self::Rgba8 => interleaved(4, false, [0, 1, 2]),
            Self::Bgra8 => interleaved(4, false, [2, 1, 0]),
            Self::Rgb16 => interleaved(3, true, [0, 1, 2]),
            Self::Mono10p => Layout::Packed { bits: 10 },
            Self::Mono12p => Layout::Packed { bits: 12 },
            Self::BayerRg8 => Layout::Bayer { red: [0, 0] },
            Self::BayerGr8 => Layout::Bayer { red: [1, 0] },
            Self::BayerGb8 => Layout::Bayer { red: [0, 1] },
            Self::BayerBg8 => Layout::Bayer { red: [1, 1] },
            Self::Nv12 => Layout::Nv12,
            Self::Yuyv => Layout::Yuyv,
        }
    }

    /// True if decoded samples have 16 bit.
    pub(crate) fn is_wide(self) -> bool {
        matches!(
            self.layout(),
            Layout::Interleaved { wide: true, .. } | Layout::Packed { .. }
        )
    }

    /// Chroma that neighbours share asks for even sizes.
    pub(crate) fn check_size(self, width: u32, height: u32) -> Result<(), FrameError> {
        let columns = self.is_yuv() && !width.is_multiple_of(2);
        let rows = self == Self::Nv12 && !height.is_multiple_of(2);
        if columns || rows {
            return Err(FrameError::Odd {
                width,
                height,
                format: self,
            });
        }
        Ok(())
    }
}

/// How luma and chroma become RGB: the weights of the primaries and the range of the codes.
///
/// The default is BT.601 in limited range, what OpenCV's `cvtColor`, V4L2 without a hint and most USB cameras mean. HD video
/// pipelines often carry BT.709, JPEG-based ones (`YUVJ`) the full range: ask the source and say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Yuv {
    /// ITU-R BT.601, luma 16 to 235, chroma 16 to 240.
    #[default]
    Bt601Limited,
    /// ITU-R BT.601, all codes 0 to 255, as in JPEG.
    Bt601Full,
    /// ITU-R BT.709, luma 16 to 235, chroma 16 to 240.
    Bt709Limited,
    /// ITU-R BT.709, all codes 0 to 255.
    Bt709Full,
}

impl Yuv {
    /// Weights of red and blue in luma.
    pub(crate) fn primaries(self) -> (f64, f64) {
        match self {
            Self::Bt601Limited | Self::Bt601Full => (0.299, 0.114),
            Self::Bt709Limited | Self::Bt709Full => (0.2126, 0.0722),
        }
    }

    /// True if luma runs from 16 to 235 and chroma from 16 to 240.
    pub(crate) fn is_limited(self) -> bool {
        matches!(self, Self::Bt601Limited | Self::Bt709Limited)
    }
}
