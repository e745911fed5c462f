//! Borrowed pixel buffers as cameras deliver them: strided rows, a pixel format, a region of interest.

use crate::picture::{Image, Pixels};

/// Layout of one pixel. 16-bit samples are native-endian and use the full range 0..=65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
}

impl PixelFormat {
    /// Samples stored per pixel, alpha included.
    pub fn samples(self) -> usize {
        match self {
            Self::Gray8 | Self::Gray16 => 1,
            Self::Rgb8 | Self::Bgr8 | Self::Rgb16 => 3,
            Self::Rgba8 => 4,
        }
    }

    /// Bytes per pixel.
    pub fn bytes(self) -> usize {
        match self {
            Self::Gray16 | Self::Rgb16 => 2 * self.samples(),
            _ => self.samples(),
        }
    }

    /// True for one-channel formats.
    pub fn is_gray(self) -> bool {
        self.samples() == 1
    }

    /// Position of red, green and blue (or grey three times) among the samples of a pixel.
    pub(crate) fn order(self) -> [usize; 3] {
        match self {
            Self::Gray8 | Self::Gray16 => [0, 0, 0],
            Self::Bgr8 => [2, 1, 0],
            Self::Rgb8 | Self::Rgba8 | Self::Rgb16 => [0, 1, 2],
        }
    }

    pub(crate) fn is_16_bit(self) -> bool {
        matches!(self, Self::Gray16 | Self::Rgb16)
    }
}

/// A rectangle in pixels; `x`, `y` is its top left corner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Roi {
    /// Left column.
    pub x: u32,
    /// Top row.
    pub y: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// Why a buffer is not a frame, or a frame cannot be preprocessed.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum FrameError {
    /// Width or height is zero.
    #[error("frame of {width}x{height} pixels is empty; pass the camera's width and height")]
    Empty {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// The distance between rows is smaller than a row.
    #[error(
        "stride of {stride} bytes is smaller than a row of {row} bytes ({width} pixels, {format:?}); \
         pass the stride in bytes, not in pixels"
    )]
    Stride {
        /// Bytes from one row to the next.
        stride: usize,
        /// Bytes of a row.
        row: usize,
        /// Columns.
        width: u32,
        /// Pixel format.
        format: PixelFormat,
    },
    /// The buffer ends before the last pixel.
    #[error(
        "buffer of {len} bytes is too small: {height} rows at a stride of {stride} bytes need {needed}; \
         check height, stride and format"
    )]
    Buffer {
        /// Bytes given.
        len: usize,
        /// Bytes needed; `usize::MAX` if the size cannot be addressed.
        needed: usize,
        /// Bytes from one row to the next.
        stride: usize,
        /// Rows.
        height: u32,
    },
    /// The region of interest is empty or reaches outside the frame.
    #[error(
        "region of interest {}x{} at ({}, {}) does not lie inside the frame of {width}x{height} pixels; \
         make it at least 1x1 and inside",
        roi.width, roi.height, roi.x, roi.y
    )]
    Roi {
        /// Region asked for.
        roi: Roi,
        /// Columns of the frame.
        width: u32,
        /// Rows of the frame.
        height: u32,
    },
    /// The output slice has the wrong length.
    #[error("output holds {actual} values, preprocessing writes {expected} (3 x height x width)")]
    Output {
        /// Values needed.
        expected: usize,
        /// Values given.
        actual: usize,
    },
    /// A preprocessing parameter is unusable.
    #[error("preprocessing parameter `{field}` is {value}; {remedy}")]
    Preprocess {
        /// Parameter.
        field: &'static str,
        /// Its value, printed.
        value: String,
        /// What to set instead.
        remedy: &'static str,
    },
}

/// A borrowed image of any [`PixelFormat`] with padded rows and a region of interest.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    data: &'a [u8],
    stride: usize,
    width: u32,
    height: u32,
    format: PixelFormat,
    roi: Option<Roi>,
}

impl<'a> Frame<'a> {
    /// Wraps `data`: `height` rows of `width` pixels, `stride` bytes apart. The last row needs no padding.
    ///
    /// # Errors
    /// [`FrameError`] if a size is zero, the stride is smaller than a row, the buffer is too short, or `roi` is empty or
    /// not inside the frame.
    pub fn new(
        data: &'a [u8],
        stride: usize,
        width: u32,
        height: u32,
        format: PixelFormat,
        roi: Option<Roi>,
    ) -> Result<Self, FrameError> {
        if width == 0 || height == 0 {
            return Err(FrameError::Empty { width, height });
        }
        let row = (width as usize).saturating_mul(format.bytes());
        if stride < row {
            return Err(FrameError::Stride {
                stride,
                row,
                width,
                format,
            });
        }
        let needed = stride
            .checked_mul(height as usize - 1)
            .and_then(|n| n.checked_add(row))
            .unwrap_or(usize::MAX);
        if data.len() < needed {
            return Err(FrameError::Buffer {
                len: data.len(),
                needed,
                stride,
                height,
            });
        }
        let frame = Self {
            data,
            stride,
            width,
            height,
            format,
            roi: None,
        };
        match roi {
            Some(roi) => frame.with_roi(roi),
            None => Ok(frame),
        }
    }

    /// The same buffer with another region of interest, in pixels of the whole frame.
    ///
    /// # Errors
    /// [`FrameError::Roi`] if it is empty or not inside the frame.
    pub fn with_roi(mut self, roi: Roi) -> Result<Self, FrameError> {
        let inside = |start: u32, len: u32, size: u32| {
            len > 0 && u64::from(start) + u64::from(len) <= u64::from(size)
        };
        if !inside(roi.x, roi.width, self.width) || !inside(roi.y, roi.height, self.height) {
            return Err(FrameError::Roi {
                roi,
                width: self.width,
                height: self.height,
            });
        }
        self.roi = Some(roi);
        Ok(self)
    }

