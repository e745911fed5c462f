//! The caller's frame: strided rows that are read where they are.

use crate::guard::guard;
use crate::pointer::{Sized32, init_struct, read_struct, slice};
use crate::status::{Failure, ssl_edge_status};
use sdk::vision::{ChromaPlane, Frame, FrameError, PixelFormat, Roi, Yuv};
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
    /// Blue, green, red, alpha, 8 bits each; alpha is ignored.
    Bgra8 = 7,
    /// One grey sample of 10 bits, packed without gaps from the lowest bit on (GenICam Mono10p); a row begins at a byte.
    Mono10p = 8,
    /// One grey sample of 12 bits, packed without gaps from the lowest bit on (GenICam Mono12p); a row begins at a byte.
    Mono12p = 9,
    /// Colour filter array of 8 bits, top left red, right of it green.
    BayerRg8 = 10,
    /// Colour filter array of 8 bits, top left green, right of it red.
    BayerGr8 = 11,
    /// Colour filter array of 8 bits, top left green, right of it blue.
    BayerGb8 = 12,
    /// Colour filter array of 8 bits, top left blue, right of it green.
    BayerBg8 = 13,
    /// A plane of 8-bit luma, then one of interleaved Cb and Cr for every two by two pixels; width and height are even.
    Nv12 = 14,
    /// Luma, Cb, luma, Cr of two neighbours in four bytes (YUY2); the width is even.
    Yuyv = 15,
}

/// How luma and chroma become RGB; the value of ssl_edge_frame.yuv. Ask the camera or the decoder which it is.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ssl_edge_yuv {
    /// ITU-R BT.601, luma 16 to 235, chroma 16 to 240: the default, and what OpenCV's cvtColor means.
    Bt601Limited = 0,
    /// ITU-R BT.601, all codes 0 to 255, as in JPEG.
    Bt601Full = 1,
    /// ITU-R BT.709, luma 16 to 235, chroma 16 to 240, as in HD video.
    Bt709Limited = 2,
    /// ITU-R BT.709, all codes 0 to 255.
    Bt709Full = 3,
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
    /// A value of ssl_edge_yuv; counts for formats of luma and chroma only.
    pub yuv: u32,
    /// Zero.
    pub reserved: u32,
    /// NV12 only: bytes from data to the first row of chroma; 0 (as after init) means that chroma follows height rows of luma.
    pub chroma_offset: usize,
    /// NV12 only: bytes from one row of chroma to the next; 0 (as after init) means the stride of luma.
    pub chroma_stride: usize,
}

// SAFETY: repr(C), struct_size first, no padding (two u32, three words, eight u32, two words on 32 and 64 bit), integers and a raw
// pointer.
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
            yuv: ssl_edge_yuv::Bt601Limited as u32,
            reserved: 0,
            chroma_offset: 0,
            chroma_stride: 0,
        }
    }
}

