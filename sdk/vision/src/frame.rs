//! Borrowed pixel buffers as cameras deliver them: strided rows, a pixel format, a region of interest.

use crate::format::{PixelFormat, Yuv};
use crate::picture::{Image, Pixels};
use crate::rows::{Arrangement, Buffers, Narrow, Wide};

mod error;

pub use error::FrameError;

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

/// A borrowed image of any [`PixelFormat`] with padded rows and a region of interest.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    data: &'a [u8],
    stride: usize,
    width: u32,
    height: u32,
    format: PixelFormat,
    chroma: ChromaPlane,
    yuv: Yuv,
    roi: Option<Roi>,
}

/// Where the second plane of an NV12 frame lies, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChromaPlane {
    /// From the first byte of luma to the first byte of chroma.
    pub offset: usize,
    /// From one row of chroma to the next.
    pub stride: usize,
}

impl<'a> Frame<'a> {
    /// Wraps `data`: `height` rows of `width` pixels, `stride` bytes apart. The last row needs no padding.
    ///
    /// Chroma of [`PixelFormat::Nv12`] follows the luma of all `height` rows at the same stride;
    /// [`Frame::nv12`] is for buffers where it does not.
    ///
    /// # Errors
    /// [`FrameError`] if a size is zero or, where neighbours share chroma, odd, the stride is smaller than a row, the buffer is too
    /// short, or `roi` is empty or not inside the frame.
    pub fn new(
        data: &'a [u8],
        stride: usize,
        width: u32,
        height: u32,
        format: PixelFormat,
        roi: Option<Roi>,
    ) -> Result<Self, FrameError> {
        let chroma = ChromaPlane {
            offset: stride.saturating_mul(height as usize),
            stride,
        };
        Self::checked(data, stride, [width, height], format, chroma, roi)
    }

    /// Wraps NV12 whose chroma plane lies elsewhere in `data`, as decoders that pad the height leave it.
    ///
    /// # Errors
    /// As [`Frame::new`], and if the planes overlap.
    pub fn nv12(
        data: &'a [u8],
        stride: usize,
        width: u32,
        height: u32,
        chroma: ChromaPlane,
        roi: Option<Roi>,
    ) -> Result<Self, FrameError> {
        Self::checked(
            data,
            stride,
            [width, height],
            PixelFormat::Nv12,
            chroma,
            roi,
        )
    }

    fn checked(
        data: &'a [u8],
        stride: usize,
        [width, height]: [u32; 2],
        format: PixelFormat,
        chroma: ChromaPlane,
        roi: Option<Roi>,
    ) -> Result<Self, FrameError> {
        if width == 0 || height == 0 {
            return Err(FrameError::Empty { width, height });
        }
        format.check_size(width, height)?;
        let row = format.row_bytes(width);
        let mut needed = plane_bytes(stride, height, row, width, format)?;
        let planes = if format == PixelFormat::Nv12 {
            if chroma.offset < needed {
                let (offset, luma) = (chroma.offset, needed);
                return Err(FrameError::ChromaPlane { offset, luma });
            }
            let bytes = plane_bytes(chroma.stride, height / 2, row, width, format)?;
            needed = chroma.offset.saturating_add(bytes);
            "luma and chroma"
        } else {
            "pixels"
        };
        if data.len() < needed {
            return Err(FrameError::Buffer {
                len: data.len(),
                needed,
                stride,
                height,
                planes,
            });
        }
        let frame = Self {
            data,
            stride,
            width,
            height,
            format,
            chroma,
            yuv: Yuv::default(),
            roi: None,
        };
        match roi {
            Some(roi) => frame.with_roi(roi),
            None => Ok(frame),
        }
    }

    /// The same buffer, its luma and chroma read in another way than [`Yuv::default`]; other formats are not touched by it.
    pub fn with_yuv(mut self, yuv: Yuv) -> Self {
        self.yuv = yuv;
        self
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

    /// Where chroma lies; of no meaning for formats without a plane of it.
    pub(crate) fn chroma_plane(&self) -> (usize, usize) {
        (self.chroma.offset, self.chroma.stride)
    }

    /// How luma and chroma are read.
    pub fn yuv(&self) -> Yuv {
        self.yuv
    }

    /// The [`region`](Self::region) decoded: grey stays grey, all else becomes RGB, of 16 bit if the source has more than 8.
    ///
    /// A colour filter array is demosaicked bilinearly; pixels that share chroma all get it.
    pub fn to_image(&self) -> Image {
        let region = self.region();
        let arrangement = Arrangement::of(self);
        let is_gray = self.format.is_gray();
        let pixels = if self.format.is_wide() {
            let mut source = Wide::new(self, region);
            let samples = collect(region, arrangement, |y, row| source.fill(y, row));
            let of = if is_gray {
                Pixels::Gray16
            } else {
                Pixels::Rgb16
            };
            of(samples)
        } else {
            let mut buffers = Buffers::default();
            let mut source = Narrow::new(self, region, &mut buffers);
            let samples = collect(region, arrangement, |y, row| source.fill(y, row));
            let of = if is_gray { Pixels::Gray8 } else { Pixels::Rgb8 };
            of(samples)
        };
        Image::tight(region.width, region.height, pixels)
    }
}

/// Bytes of `rows` rows, or why they cannot be.
fn plane_bytes(
    stride: usize,
    rows: u32,
    row: usize,
    width: u32,
    format: PixelFormat,
) -> Result<usize, FrameError> {
    if stride < row {
        return Err(FrameError::Stride {
            stride,
            row,
            width,
            format,
        });
    }
    let before = stride.checked_mul(rows as usize - 1);
    Ok(before
        .and_then(|n| n.checked_add(row))
        .unwrap_or(usize::MAX))
}

/// All rows of a region, pixel by pixel, channels as grey or RGB.
fn collect<T: Copy + Default>(
    region: Roi,
    arrangement: Arrangement,
    mut fill: impl FnMut(u32, &mut [T]),
) -> Vec<T> {
    let width = region.width as usize;
    let mut row = vec![T::default(); arrangement.row_len(region.width)];
    let mut out = Vec::new();
    for y in 0..region.height {
        fill(y, &mut row);
        match arrangement {
            Arrangement::Interleaved { samples: 1, .. } => out.extend_from_slice(&row),
            Arrangement::Interleaved { samples, order } => {
                out.extend(row.chunks_exact(samples).flat_map(|p| order.map(|c| p[c])));
            }
            Arrangement::Planar => {
                out.extend((0..width).flat_map(|x| [0, 1, 2].map(|c| row[c * width + x])));
            }
        }
    }
    out
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
