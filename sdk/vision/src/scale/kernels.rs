//! The two passes of the resampling, in `f32` without fused operations, so that every CPU gives the same bits. Rows of 8 bit are summed
//! in integers where that is as good.

use crate::scale::axis::{Axis, Weights};
use crate::scale::integer;
use crate::simd::{Loop, dispatch};

/// A sample of 8 or 16 bit.
pub(crate) trait Sample: Copy + Default + 'static {
    /// The largest code.
    const MAX: f32;

    fn value(self) -> f32;

    /// Weighted sum of rows that lie `pitch` samples apart.
    fn down(rows: &[Self], pitch: usize, weights: Weights, out: &mut [f32]) {
        dispatch(Down {
            rows,
            pitch,
            weights: weights.exact,
            out,
        });
    }
}

impl Sample for u8 {
    const MAX: f32 = 255.0;

    #[inline(always)]
    fn value(self) -> f32 {
        f32::from(self)
    }

    fn down(rows: &[Self], pitch: usize, weights: Weights, out: &mut [f32]) {
        match weights.fixed {
            Some(fixed) => integer::down(rows, pitch, fixed, out),
            None => dispatch(Down {
                rows,
                pitch,
                weights: weights.exact,
                out,
            }),
        }
    }
}

impl Sample for u16 {
    const MAX: f32 = 65_535.0;

    #[inline(always)]
    fn value(self) -> f32 {
        f32::from(self)
    }
}

struct Down<'a, T> {
    rows: &'a [T],
    pitch: usize,
    weights: &'a [f32],
    out: &'a mut [f32],
}

/// Sums that are kept in registers, and those for what they leave of a row.
const WIDE: usize = 64;
const NARROW: usize = 16;

impl<T: Sample> Loop for Down<'_, T> {
    #[inline(always)]
    fn run(self) {
        let (wide, rest) = self.out.as_chunks_mut::<WIDE>();
        let mut at = 0;
        for out in wide {
            sum_rows(self.rows, self.pitch, at, self.weights, out);
            at += WIDE;
        }
        let (narrow, rest) = rest.as_chunks_mut::<NARROW>();
        for out in narrow {
            sum_rows(self.rows, self.pitch, at, self.weights, out);
            at += NARROW;
        }
        for out in rest {
            let mut sum = [0.0];
            sum_rows(self.rows, self.pitch, at, self.weights, &mut sum);
            *out = sum[0];
            at += 1;
        }
    }
}

#[inline(always)]
fn sum_rows<T: Sample, const N: usize>(
    rows: &[T],
    pitch: usize,
    at: usize,
    weights: &[f32],
    out: &mut [f32; N],
) {
    let mut sums = [0.0; N];
    let mut start = at;
    for &weight in weights {
        let row = &rows[start..start + N];
        for i in 0..N {
            sums[i] += row[i].value() * weight;
        }
        start += pitch;
    }
    *out = sums;
}

/// Output rows that are resampled across together: a vector holds one sample of each.
pub(crate) const TALL: usize = 8;

/// One sample of [`TALL`] rows.
pub(crate) type Column = [f32; TALL];

/// `TALL` rows side by side: from row after row to column after column.
pub(crate) struct Turn<'a> {
    pub(crate) lines: &'a [f32],
    pub(crate) columns: &'a mut [Column],
}

impl Loop for Turn<'_> {
    #[inline(always)]
    fn run(self) {
        let n = self.columns.len();
        let lines = &self.lines[..TALL * n];
        for (x, column) in self.columns.iter_mut().enumerate() {
            for (row, value) in column.iter_mut().enumerate() {
                *value = lines[row * n + x];
            }
        }
    }
}

/// Weighted sums along rows, clamped to the range of the codes.
pub(crate) struct Across<'a> {
    /// The first sample of the channel and all that follow.
    pub(crate) columns: &'a [Column],
    /// From one sample of the channel to the next.
    pub(crate) step: usize,
    pub(crate) axis: &'a Axis,
    pub(crate) max: f32,
    pub(crate) out: &'a mut [Column],
}

impl Loop for Across<'_> {
    #[inline(always)]
    fn run(self) {
        // The steps of all layouts, each a constant of its own loop.
        match self.step {
            1 => self.stepped::<1>(),
            3 => self.stepped::<3>(),
            _ => self.stepped::<4>(),
        }
    }
}

impl Across<'_> {
    #[inline(always)]
    fn stepped<const STEP: usize>(self) {
        debug_assert_eq!(STEP, self.step);
        for (out, (start, weights)) in self.out.iter_mut().zip(self.axis.exact_windows()) {
            let columns = &self.columns[start as usize * STEP..];
            let columns = &columns[..(weights.len() - 1) * STEP + 1];
            let mut sums = [0.0; TALL];
            for (column, &weight) in columns.iter().step_by(STEP).zip(weights) {
                for i in 0..TALL {
                    sums[i] += column[i] * weight;
                }
            }
            *out = sums.map(|sum| sum.clamp(0.0, self.max));
        }
    }
}
