//! Why a buffer is not a frame.

use crate::format::PixelFormat;
use crate::frame::Roi;

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
        "buffer of {len} bytes is too small: {height} rows of {planes} at a stride of {stride} bytes need {needed}; \
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
        /// What the rows hold.
        planes: &'static str,
    },
    /// Chroma is shared by neighbours, and one of them is missing.
    #[error(
        "a frame of {width}x{height} pixels cannot be {format:?}, whose chroma is shared by neighbours; \
         pass the even size of the whole buffer and cut with a region of interest"
    )]
    Odd {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
        /// Pixel format.
        format: PixelFormat,
    },
    /// The planes of an NV12 frame overlap.
    #[error(
        "the chroma plane begins at byte {offset}, inside the luma plane of {luma} bytes; \
         pass the offset in bytes from the first byte of luma"
    )]
    ChromaPlane {
        /// First byte of chroma.
        offset: usize,
        /// Bytes of the luma plane.
        luma: usize,
    },
    /// A chroma plane for a format that has none.
    #[error("{format:?} has no chroma plane; leave its offset and stride at 0")]
    NoChromaPlane {
        /// Pixel format.
        format: PixelFormat,
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
