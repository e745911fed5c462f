//! Rows of a frame as samples, whatever its pixel format: unpacked, demosaicked, converted from luma and chroma.
//!
//! This is the only place that knows how a format is decoded; [`Frame::to_image`] and the preprocessing both read through it.

mod bayer;
mod mono;
mod yuv;

use crate::format::Layout;
use crate::frame::{Frame, Roi};

/// Where the channels of a decoded row are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrangement {
    /// So many samples a pixel, red, green and blue at these places (all three at 0 for grey).
    Interleaved { samples: usize, order: [usize; 3] },
    /// All of red, then all of green, then all of blue.
    Planar,
}

impl Arrangement {
    /// Of rows of `frame`, as [`Narrow`] and [`Wide`] fill them.
    pub(crate) fn of(frame: &Frame) -> Self {
        match frame.format().layout() {
            Layout::Interleaved { samples, order, .. } => Self::Interleaved { samples, order },
            Layout::Packed { .. } => Self::Interleaved {
                samples: 1,
                order: [0; 3],
            },
            Layout::Bayer { .. } | Layout::Nv12 | Layout::Yuyv => Self::Planar,
        }
    }

    /// Samples of a row of `width` pixels.
    pub(crate) fn row_len(self, width: u32) -> usize {
        let samples = match self {
            Self::Interleaved { samples, .. } => samples,
            Self::Planar => 3,
        };
        width as usize * samples
    }
}

/// Buffers of a conversion that are used again for every row.
#[derive(Default)]
pub(crate) struct Buffers {
    bayer: bayer::Neighbours,
    chroma: yuv::Line,
}

/// Decodes rows of 8-bit formats.
pub(crate) struct Narrow<'a, 'b> {
    frame: &'a Frame<'a>,
    window: Roi,
    buffers: &'b mut Buffers,
}

impl<'a, 'b> Narrow<'a, 'b> {
    pub(crate) fn new(frame: &'a Frame<'a>, window: Roi, buffers: &'b mut Buffers) -> Self {
        debug_assert!(!frame.format().is_wide());
        buffers.chroma.forget();
        Self {
            frame,
            window,
            buffers,
        }
    }

    /// Row `y` of the window, arranged as [`Arrangement::of`] says.
    pub(crate) fn fill(&mut self, y: u32, out: &mut [u8]) {
        let (frame, window, y) = (self.frame, self.window, self.window.y + y);
        match frame.format().layout() {
            Layout::Interleaved { samples, .. } => {
                let start = window.x as usize * samples;
                out.copy_from_slice(&row(frame, y)[start..start + out.len()]);
            }
            Layout::Bayer { red } => self.buffers.bayer.fill(frame, window, y, red, out),
            Layout::Nv12 => self.buffers.chroma.fill_nv12(frame, window, y, out),
            Layout::Yuyv => self.buffers.chroma.fill_yuyv(frame, window, y, out),
            Layout::Packed { .. } => unreachable!("packed samples are wide"),
        }
    }
}

/// Decodes rows of formats with more than 8 bit to the full range of 16 bit.
pub(crate) struct Wide<'a> {
    frame: &'a Frame<'a>,
    window: Roi,
}

impl<'a> Wide<'a> {
    pub(crate) fn new(frame: &'a Frame<'a>, window: Roi) -> Self {
        debug_assert!(frame.format().is_wide());
        Self { frame, window }
    }

    /// Row `y` of the window, arranged as [`Arrangement::of`] says.
    pub(crate) fn fill(&mut self, y: u32, out: &mut [u16]) {
        let row = row(self.frame, self.window.y + y);
        match self.frame.format().layout() {
            Layout::Packed { bits: 10 } => mono::unpack::<10>(row, self.window.x, out),
            Layout::Packed { .. } => mono::unpack::<12>(row, self.window.x, out),
            Layout::Interleaved { samples, .. } => {
                let start = 2 * samples * self.window.x as usize;
                let (pairs, _) = row[start..start + 2 * out.len()].as_chunks::<2>();
                for (out, bytes) in out.iter_mut().zip(pairs) {
                    *out = u16::from_ne_bytes(*bytes);
                }
            }
            Layout::Bayer { .. } | Layout::Nv12 | Layout::Yuyv => {
                unreachable!("these formats have 8 bit")
            }
        }
    }
}

/// The bytes of row `y` of the whole frame, of its luma plane if it has planes.
fn row<'a>(frame: &Frame<'a>, y: u32) -> &'a [u8] {
    let start = y as usize * frame.stride();
    &frame.data()[start..start + frame.format().row_bytes(frame.width())]
}