impl ssl_edge_frame {
    fn pixel_format(&self) -> Result<PixelFormat, Failure> {
        const FORMATS: [(ssl_edge_pixel_format, PixelFormat); 15] = [
            (ssl_edge_pixel_format::Gray8, PixelFormat::Gray8),
            (ssl_edge_pixel_format::Gray16, PixelFormat::Gray16),
            (ssl_edge_pixel_format::Rgb8, PixelFormat::Rgb8),
            (ssl_edge_pixel_format::Bgr8, PixelFormat::Bgr8),
            (ssl_edge_pixel_format::Rgba8, PixelFormat::Rgba8),
            (ssl_edge_pixel_format::Rgb16, PixelFormat::Rgb16),
            (ssl_edge_pixel_format::Bgra8, PixelFormat::Bgra8),
            (ssl_edge_pixel_format::Mono10p, PixelFormat::Mono10p),
            (ssl_edge_pixel_format::Mono12p, PixelFormat::Mono12p),
            (ssl_edge_pixel_format::BayerRg8, PixelFormat::BayerRg8),
            (ssl_edge_pixel_format::BayerGr8, PixelFormat::BayerGr8),
            (ssl_edge_pixel_format::BayerGb8, PixelFormat::BayerGb8),
            (ssl_edge_pixel_format::BayerBg8, PixelFormat::BayerBg8),
            (ssl_edge_pixel_format::Nv12, PixelFormat::Nv12),
            (ssl_edge_pixel_format::Yuyv, PixelFormat::Yuyv),
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

    fn yuv(&self) -> Result<Yuv, Failure> {
        const YUVS: [(ssl_edge_yuv, Yuv); 4] = [
            (ssl_edge_yuv::Bt601Limited, Yuv::Bt601Limited),
            (ssl_edge_yuv::Bt601Full, Yuv::Bt601Full),
            (ssl_edge_yuv::Bt709Limited, Yuv::Bt709Limited),
            (ssl_edge_yuv::Bt709Full, Yuv::Bt709Full),
        ];
        let found = YUVS
            .iter()
            .find(|(c, _)| *c as u32 == self.yuv)
            .map(|(_, yuv)| *yuv);
        found.ok_or_else(|| {
            let text = format!(
                "frame.yuv is {}; set it to a value of ssl_edge_yuv",
                self.yuv
            );
            Failure::new(ssl_edge_status::InvalidFrame, text)
        })
    }

    /// Where chroma lies, if the caller says it.
    fn chroma(&self) -> Option<ChromaPlane> {
        let given = self.chroma_offset != 0 || self.chroma_stride != 0;
        given.then(|| ChromaPlane {
            offset: match self.chroma_offset {
                0 => self.stride.saturating_mul(self.height as usize),
                offset => offset,
            },
            stride: match self.chroma_stride {
                0 => self.stride,
                stride => stride,
            },
        })
    }

    fn view<'a>(&self, data: &'a [u8]) -> Result<Frame<'a>, Failure> {
        let invalid = |text: String| Failure::new(ssl_edge_status::InvalidFrame, text);
        if self.reserved != 0 {
            let text = "frame.reserved is not 0; fill the frame with ssl_edge_frame_init";
            return Err(Failure::new(ssl_edge_status::InvalidStruct, text));
        }
        let (format, yuv, roi) = (self.pixel_format()?, self.yuv()?, self.roi());
        let (width, height) = (self.width, self.height);
        let frame = match (format, self.chroma()) {
            (_, None) => Frame::new(data, self.stride, width, height, format, roi),
            (PixelFormat::Nv12, Some(chroma)) => {
                Frame::nv12(data, self.stride, width, height, chroma, roi)
            }
            (format, Some(_)) => Err(FrameError::NoChromaPlane { format }),
        };
        let frame = frame.map_err(|error| invalid(error.to_string()))?;
        Ok(frame.with_yuv(yuv))
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
    // A format that is none is reported before data that cannot be.
    view.pixel_format()?;
    // SAFETY: the same contract.
    let data: &'a [u8] = unsafe { slice(view.data.cast::<u8>(), view.data_size, "frame.data") }?;
    view.view(data)
}

/// Borrows each of the caller's `count` frames.
///
/// # Safety
/// If it is not NULL, `frames` points to `count` pointers, each as [`borrow`] asks for.
pub(crate) unsafe fn borrow_all<'a>(
    frames: *const *const ssl_edge_frame,
    count: usize,
) -> Result<Vec<Frame<'a>>, Failure> {
    // SAFETY: the same contract.
    let frames = unsafe { slice(frames, count, "frames") }?;
    let one = |(index, &frame): (usize, &*const ssl_edge_frame)| {
        // SAFETY: the same contract.
        unsafe { borrow(frame) }.map_err(|failure| {
            Failure::new(failure.status, format!("frame {index}: {}", failure.text))
        })
    };
    frames.iter().enumerate().map(one).collect()
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
