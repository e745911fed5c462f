//! The caller's frame: strided rows that are read where they are.

use crate::guard::guard;
use crate::pointer::{Sized32, init_struct, read_struct, slice};
use crate::status::{Failure, ssl_edge_status};
use sdk::vision::{Frame, PixelFormat, Roi};
use std::ffi::c_void;
use std::mem::offset_of;
use std::ptr;

/// Layout of a pixel; the value of ssl_edge_frame.format.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ssl_edge_pixel_format {
    /// One grey sample of 8 bits.
    Gray8 = 1,
    /// One grey sample of 16 bits in the machine's byte order, full range 0 to 65535.
    Gray16 = 2,
    /// Red, green, blue, 8 bits each.
    Rgb8 = 3,
    /// Blue, green, red, 8 bits each, as in OpenCV.
    Bgr8 = 4,
    /// Red, green, blue, alpha, 8 bits each; alpha is ignored.
    Rgba8 = 5,
    /// Red, green, blue, 16 bits each in the machine's byte order.
    Rgb16 = 6,
}

/// A view of the caller's pixels. The library reads them during the call only and keeps no pointer.
///
/// Fill it with ssl_edge_frame_init, then set format, data, data_size, stride, width and height.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ssl_edge_frame {
    /// Size of this struct in bytes; set by ssl_edge_frame_init.
    pub struct_size: u32,
    /// A value of ssl_edge_pixel_format.
    pub format: u32,
    /// First byte of the top row.
    pub data: *const c_void,
    /// Bytes that may be read from data on: at least stride * (height - 1) and one row.
    pub data_size: usize,
    /// Bytes (not pixels) from one row to the next.
    pub stride: usize,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Left column of the region of interest.
    pub roi_x: u32,
    /// Top row of the region of interest.
    pub roi_y: u32,
    /// Columns of the region of interest; all four roi fields 0 (as after init) means the whole frame.
    pub roi_width: u32,
    /// Rows of the region of interest.
    pub roi_height: u32,
}

// SAFETY: repr(C), struct_size first, no padding (two u32, three words, six u32 on 32 and 64 bit), integers and a raw pointer.
unsafe impl Sized32 for ssl_edge_frame {
    const NAME: &'static str = "ssl_edge_frame";
    const FIRST_SIZE: usize = offset_of!(ssl_edge_frame, roi_height) + size_of::<u32>();

    fn defaults() -> Self {
        Self {
            struct_size: size_of::<Self>() as u32,
            format: 0,
            data: ptr::null(),
            data_size: 0,
            stride: 0,
            width: 0,
            height: 0,
            roi_x: 0,
            roi_y: 0,
            roi_width: 0,
            roi_height: 0,
        }
    }
}

impl ssl_edge_frame {
    fn pixel_format(&self) -> Result<PixelFormat, Failure> {
        const FORMATS: [(ssl_edge_pixel_format, PixelFormat); 6] = [
            (ssl_edge_pixel_format::Gray8, PixelFormat::Gray8),
            (ssl_edge_pixel_format::Gray16, PixelFormat::Gray16),
            (ssl_edge_pixel_format::Rgb8, PixelFormat::Rgb8),
            (ssl_edge_pixel_format::Bgr8, PixelFormat::Bgr8),
            (ssl_edge_pixel_format::Rgba8, PixelFormat::Rgba8),
            (ssl_edge_pixel_format::Rgb16, PixelFormat::Rgb16),
        ];
        let found = FORMATS
            .iter()
            .find(|(c, _)| *c as u32 == self.format)
            .map(|(_, format)| *format);
        found.ok_or_else(|| {
            let text = format!(
                "frame.format is {}; set it to a value of ssl_edge_pixel_format",
                self.format
            );
            Failure::new(ssl_edge_status::InvalidFrame, text)
        })
    }

    fn roi(&self) -> Option<Roi> {
        let roi = Roi {
            x: self.roi_x,
            y: self.roi_y,
            width: self.roi_width,
            height: self.roi_height,
        };
        (roi != Roi {
            x: 0,
            y: 0,
            width: 0,
            height: 0,
        })
        .then_some(roi)
    }
}

/// Borrows the caller's frame.
///
/// # Safety
/// If it is not NULL, `frame` points to as many bytes as its `struct_size` says, and its `data` to `data_size` bytes; nobody changes
/// them during `'a`.
pub(crate) unsafe fn borrow<'a>(frame: *const ssl_edge_frame) -> Result<Frame<'a>, Failure> {
    // SAFETY: the same contract.
    let view = unsafe { read_struct(frame) }?;
    let format = view.pixel_format()?;
    // SAFETY: the same contract.
    let data: &'a [u8] = unsafe { slice(view.data.cast::<u8>(), view.data_size, "frame.data") }?;
    let frame = Frame::new(
        data,
        view.stride,
        view.width,
        view.height,
        format,
        view.roi(),
    );
    frame.map_err(|error| Failure::new(ssl_edge_status::InvalidFrame, error.to_string()))
}

/// Fills a frame with defaults: no data, no format, the whole frame as region of interest.
///
/// @param frame        the struct to fill
/// @param struct_size  sizeof(ssl_edge_frame)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_frame_init(
    frame: *mut ssl_edge_frame,
    struct_size: usize,
) -> ssl_edge_status {
    // SAFETY: the caller passes NULL or a struct of `struct_size` bytes.
    guard(|| unsafe { init_struct(frame, struct_size) })
}
