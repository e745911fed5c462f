//! How factors lie when they are packed for the kernels: in words of 32 bits, in blocks of [`DEPTH`] words along K.

use std::ops::Range;

use rayon::prelude::*;

use super::Matrix;
use super::left::round;
use crate::compute::Precision;
use crate::kernels::{Isa, Kernels, Pairs, transpose};
use crate::ops::scratch::{Scratch, scratch};

/// Words along K between two visits of the result: a panel of B is then 64 KiB at most.
pub(super) const DEPTH: usize = 512;

/// Distance between packed rows of A.
pub(super) const STRIDE: usize = DEPTH + 16;

/// Words of B that are packed before they are used: 4 MiB, so that they are still in the last-level cache then.
const PACKED: usize = 1 << 20;

/// Words of a cache line.
const LINE: usize = 16;

/// Words along K that are joined before they are turned: those of a task's rows stay in a first-level cache.
const CHUNK: usize = 32;

/// What a word is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Packing {
    /// A value.
    Whole,
    /// A value rounded to bf16, on CPUs that do not multiply pairs.
    Rounded,
    /// Two neighbours along K in bf16.
    Paired(Pairs),
}

impl Packing {
    /// What this CPU does fastest.
    pub(super) fn of(precision: Precision) -> Self {
        match precision {
            Precision::Bf16 => Pairs::detect().map_or(Self::Rounded, Self::Paired),
            Precision::F32 | Precision::F16 => Self::Whole,
        }
    }

    pub(super) fn kernels(self) -> Kernels {
        match self {
            Self::Whole | Self::Rounded => Kernels::of(Isa::detect()),
            Self::Paired(pairs) => pairs.kernels(),
        }
    }

    /// Values in a word.
    fn values(self) -> usize {
        match self {
            Self::Whole | Self::Rounded => 1,
            Self::Paired(_) => 2,
        }
    }

    /// Words `k..k + depth` of rows `first..first + count` of A, row-major, [`STRIDE`] apart.
    pub(super) fn rows(self, to: &mut [f32], a: &Matrix, rows: [usize; 2], [k, depth]: [usize; 2]) {
        match self {
            Self::Whole => a.put_rows(to, rows, [k, depth]),
            Self::Rounded => {
                a.put_rows(&mut *to, rows, [k, depth]);
                let packed = to.chunks_exact_mut(STRIDE).take(rows[1]);
                packed.for_each(|row| round(&mut row[..depth]));
            }
            Self::Paired(pairs) => {
                let values = 2 * k..(2 * (k + depth)).min(a.columns);
                a.put_rows_in_pairs(pairs, to, rows, values);
            }
        }
    }

    /// Words `k..` of as many as fill `to [depth, columns]`, of a panel's columns of B; zeros where there is none.
    fn panel(self, to: (&mut [f32], usize), b: &Matrix, panel: usize, k: usize) {
        match self {
            Self::Whole => b.put_panel(to, panel, k),
            Self::Rounded => {
                b.put_panel((&mut *to.0, to.1), panel, k);
                round(to.0);
            }
            Self::Paired(pairs) => b.put_panel_in_pairs(pairs, to, panel, 2 * k),
        }
    }
}

impl Matrix<'_> {
    /// Columns `k..k + depth` of rows `first..first + count` of a matrix that is not transposed, [`STRIDE`] apart.
    fn put_rows(&self, to: &mut [f32], [first, count]: [usize; 2], [k, depth]: [usize; 2]) {
        debug_assert!(!self.transposed);
        for (row, to) in to.chunks_exact_mut(STRIDE).take(count).enumerate() {
            let from = &self.data[(first + row) * self.stride + k..][..depth];
            to[..depth].copy_from_slice(from);
        }
    }

    /// Rows `k..` of as many as fill `to [depth, columns]`, of the panel's columns; zeros where there is none.
    fn put_panel(&self, (to, columns): (&mut [f32], usize), panel: usize, k: usize) {
        let depth = to.len() / columns;
        let first = panel * columns;
        let width = columns.min(self.columns - first);
        if width < columns {
            to.fill(0.0);
        }
        if self.transposed {
            let from = &self.data[first * self.stride + k..];
            return transpose((to, columns), (from, self.stride), [width, depth]);
        }
        let rows = (k..k + depth).map(|k| &self.data[k * self.stride + first..]);
        match width {
            32 if columns == 32 => copy_rows::<32>(to, rows),
            16 if columns == 16 => copy_rows::<16>(to, rows),
            _ => {
                for (to, from) in to.chunks_exact_mut(columns).zip(rows) {
                    to[..width].copy_from_slice(&from[..width]);
                }
            }
        }
    }

    /// Columns `values` of rows `first..first + count` in pairs, [`STRIDE`] apart.
    fn put_rows_in_pairs(
        &self,
        pairs: Pairs,
        to: &mut [f32],
        [first, count]: [usize; 2],
        values: Range<usize>,
    ) {
        if !self.transposed {
            for (row, to) in to.chunks_exact_mut(STRIDE).take(count).enumerate() {
                let from = &self.data[(first + row) * self.stride..][values.clone()];
                pairs.along(&mut to[..from.len().div_ceil(2)], from);
            }
            return;
        }
        let mut joined = scratch(CHUNK * count);
        for (chunk, k) in values.clone().step_by(2 * CHUNK).enumerate() {
            let ks = k..(k + 2 * CHUNK).min(values.end);
            for (k, words) in ks.clone().step_by(2).zip(joined.chunks_exact_mut(count)) {
                let row = |k: usize| &self.data[k * self.stride + first..][..count];
                pairs.across(words, row(k), (k + 1 < ks.end).then(|| row(k + 1)));
            }
            let to = &mut to[chunk * CHUNK..];
            transpose(
                (to, STRIDE),
                (&joined, count),
                [ks.len().div_ceil(2), count],
            );
        }
    }

    /// Rows `first..` in pairs, of as many as fill `to [depth, columns]`, of the panel's columns; zeros where there is none.
    fn put_panel_in_pairs(
        &self,
        pairs: Pairs,
        (to, columns): (&mut [f32], usize),
        panel: usize,
        first: usize,
    ) {
        let column = panel * columns;
        let width = columns.min(self.columns - column);
        if width < columns {
            to.fill(0.0);
        }
        if !self.transposed {
            for (to, k) in to.chunks_exact_mut(columns).zip((first..).step_by(2)) {
                let row = |k: usize| &self.data[k * self.stride + column..][..width];
                pairs.across(
                    &mut to[..width],
                    row(k),
                    (k + 1 < self.rows).then(|| row(k + 1)),
                );
            }
            return;
        }
        let mut joined = [0.0; CHUNK * Kernels::MOST_COLUMNS];
        for (to, k) in to
            .chunks_mut(CHUNK * columns)
            .zip((first..).step_by(2 * CHUNK))
        {
            let ks = k..(k + 2 * to.len() / columns).min(self.rows);
            let words = ks.len().div_ceil(2);
            for (row, joined) in joined.chunks_exact_mut(words).take(width).enumerate() {
                let from = &self.data[(column + row) * self.stride..][ks.clone()];
                pairs.along(joined, from);
            }
            transpose((to, columns), (&joined, words), [width, words]);
        }
    }
}