    /// The whole buffer, rows [`stride`](Self::stride) bytes apart.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Bytes from one row to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Columns of the whole frame.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows of the whole frame.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Pixel format.
    pub fn format(&self) -> PixelFormat {
        self.format
    }

    /// The region of interest, or the whole frame if none was given.
    pub fn region(&self) -> Roi {
        self.roi.unwrap_or(Roi {
            x: 0,
            y: 0,
            width: self.width,
            height: self.height,
        })
    }

    /// Bytes of row `y` of the [`region`](Self::region).
    ///
    /// # Panics
    /// If `y` is not a row of the region.
    pub fn row(&self, y: u32) -> &'a [u8] {
        let region = self.region();
        assert!(y < region.height, "row {y} of {}", region.height);
        let bytes = self.format.bytes();
        let start = (region.y + y) as usize * self.stride + region.x as usize * bytes;
        &self.data[start..start + region.width as usize * bytes]
    }

    /// A tight copy of the [`region`](Self::region): grey stays grey, all else becomes RGB of the same depth.
    pub fn to_image(&self) -> Image {
        let region = self.region();
        let (samples, order) = (self.format.samples(), self.format.order());
        let rows = || (0..region.height).map(|y| self.row(y));
        let pixels = match self.format {
            PixelFormat::Gray8 => Pixels::Gray8(rows().flatten().copied().collect()),
            PixelFormat::Gray16 => Pixels::Gray16(rows().flat_map(native_u16).collect()),
            PixelFormat::Rgb16 => Pixels::Rgb16(rows().flat_map(native_u16).collect()),
            PixelFormat::Rgb8 | PixelFormat::Bgr8 | PixelFormat::Rgba8 => Pixels::Rgb8(
                rows()
                    .flat_map(|row| row.chunks_exact(samples))
                    .flat_map(|pixel| order.map(|c| pixel[c]))
                    .collect(),
            ),
        };
        Image::tight(region.width, region.height, pixels)
    }
}

fn native_u16(row: &[u8]) -> impl Iterator<Item = u16> {
    row.chunks_exact(2)
        .map(|b| u16::from_ne_bytes([b[0], b[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked_before_use() {
        let data = [0u8; 100];
        let frame = |stride, w, h, format| Frame::new(&data, stride, w, h, format, None);
        assert!(frame(10, 10, 10, PixelFormat::Gray8).is_ok());
        assert_eq!(
            frame(10, 0, 10, PixelFormat::Gray8).unwrap_err(),
            FrameError::Empty {
                width: 0,
                height: 10
            }
        );
        let stride = frame(10, 10, 3, PixelFormat::Rgb8).unwrap_err();
        assert!(
            stride.to_string().contains("stride of 10 bytes"),
            "{stride}"
        );
        assert!(stride.to_string().contains("30 bytes"), "{stride}");
        assert!(matches!(
            frame(10, 10, 11, PixelFormat::Gray8),
            Err(FrameError::Buffer { needed: 110, .. })
        ));
        assert!(matches!(
            frame(usize::MAX, 10, 3, PixelFormat::Gray8),
            Err(FrameError::Buffer {
                needed: usize::MAX,
                ..
            })
        ));
        // the last row needs no padding
        assert!(frame(30, 10, 4, PixelFormat::Gray8).is_ok());
        assert!(frame(30, 11, 4, PixelFormat::Gray8).is_err());
    }

    #[test]
    fn a_region_must_lie_inside() {
        let data = [0u8; 100];
        let frame = Frame::new(&data, 10, 10, 10, PixelFormat::Gray8, None).unwrap();
        let roi = |x, y, width, height| Roi {
            x,
            y,
            width,
            height,
        };
        assert!(frame.with_roi(roi(9, 9, 1, 1)).is_ok());
        for outside in [
            roi(9, 9, 2, 1),
            roi(0, 0, 0, 5),
            roi(u32::MAX, 0, 2, 1),
            roi(0, 10, 1, 1),
        ] {
            assert!(matches!(
                frame.with_roi(outside),
                Err(FrameError::Roi { .. })
            ));
        }
    }

    #[test]
    fn copies_drop_padding_alpha_and_channel_order() {
        let bgra = [1u8, 2, 3, 99, 4, 5, 6, 99, 7, 8, 9, 99, 10, 11, 12, 99];
        let rgba = Frame::new(&bgra, 8, 2, 2, PixelFormat::Rgba8, None).unwrap();
        assert_eq!(
            rgba.to_image().pixels(),
            &Pixels::Rgb8(vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
        );
        let bgr = Frame::new(&bgra, 8, 2, 2, PixelFormat::Bgr8, None).unwrap();
        assert_eq!(
            bgr.to_image().pixels(),
            &Pixels::Rgb8(vec![3, 2, 1, 5, 4, 99, 9, 8, 7, 11, 10, 99])
        );
        let roi = Roi {
            x: 1,
            y: 1,
            width: 2,
            height: 1,
        };
        let gray = Frame::new(&bgra, 4, 4, 4, PixelFormat::Gray8, Some(roi)).unwrap();
        assert_eq!(gray.to_image().pixels(), &Pixels::Gray8(vec![5, 6]));
        let wide = Frame::new(&bgra, 4, 2, 4, PixelFormat::Gray16, None).unwrap();
        let Pixels::Gray16(samples) = wide.to_image().pixels().clone() else {
            panic!("depth changed")
        };
        assert_eq!(samples[0], u16::from_ne_bytes([1, 2]));
    }
}
