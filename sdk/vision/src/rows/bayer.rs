//! Bilinear demosaicking: a missing colour is the mean of its nearest samples, rounded half up.
//!
//! At a red or blue pixel green is the mean of the four neighbours beside it and the other colour that of the four diagonal ones; at a
//! green pixel each colour is the mean of the two neighbours that have it. Beyond the border the frame is mirrored at its outermost
//! pixels, which keeps the pattern. Neighbours outside a region of interest count, since they are real.

use crate::frame::{Frame, Roi};
use crate::simd::{Loop, dispatch};

/// Three rows of a window with a column more on each side.
#[derive(Default)]
pub(super) struct Neighbours {
    above: Vec<u8>,
    here: Vec<u8>,
    below: Vec<u8>,
}

impl Neighbours {
    /// Row `y` of the frame as red, green and blue planes; `red` are the parities of column and row of red pixels.
    pub(super) fn fill(
        &mut self,
        frame: &Frame,
        window: Roi,
        y: u32,
        red: [u32; 2],
        out: &mut [u8],
    ) {
        let rows = [
            (&mut self.above, mirrored(i64::from(y) - 1, frame.height())),
            (&mut self.here, y),
            (&mut self.below, mirrored(i64::from(y) + 1, frame.height())),
        ];
        for (copy, y) in rows {
            widen(copy, super::row(frame, y), window);
        }
        let (r, rest) = out.split_at_mut(window.width as usize);
        let (green, b) = rest.split_at_mut(window.width as usize);
        let red_row = y % 2 == red[1];
        let (own, other) = if red_row { (r, b) } else { (b, r) };
        let own_column = if red_row { red[0] } else { 1 - red[0] };
        dispatch(Demosaic {
            above: &self.above,
            here: &self.here,
            below: &self.below,
            first_is_own: window.x % 2 == own_column,
            own,
            green,
            other,
        });
    }
}

/// The row's pixels in the window's columns and one more on each side.
fn widen(copy: &mut Vec<u8>, row: &[u8], window: Roi) {
    let (start, end) = (window.x as usize, (window.x + window.width) as usize);
    let width = row.len() as u32;
    copy.clear();
    copy.push(row[mirrored(i64::from(window.x) - 1, width) as usize]);
    copy.extend_from_slice(&row[start..end]);
    copy.push(row[mirrored(end as i64, width) as usize]);
}

/// `i` in `-1..=size`, mirrored at the outermost pixels; a single pixel is its own mirror image.
fn mirrored(i: i64, size: u32) -> u32 {
    let last = i64::from(size) - 1;
    let inside = if i < 0 { -i } else { i };
    let inside = if inside > last {
        2 * last - inside
    } else {
        inside
    };
    inside.max(0) as u32
}

/// One row of red (or blue) and green pixels: `own` is the colour that it has, `other` the one that it lacks.
struct Demosaic<'a> {
    above: &'a [u8],
    here: &'a [u8],
    below: &'a [u8],
    first_is_own: bool,
    own: &'a mut [u8],
    green: &'a mut [u8],
    other: &'a mut [u8],
}

impl Loop for Demosaic<'_> {
    #[inline(always)]
    fn run(self) {
        let n = self.own.len();
        let (green, other) = (&mut self.green[..n], &mut self.other[..n]);
        let (nw, north, ne) = thirds(self.above, n);
        let (west, centre, east) = thirds(self.here, n);
        let (sw, south, se) = thirds(self.below, n);
        let own_parity = usize::from(!self.first_is_own);
        for (i, own) in self.own.iter_mut().enumerate() {
            let cross = mean4(north[i], south[i], west[i], east[i]);
            let diagonal = mean4(nw[i], ne[i], sw[i], se[i]);
            let beside = mean2(west[i], east[i]);
            let upright = mean2(north[i], south[i]);
            let has_own = i % 2 == own_parity;
            *own = if has_own { centre[i] } else { beside };
            green[i] = if has_own { cross } else { centre[i] };
            other[i] = if has_own { diagonal } else { upright };
        }
    }
}

#[inline(always)]
fn thirds(row: &[u8], n: usize) -> (&[u8], &[u8], &[u8]) {
    (&row[..n], &row[1..n + 1], &row[2..n + 2])
}

#[inline(always)]
fn mean2(a: u8, b: u8) -> u8 {
    (u16::from(a) + u16::from(b)).div_ceil(2) as u8
}

#[inline(always)]
fn mean4(a: u8, b: u8, c: u8, d: u8) -> u8 {
    ((u16::from(a) + u16::from(b) + u16::from(c) + u16::from(d) + 2) / 4) as u8
}
