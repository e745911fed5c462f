//! NV12 and YUYV: luma and shared chroma to RGB in fixed point of 16 bit, less than a tenth of a code from the exact value before it is
//! rounded.
//!
//! Pixels that share a chroma sample all have that sample's chroma, as in OpenCV.

use crate::format::Yuv;
use crate::frame::{Frame, Roi};
use crate::simd::{Loop, dispatch};

/// Bits after the point of a weight, and of what is added up.
const FRACTION: u32 = 14;
const SUM_FRACTION: u32 = 5;

/// What chroma adds to luma in a row, for each pixel of a window.
#[derive(Default)]
pub(super) struct Line {
    /// Row of the chroma plane that the shares are of.
    chroma_row: Option<u32>,
    luma: Vec<u8>,
    red: Vec<i16>,
    green: Vec<i16>,
    blue: Vec<i16>,
}

impl Line {
    /// Keeps nothing of the last frame but memory.
    pub(super) fn forget(&mut self) {
        self.chroma_row = None;
    }

    /// Row `y` of an NV12 frame as red, green and blue planes.
    pub(super) fn fill_nv12(&mut self, frame: &Frame, window: Roi, y: u32, out: &mut [u8]) {
        let weights = Weights::of(frame.yuv());
        let (first, pairs) = shared(window);
        if self.chroma_row != Some(y / 2) {
            let (offset, stride) = frame.chroma_plane();
            let start = offset + (y / 2) as usize * stride + 2 * first;
            let chroma = &frame.data()[start..start + 2 * pairs];
            self.resize(pairs);
            dispatch(Shares {
                weights,
                chroma: chroma.as_chunks::<2>().0,
                red: self.red.as_chunks_mut::<2>().0,
                green: self.green.as_chunks_mut::<2>().0,
                blue: self.blue.as_chunks_mut::<2>().0,
            });
            self.chroma_row = Some(y / 2);
        }
        let start = window.x as usize;
        let luma = &super::row(frame, y)[start..start + window.width as usize];
        self.convert(weights, luma, window, out);
    }

    /// Row `y` of a YUYV frame as red, green and blue planes.
    pub(super) fn fill_yuyv(&mut self, frame: &Frame, window: Roi, y: u32, out: &mut [u8]) {
        let weights = Weights::of(frame.yuv());
        let (first, pairs) = shared(window);
        self.resize(pairs);
        let bytes = &super::row(frame, y)[4 * first..4 * (first + pairs)];
        let mut luma = std::mem::take(&mut self.luma);
        luma.resize(2 * pairs, 0);
        dispatch(Split {
            weights,
            pixels: bytes.as_chunks::<4>().0,
            luma: luma.as_chunks_mut::<2>().0,
            red: self.red.as_chunks_mut::<2>().0,
            green: self.green.as_chunks_mut::<2>().0,
            blue: self.blue.as_chunks_mut::<2>().0,
        });
        let start = window.x as usize % 2;
        let own = &luma[start..start + window.width as usize];
        self.convert(weights, own, window, out);
        self.luma = luma;
    }

    fn resize(&mut self, pairs: usize) {
        for shares in [&mut self.red, &mut self.green, &mut self.blue] {
            shares.resize(2 * pairs, 0);
        }
    }

    fn convert(&self, weights: Weights, luma: &[u8], window: Roi, out: &mut [u8]) {
        let first = window.x as usize % 2;
        let (red, rest) = out.split_at_mut(window.width as usize);
        let (green, blue) = rest.split_at_mut(window.width as usize);
        dispatch(Convert {
            luma_weight: weights.luma as i16,
            luma,
            shares: [&self.red, &self.green, &self.blue].map(|shares| &shares[first..]),
            red,
            green,
            blue,
        });
    }
}

/// First pair of pixels that share chroma in a window, and how many pairs the window touches.
fn shared(window: Roi) -> (usize, usize) {
    let (first, last) = (window.x / 2, (window.x + window.width - 1) / 2);
    (first as usize, (last - first + 1) as usize)
}

/// Fixed-point weights; the offsets of the codes and the half that rounds are in `constant`.
#[derive(Clone, Copy)]
struct Weights {
    luma: i32,
    red_cr: i32,
    green_cb: i32,
    green_cr: i32,
    blue_cb: i32,
    constant: i32,
}

