//! Rows of the left factor as kernels read them: where they are, row by row, or in tiles of a call's height.

use super::Matrix;
use super::packing::{Packing, STRIDE};
use crate::kernels::{Cut, Kernels, strip};
use crate::ops::scratch::{Scratch, scratch};
use crate::ops::simd::vectorised;

/// Rows that are multiples of so many values apart (4 KiB) share one set of a first-level cache, which holds eight of them.
pub(super) const SAME_SET: usize = 1024;

/// Steps along K that a transposed factor may have to be read where it is: a kernel visits a line of the cache at each of them.
const FEW: usize = 128;

/// Steps along K that go from row to tile at once: the lines they come from stay in a first-level cache until all tiles have their part.
const AT_ONCE: usize = 16;

/// Some rows of A.
pub(super) struct Left<'a> {
    a: &'a Matrix<'a>,
    packing: Packing,
    first: usize,
    cuts: &'a [Cut],
    /// Rows of a tile.
    height: usize,
    place: Place,
    /// The words along K that can be read.
    loaded: [usize; 2],
}

/// Where they are.
#[derive(Debug)]
pub(super) enum Place {
    /// In A itself.
    There,
    /// Row by row, [`STRIDE`] apart.
    Rows(Scratch),
    /// `[cut][depth][height]`.
    Tiles(Scratch),
}

impl Place {
    pub(super) fn of(packing: Packing, a: &Matrix, cuts: &[Cut], height: usize) -> Self {
        let alone = !a.stride.is_multiple_of(SAME_SET);
        let rows = cuts.iter().map(|cut| cut.rows).sum::<usize>();
        match (packing, a.transposed) {
            (Packing::Whole, false) if alone => Self::There,
            (Packing::Whole, true) if alone && a.columns <= FEW => Self::There,
            (Packing::Whole | Packing::Rounded, true) => {
                Self::Tiles(scratch(cuts.len() * height * STRIDE))
            }
            _ => Self::Rows(scratch(rows * STRIDE)),
        }
    }
}

impl<'a> Left<'a> {
    /// Rows of `a` from `first` on, cut into calls of `kernels`.
    pub(super) fn new(
        packing: Packing,
        a: &'a Matrix<'a>,
        first: usize,
        cuts: &'a [Cut],
        kernels: &Kernels,
    ) -> Self {
        Self {
            a,
            packing,
            first,
            cuts,
            height: kernels.rows,
            place: Place::of(packing, a, cuts, kernels.rows),
            loaded: [0, 0],
        }
    }

    /// Makes words `k..k + depth` ready.
    pub(super) fn load(&mut self, [k, depth]: [usize; 2]) {
        self.loaded = [k, depth];
        let (first, cuts, height) = (self.first, self.cuts, self.height);
        match &mut self.place {
            Place::There => {}
            Place::Rows(packed) => {
                let count = cuts.iter().map(|cut| cut.rows).sum();
                self.packing
                    .rows(packed, self.a, [first, count], [k, depth]);
            }
            Place::Tiles(packed) => {
                let packed = &mut packed[..cuts.len() * depth * height];
                for from in (0..depth).step_by(AT_ONCE) {
                    let steps = AT_ONCE.min(depth - from);
                    for cut in cuts {
                        let to = &mut packed[(cut.index * depth + from) * height..];
                        let at = (k + from) * self.a.stride + first + cut.first;
                        let values = (&self.a.data[at..], self.a.stride);
                        strip((to, height), values, [steps, cut.rows]);
                    }
                }
                if matches!(self.packing, Packing::Rounded) {
                    round(packed);
                }
            }
        }
    }

    /// Distances between rows, and between neighbours along K.
    pub(super) fn distances(&self) -> [usize; 2] {
        match (&self.place, self.a.transposed) {
            (Place::There, false) => [self.a.stride, 1],
            (Place::There, true) => [1, self.a.stride],
            (Place::Rows(_), _) => [STRIDE, 1],
            (Place::Tiles(_), _) => [1, self.height],
        }
    }

    /// Where the rows of a call begin.
    pub(super) fn at(&self, cut: &Cut) -> *const f32 {
        let ([k, depth], row) = (self.loaded, self.first + cut.first);
        match &self.place {
            Place::There if self.a.transposed => self.a.data[k * self.a.stride + row..].as_ptr(),
            Place::There => self.a.data[row * self.a.stride + k..].as_ptr(),
            Place::Rows(packed) => packed[cut.first * STRIDE..].as_ptr(),
            Place::Tiles(packed) => packed[cut.index * depth * self.height..].as_ptr(),
        }
    }
}

vectorised! {
    /// Values to the nearest ones of bf16, of two as near to the one that ends in a zero bit.
    pub(super) fn round(values: &mut [f32]) {
        for value in values {
            let bits = value.to_bits();
            let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
            // of NaN the rounding could carry into the sign
            *value = if value.is_nan() { f32::NAN } else { f32::from_bits(rounded) };
        }
    }
}
