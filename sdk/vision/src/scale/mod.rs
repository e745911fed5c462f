//! One pass from the rows of a frame to a resampled, normalised tensor: a row is decoded when it is needed, added to the output rows
//! that see it, and forgotten. No image of the frame's size is ever stored, and no sample is rounded to 8 or 16 bit on the way.

mod axis;
mod integer;
mod kernels;

use std::cell::RefCell;

use crate::format::Layout;
use crate::frame::{Frame, Roi};
use crate::rows::{Arrangement, Buffers, Narrow, Wide};
use crate::simd::dispatch;
use axis::{Axis, Weights};
use kernels::{Across, Column, Sample, TALL, Turn};

/// What is done to the codes of a channel, scaled to 0..=1.
#[derive(Clone, Copy)]
pub(crate) struct Affine {
    pub(crate) scale: f64,
    pub(crate) shift: f64,
}

/// Buffers that one thread uses again for every frame.
#[derive(Default)]
struct Scratch {
    columns: Axis,
    rows: Axis,
    buffers: Buffers,
    narrow: Band<u8>,
    wide: Band<u16>,
    sums: Sums,
}

/// Output rows before and while they are resampled across.
#[derive(Default)]
struct Sums {
    lines: Vec<f32>,
    columns: Vec<Column>,
    across: Vec<Column>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Resamples `window`, which must lie inside `frame`, as if cut out first, to `[3, height, width]`; grey fills all three.
///
/// `affine` is applied to codes scaled to 0..=1.
pub(crate) fn resample(
    frame: &Frame,
    window: Roi,
    (width, height): (u32, u32),
    affine: [Affine; 3],
    out: &mut [f32],
) {
    SCRATCH.with(|scratch| {
        let scratch = &mut *scratch.borrow_mut();
        scratch.columns.set(window.width, width);
        scratch.rows.set(window.height, height);
        let mut target = Target {
            window,
            arrangement: Arrangement::of(frame),
            columns: &scratch.columns,
            sums: &mut scratch.sums,
            affine,
            out,
        };
        if frame.format().is_wide() {
            let mut source = Wide::new(frame, window);
            let fill = |y, row: &mut [u16]| source.fill(y, row);
            scratch.wide.run(&scratch.rows, &mut target, fill);
        } else if let Layout::Interleaved { samples, .. } = frame.format().layout() {
            let start = window.y as usize * frame.stride() + window.x as usize * samples;
            target.run(&scratch.rows, &frame.data()[start..], frame.stride());
        } else {
            let mut source = Narrow::new(frame, window, &mut scratch.buffers);
            let fill = |y, row: &mut [u8]| source.fill(y, row);
            scratch.narrow.run(&scratch.rows, &mut target, fill);
        }
    });
}

/// Where output rows go, and how.
struct Target<'a> {
    window: Roi,
    arrangement: Arrangement,
    columns: &'a Axis,
    sums: &'a mut Sums,
    affine: [Affine; 3],
    out: &'a mut [f32],
}

impl Target<'_> {
    /// All output rows from samples that can be read where they are.
    fn run<T: Sample>(&mut self, rows: &Axis, data: &[T], pitch: usize) {
        for (y, (start, weights)) in rows.windows().enumerate() {
            self.row(y, &data[start as usize * pitch..], pitch, weights);
        }
    }

    /// Output row `y` from the rows that it sees; they must come in order.
    fn row<T: Sample>(&mut self, y: usize, rows: &[T], pitch: usize, weights: Weights) {
        let samples = self.arrangement.row_len(self.window.width);
        self.sums.lines.resize(TALL * samples, 0.0);
        let line = y % TALL * samples..(y % TALL + 1) * samples;
        T::down(rows, pitch, weights, &mut self.sums.lines[line]);
        let height = self.out.len() / 3 / self.columns.len();
        if y % TALL == TALL - 1 || y == height - 1 {
            self.finish::<T>(y / TALL * TALL, y + 1, samples);
        }
    }

    /// Resamples output rows `top..bottom` across and writes them.
    fn finish<T: Sample>(&mut self, top: usize, bottom: usize, samples: usize) {
        let (width, plane_len) = (self.columns.len(), self.out.len() / 3);
        let Sums {
            lines,
            columns,
            across,
        } = &mut *self.sums;
        columns.resize(samples, [0.0; TALL]);
        across.resize(width, [0.0; TALL]);
        dispatch(Turn { lines, columns });
        let (step, firsts) = match self.arrangement {
            Arrangement::Interleaved { samples, order } => (samples, order),
            Arrangement::Planar => (1, [0, 1, 2].map(|c| c * self.window.width as usize)),
        };
        let planes = self.out.chunks_exact_mut(plane_len);
        for (c, (plane, affine)) in planes.zip(self.affine).enumerate() {
            // Grey fills all channels with the same sums.
            if c == 0 || firsts[c] != firsts[c - 1] {
                dispatch(Across {
                    columns: &columns[firsts[c]..],
                    step,
                    axis: self.columns,
                    max: T::MAX,
                    out: across,
                });
            }
            let scale = (affine.scale / f64::from(T::MAX)) as f32;
            let shift = affine.shift as f32;
            for (row, y) in (top..bottom).enumerate() {
                let out = &mut plane[y * width..(y + 1) * width];
                for (out, sums) in out.iter_mut().zip(across.iter()) {
                    *out = sums[row] * scale + shift;
                }
            }
        }
    }
}

/// The decoded rows that the next output rows see, one after another.
#[derive(Default)]
struct Band<T> {
    samples: Vec<T>,
}

impl<T: Sample> Band<T> {
    /// All output rows from rows that `fill` decodes, each of them once and in order.
    fn run(&mut self, rows: &Axis, target: &mut Target, mut fill: impl FnMut(u32, &mut [T])) {
        let pitch = target.arrangement.row_len(target.window.width);
        let taps = rows.taps();
        let capacity = (2 * taps).min(target.window.height as usize);
        self.samples.resize(capacity * pitch, T::default());
        // Rows `first..next` of the window are stored from slot `base` on.
        let (mut first, mut next, mut base) = (0, 0, 0);
        for (y, (start, weights)) in rows.windows().enumerate() {
            let start = start as usize;
            let kept = start.min(next);
            base += kept - first;
            if start >= next {
                (base, next) = (0, start);
            } else if base + taps > capacity {
                let slots = base * pitch..(base + next - start) * pitch;
                self.samples.copy_within(slots, 0);
                base = 0;
            }
            first = start;
            while next < start + taps {
                let slot = (base + next - first) * pitch;
                fill(next as u32, &mut self.samples[slot..slot + pitch]);
                next += 1;
            }
            target.row(y, &self.samples[base * pitch..], pitch, weights);
        }
    }
}