/// Whole rows of a panel of N columns, from where each begins.
fn copy_rows<'a, const N: usize>(to: &mut [f32], rows: impl Iterator<Item = &'a [f32]>) {
    for (to, from) in to.as_chunks_mut::<N>().0.iter_mut().zip(rows) {
        to.copy_from_slice(&from[..N]);
    }
}

/// `[block][panel][depth][columns]` of some words of B, on cache lines: blocks of [`DEPTH`], as many as stay in the last-level cache until they are used.
pub(super) struct Panels {
    pub(super) packing: Packing,
    pub(super) kernels: Kernels,
    memory: Scratch,
    start: usize,
    /// Panels of a block.
    pub(super) count: usize,
    /// Words along K, of all of B.
    all: usize,
    /// Those for which there is room.
    room: usize,
    /// Those that are packed.
    packed: Range<usize>,
}

impl Panels {
    /// Room for whole blocks of about [`PACKED`] words, or for all of `b`.
    pub(super) fn new(b: &Matrix, packing: Packing) -> Self {
        Self::with_room(b, packing, PACKED)
    }

    /// Room for all of `b`.
    pub(super) fn whole(b: &Matrix, packing: Packing) -> Self {
        Self::with_room(b, packing, usize::MAX)
    }

    fn with_room(b: &Matrix, packing: Packing, words: usize) -> Self {
        let kernels = packing.kernels();
        let count = b.columns.div_ceil(kernels.columns);
        let padded = count * kernels.columns;
        let all = b.rows.div_ceil(packing.values());
        let blocks = words / (DEPTH * padded).max(1);
        let room = blocks.max(1).saturating_mul(DEPTH).min(all);
        let memory = scratch(room * padded + LINE);
        // A pointer to f32 can always be aligned so.
        let start = memory.as_ptr().align_offset(LINE * size_of::<f32>());
        Self {
            packing,
            kernels,
            memory,
            start,
            count,
            all,
            room,
            packed: 0..0,
        }
    }

    /// Where what is packed at once begins.
    pub(super) fn groups(&self) -> impl Iterator<Item = usize> + use<> {
        (0..self.all).step_by(self.room)
    }

    /// Packs as many words of B from `first` on as there is room for, on the threads of the pool or on this one.
    pub(super) fn pack(&mut self, b: &Matrix, first: usize, parallel: bool) {
        self.packed = first..(first + self.room).min(self.all);
        let (count, packing, columns) = (self.count, self.packing, self.kernels.columns);
        let words = &mut self.memory[self.start..][..self.packed.len() * count * columns];
        for (block, words) in words.chunks_mut(DEPTH * count * columns).enumerate() {
            let (k, len) = (first + block * DEPTH, words.len() / count);
            let put = |(panel, to): (usize, &mut [f32])| packing.panel((to, columns), b, panel, k);
            if parallel {
                let panels = words.par_chunks_exact_mut(len).enumerate();
                panels.with_max_len(4).for_each(put);
            } else {
                words.chunks_exact_mut(len).enumerate().for_each(put);
            }
        }
    }

    /// Where the packed blocks begin, and how many words each has.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let end = self.packed.end;
        let first = self.packed.clone().step_by(DEPTH);
        first.map(move |k| (k, DEPTH.min(end - k)))
    }

    /// One panel of the block that begins at `k`.
    pub(super) fn panel(&self, (k, depth): (usize, usize), panel: usize) -> &[f32] {
        let before = (k - self.packed.start) * self.count + panel * depth;
        let columns = self.kernels.columns;
        &self.memory[self.start + before * columns..][..depth * columns]
    }
}
