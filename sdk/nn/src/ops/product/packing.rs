//! How factors lie when they are packed for the kernels: in words of 32 bits, in blocks of [`DEPTH`] words along K.

use std::ops::Range;

use rayon::prelude::*;

use super::Matrix;
use crate::compute::Precision;
use crate::kernels::{COLUMNS, Isa, Kernels, Pairs, transpose};
use crate::ops::scratch::{Scratch, scratch};
use crate::ops::simd::vectorised;

/// Words along K between two visits of the result: a panel of B is then 64 KiB.
pub(super) const DEPTH: usize = 512;

/// Distance between packed rows of A.
pub(super) const STRIDE: usize = DEPTH + 16;

/// Rows that are multiples of so many values apart (4 KiB) share one set of a first-level cache, which holds eight of them.
pub(super) const SAME_SET: usize = 1024;

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

    /// Whether a row of values is read where it is.
    pub(super) fn in_place(self, a: &Matrix) -> bool {
        matches!(self, Self::Whole) && !a.transposed && !a.stride.is_multiple_of(SAME_SET)
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
            Self::Whole => a.put_rows((to, STRIDE), rows, [k, depth]),
            Self::Rounded => {
                a.put_rows((&mut *to, STRIDE), rows, [k, depth]);
                let packed = to.chunks_exact_mut(STRIDE).take(rows[1]);
                packed.for_each(|row| round(&mut row[..depth]));
            }
            Self::Paired(pairs) => {
                let values = 2 * k..(2 * (k + depth)).min(a.columns);
                a.put_rows_in_pairs(pairs, to, rows, values);
            }
        }
    }

    /// Words `k..` of as many as fill `to [depth, 32]`, of a panel's columns of B; zeros where there is none.
    fn panel(self, to: &mut [f32], b: &Matrix, panel: usize, k: usize) {
        match self {
            Self::Whole => b.put_panel(to, panel, k),
            Self::Rounded => {
                b.put_panel(to, panel, k);
                round(to);
            }
            Self::Paired(pairs) => b.put_panel_in_pairs(pairs, to, panel, 2 * k),
        }
    }
}

impl Matrix<'_> {
    /// Columns `k..k + depth` of rows `first..first + count`, row-major, at a stride.
    fn put_rows(
        &self,
        (to, stride): (&mut [f32], usize),
        [first, count]: [usize; 2],
        [k, depth]: [usize; 2],
    ) {
        if self.transposed {
            let from = &self.data[k * self.stride + first..];
            return transpose((to, stride), (from, self.stride), [depth, count]);
        }
        for (row, to) in to.chunks_exact_mut(stride).take(count).enumerate() {
            let from = &self.data[(first + row) * self.stride + k..][..depth];
            to[..depth].copy_from_slice(from);
        }
    }

    /// Rows `k..` of as many as fill `to [depth, 32]`, of the panel's columns; zeros where there is none.
    fn put_panel(&self, to: &mut [f32], panel: usize, k: usize) {
        let depth = to.len() / COLUMNS;
        let first = panel * COLUMNS;
        let width = COLUMNS.min(self.columns - first);
        if width < COLUMNS {
            to.fill(0.0);
        }
        if self.transposed {
            let from = &self.data[first * self.stride + k..];
            return transpose((to, COLUMNS), (from, self.stride), [width, depth]);
        }
        let (rows, _) = to.as_chunks_mut::<COLUMNS>();
        for (row, to) in rows.iter_mut().enumerate() {
            let from = &self.data[(k + row) * self.stride + first..];
            match from.first_chunk::<COLUMNS>() {
                Some(whole) if width == COLUMNS => *to = *whole,
                _ => to[..width].copy_from_slice(&from[..width]),
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

    /// Rows `first..` in pairs, of as many as fill `to [depth, 32]`, of the panel's columns; zeros where there is none.
    fn put_panel_in_pairs(&self, pairs: Pairs, to: &mut [f32], panel: usize, first: usize) {
        let column = panel * COLUMNS;
        let width = COLUMNS.min(self.columns - column);
        if width < COLUMNS {
            to.fill(0.0);
        }
        if !self.transposed {
            for (to, k) in to.chunks_exact_mut(COLUMNS).zip((first..).step_by(2)) {
                let row = |k: usize| &self.data[k * self.stride + column..][..width];
                pairs.across(
                    &mut to[..width],
                    row(k),
                    (k + 1 < self.rows).then(|| row(k + 1)),
                );
            }
            return;
        }
        let mut joined = [0.0; CHUNK * COLUMNS];
        for (to, k) in to
            .chunks_mut(CHUNK * COLUMNS)
            .zip((first..).step_by(2 * CHUNK))
        {
            let ks = k..(k + 2 * to.len() / COLUMNS).min(self.rows);
            let words = ks.len().div_ceil(2);
            for (row, joined) in joined.chunks_exact_mut(words).take(width).enumerate() {
                let from = &self.data[(column + row) * self.stride..][ks.clone()];
                pairs.along(joined, from);
            }
            transpose((to, COLUMNS), (&joined, words), [width, words]);
        }
    }
}

vectorised! {
    /// Values to the nearest ones of bf16, of two as near to the one that ends in a zero bit.
    fn round(values: &mut [f32]) {
        for value in values {
            let bits = value.to_bits();
            let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
            // of NaN the rounding could carry into the sign
            *value = if value.is_nan() { f32::NAN } else { f32::from_bits(rounded) };
        }
    }
}

/// `[block][panel][depth][32]` of some words of B, on cache lines: blocks of [`DEPTH`], as many as stay in the last-level cache until they are used.
pub(super) struct Panels {
    pub(super) packing: Packing,
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
        let count = b.columns.div_ceil(COLUMNS);
        let blocks = (PACKED / (DEPTH * count * COLUMNS)).max(1);
        let all = b.rows.div_ceil(packing.values());
        let room = (blocks * DEPTH).min(all);
        let memory = scratch(room * count * COLUMNS + LINE);
        // A pointer to f32 can always be aligned so.
        let start = memory.as_ptr().align_offset(LINE * size_of::<f32>());
        Self {
            packing,
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
        let (count, packing) = (self.count, self.packing);
        let words = &mut self.memory[self.start..][..self.packed.len() * count * COLUMNS];
        for (block, words) in words.chunks_mut(DEPTH * count * COLUMNS).enumerate() {
            let (k, len) = (first + block * DEPTH, words.len() / count);
            if parallel {
                let panels = words.par_chunks_exact_mut(len).enumerate();
                panels.for_each(|(panel, to)| packing.panel(to, b, panel, k));
            } else {
                let panels = words.chunks_exact_mut(len).enumerate();
                panels.for_each(|(panel, to)| packing.panel(to, b, panel, k));
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
        &self.memory[self.start + before * COLUMNS..][..depth * COLUMNS]
    }
}