impl Weights {
    fn of(yuv: Yuv) -> Self {
        let (kr, kb) = yuv.primaries();
        let kg = 1.0 - kr - kb;
        let (luma, chroma, black) = if yuv.is_limited() {
            (255.0 / 219.0, 255.0 / 224.0, 16)
        } else {
            (1.0, 1.0, 0)
        };
        let fixed = |x: f64| (x * f64::from(1 << FRACTION)).round() as i32;
        let luma = fixed(luma);
        Self {
            luma,
            red_cr: fixed(2.0 * (1.0 - kr) * chroma),
            green_cb: fixed(-2.0 * (1.0 - kb) * kb / kg * chroma),
            green_cr: fixed(-2.0 * (1.0 - kr) * kr / kg * chroma),
            blue_cb: fixed(2.0 * (1.0 - kb) * chroma),
            constant: (1 << (FRACTION - 1)) - black * luma,
        }
    }

    /// Shares of red, green and blue; with luma they stay below 2^15.
    #[inline(always)]
    fn shares(self, cb: u8, cr: u8) -> [i16; 3] {
        const DROP: u32 = FRACTION - SUM_FRACTION;
        let (cb, cr) = (i32::from(cb) - 128, i32::from(cr) - 128);
        [
            self.red_cr * cr + self.constant,
            self.green_cb * cb + self.green_cr * cr + self.constant,
            self.blue_cb * cb + self.constant,
        ]
        .map(|share| ((share + (1 << (DROP - 1))) >> DROP) as i16)
    }
}

struct Shares<'a> {
    weights: Weights,
    chroma: &'a [[u8; 2]],
    red: &'a mut [[i16; 2]],
    green: &'a mut [[i16; 2]],
    blue: &'a mut [[i16; 2]],
}

impl Loop for Shares<'_> {
    #[inline(always)]
    fn run(self) {
        let n = self.chroma.len();
        let (red, green) = (&mut self.red[..n], &mut self.green[..n]);
        let blue = &mut self.blue[..n];
        for (i, &[cb, cr]) in self.chroma.iter().enumerate() {
            let [r, g, b] = self.weights.shares(cb, cr);
            red[i] = [r, r];
            green[i] = [g, g];
            blue[i] = [b, b];
        }
    }
}

struct Split<'a> {
    weights: Weights,
    pixels: &'a [[u8; 4]],
    luma: &'a mut [[u8; 2]],
    red: &'a mut [[i16; 2]],
    green: &'a mut [[i16; 2]],
    blue: &'a mut [[i16; 2]],
}

impl Loop for Split<'_> {
    #[inline(always)]
    fn run(self) {
        let n = self.pixels.len();
        let (luma, red) = (&mut self.luma[..n], &mut self.red[..n]);
        let (green, blue) = (&mut self.green[..n], &mut self.blue[..n]);
        for (i, &[y0, cb, y1, cr]) in self.pixels.iter().enumerate() {
            let [r, g, b] = self.weights.shares(cb, cr);
            luma[i] = [y0, y1];
            red[i] = [r, r];
            green[i] = [g, g];
            blue[i] = [b, b];
        }
    }
}

struct Convert<'a> {
    /// Of 16 bit, for one instruction that gives the upper half of a product.
    luma_weight: i16,
    luma: &'a [u8],
    shares: [&'a [i16]; 3],
    red: &'a mut [u8],
    green: &'a mut [u8],
    blue: &'a mut [u8],
}

impl Loop for Convert<'_> {
    #[inline(always)]
    fn run(self) {
        let n = self.luma.len();
        let [red_shares, green_shares, blue_shares] = self.shares.map(|shares| &shares[..n]);
        let (red, green) = (&mut self.red[..n], &mut self.green[..n]);
        let blue = &mut self.blue[..n];
        let code = |sum: i16| (sum >> SUM_FRACTION).clamp(0, 255) as u8;
        for (i, &luma) in self.luma.iter().enumerate() {
            // The upper half of a product of 16 bit: 7 + 14 - 16 = 5 bits after the point.
            let luma = i32::from(i16::from(luma) << 7);
            let luma = ((luma * i32::from(self.luma_weight)) >> 16) as i16;
            red[i] = code(luma + red_shares[i]);
            green[i] = code(luma + green_shares[i]);
            blue[i] = code(luma + blue_shares[i]);
        }
    }
}
