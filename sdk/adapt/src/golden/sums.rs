//! Sums over golden parts, from which each can be left out.

use super::{Golden, Plane};
use crate::linalg::Matrix;

/// Sums over golden parts at each position, from which a part can be taken out again.
#[derive(Clone)]
pub(super) struct Sums {
    pub(super) sum: Matrix<f64>,
    pub(super) squares: Matrix<f64>,
    pub(super) counts: Vec<usize>,
}

/// Sums over all parts after each was moved onto the first, and the shifts.
pub(super) fn gather(golden: &Golden, parts: &[Plane]) -> (Sums, Vec<[isize; 2]>) {
    let n = golden.size[0] * golden.size[1];
    let mut sums = Sums {
        sum: Matrix::zeros(n, golden.dim),
        squares: Matrix::zeros(n, golden.dim),
        counts: vec![0; n],
    };
    let shifts = parts.iter().map(|part| {
        let (shift, _) = golden.register(&parts[0], part);
        sums.put(golden, part, shift);
        shift
    });
    let shifts = shifts.collect();
    (sums, shifts)
}

impl Sums {
    fn put(&mut self, golden: &Golden, part: &Plane, shift: [isize; 2]) {
        self.change(golden, part, shift, 1.0, |count| count + 1);
    }

    /// Takes out what was put in with the same shift.
    pub(super) fn take(&mut self, golden: &Golden, part: &Plane, shift: [isize; 2]) {
        self.change(golden, part, shift, -1.0, |count| count - 1);
    }

    fn change(
        &mut self,
        golden: &Golden,
        part: &Plane,
        shift: [isize; 2],
        sign: f64,
        counted: impl Fn(usize) -> usize,
    ) {
        for (at, other) in golden.moved(shift).enumerate() {
            let Some(other) = other.filter(|&other| part.keep[other]) else {
                continue;
            };
            self.counts[at] = counted(self.counts[at]);
            for (j, x) in part.tokens.row(other).iter().enumerate() {
                self.sum.row_mut(at)[j] += sign * f64::from(*x);
                self.squares.row_mut(at)[j] += sign * f64::from(*x).powi(2);
            }
        }
    }
}
