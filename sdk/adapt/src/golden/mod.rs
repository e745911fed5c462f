//! Golden compare: the token grid of a frame against those of 1 to N golden parts, position by position, after a search for a small shift.
//!
//! With one or two golden parts the difference of a token is that to the most similar golden part, `‖a - b‖² / 2` (`1 - cos` for tokens of
//! norm 1). From three on each position has a mean and a variance for each value of the token (PaDiM with a diagonal covariance), so that
//! what varies among good parts counts less.

mod file;
mod model;
mod sums;

pub use file::GoldenParts;
pub use model::{GoldenModel, GoldenReport, GoldenScore};

use crate::anomaly::{Prepare, TokenGrid, TokenMap};
use crate::error::AdaptError;
use crate::linalg::Matrix;
use serde::{Deserialize, Serialize};
use sums::{Sums, gather};

/// Golden parts from which positions have statistics.
const STATISTICS_FROM: usize = 3;
/// Observations that the variance over all positions is worth beside those of one position.
const PRIOR: f64 = 4.0;

/// Largest shift that may be searched for: the search takes time with its square.
const MOST_SHIFT: usize = 16;

/// How frames are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoldenOptions {
    /// What is done to tokens first.
    pub prepare: Prepare,
    /// Largest shift in tokens that is searched for, in each direction; at most 16.
    pub max_shift: usize,
}

impl Default for GoldenOptions {
    fn default() -> Self {
        Self {
            prepare: Prepare::default(),
            max_shift: 2,
        }
    }
}

impl GoldenOptions {
    fn check(&self) -> Result<(), AdaptError> {
        if self.max_shift > MOST_SHIFT {
            return Err(AdaptError::BadOption {
                name: "largest shift",
                value: self.max_shift.to_string(),
                range: "from 0 to 16",
            });
        }
        self.prepare.check()
    }
}

/// What golden parts look like at each position. One that was read from a file must pass [`Golden::is_whole`] before it is used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Golden {
    options: GoldenOptions,
    size: [usize; 2],
    dim: usize,
    n_parts: usize,
    known: Known,
}

/// What is kept of golden parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Known {
    Parts(Vec<Plane>),
    Statistics(Statistics),
}

/// Tokens by position.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Plane {
    tokens: Matrix<f32>,
    keep: Vec<bool>,
}

/// Of each value at each position.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Statistics {
    mean: Plane,
    /// `[rows * cols, dim]`
    variance: Matrix<f32>,
}

/// A frame beside the golden parts.
#[derive(Clone, Debug, PartialEq)]
pub struct GoldenVerdict {
    /// How different each token is; tokens without a counterpart (masked out there, or moved out of the grid by the shift) are left out.
    pub differences: TokenMap,
    /// Rows and columns by which the golden part's token lies further down and to the right than the frame's.
    pub shift: [isize; 2],
    /// The golden part that the frame is most like; `None` if all were summed up in statistics.
    pub nearest: Option<usize>,
}

impl Golden {
    /// Learns golden parts, all of one grid. From three parts on, they are first moved onto the first one.
    ///
    /// # Errors
    ///
    /// No part; parts of different grids or token lengths; an option out of range.
    pub fn fit(parts: &[TokenGrid<'_>], options: &GoldenOptions) -> Result<Self, AdaptError> {
        Ok(Learned::of(parts, options)?.golden)
    }

    /// Golden parts learned.
    pub fn len(&self) -> usize {
        self.n_parts
    }

    /// Never: there is at least one golden part.
    pub fn is_empty(&self) -> bool {
        self.n_parts == 0
    }

    /// Rows and columns of the grid.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Compares a frame.
    ///
    /// # Errors
    ///
    /// A frame of another grid or token length; a frame of which nothing can be compared.
    pub fn compare(&self, frame: &TokenGrid<'_>) -> Result<GoldenVerdict, AdaptError> {
        check(frame, self.size, self.dim)?;
        self.compare_plane(&Plane::of(frame, &self.options.prepare)?)
    }

    fn compare_plane(&self, plane: &Plane) -> Result<GoldenVerdict, AdaptError> {
        let parts = match &self.known {
            Known::Parts(parts) => parts,
            Known::Statistics(statistics) => {
                let (shift, _) = self.register(plane, &statistics.mean);
                let score = |a: usize, b: usize| statistics.deviation(plane.tokens.row(a), b);
                let scores = self.scores(plane, &statistics.mean, shift, score);
                return verdict(self.size, &scores, shift, None);
            }
        };
        let mut best = vec![None; plane.keep.len()];
        let mut nearest = (0, [0, 0], f32::INFINITY);
        for (index, part) in parts.iter().enumerate() {
            let (shift, distance) = self.register(plane, part);
            if distance < nearest.2 {
                nearest = (index, shift, distance);
            }
            let score = |a: usize, b: usize| half_squared(plane.tokens.row(a), part.tokens.row(b));
            for (best, score) in best.iter_mut().zip(self.scores(plane, part, shift, score)) {
                *best = match (*best, score) {
                    (Some(a), Some(b)) => Some(f32::min(a, b)),
                    (a, b) => a.or(b),
                };
            }
        }
        verdict(self.size, &best, nearest.1, Some(nearest.0))
    }

    /// The shift with the smallest median difference of the tokens that have a counterpart, and that median: a defect smaller than half the
    /// frame does not move it. The smallest shift among equals.
    fn register(&self, frame: &Plane, golden: &Plane) -> ([isize; 2], f32) {
        let reach = |side: usize| self.options.max_shift.min((side - 1) / 2) as isize;
        let (down, right) = (reach(self.size[0]), reach(self.size[1]));
        let mut shifts: Vec<[isize; 2]> = (-down..=down)
            .flat_map(|y| (-right..=right).map(move |x| [y, x]))
            .collect();
        shifts.sort_by_key(|[y, x]| y * y + x * x);
        let mut best = ([0, 0], f32::INFINITY);
        for shift in shifts {
            let score =
                |a: usize, b: usize| half_squared(frame.tokens.row(a), golden.tokens.row(b));
            let mut all: Vec<f32> = self
                .scores(frame, golden, shift, score)
                .into_iter()
                .flatten()
                .collect();
            if all.is_empty() {
                continue;
            }
            let middle = all.len() / 2;
            let median = *all.select_nth_unstable_by(middle, f32::total_cmp).1;
            if median < best.1 {
                best = (shift, median);
            }
        }
        best
    }

    /// `score` of each token of `frame` and its counterpart, if both are kept.
    fn scores(
        &self,
        frame: &Plane,
        golden: &Plane,
        shift: [isize; 2],
        score: impl Fn(usize, usize) -> f32,
    ) -> Vec<Option<f32>> {
        let place = |(at, other): (usize, Option<usize>)| {
            let other = other?;
            (frame.keep[at] && golden.keep[other]).then(|| score(at, other))
        };
        self.moved(shift).enumerate().map(place).collect()
    }

    /// The position that lies `shift` from each one, if it is inside the grid.
    fn moved(&self, shift: [isize; 2]) -> impl Iterator<Item = Option<usize>> {
        let [rows, cols] = self.size;
        (0..rows * cols).map(move |at| {
            let y = (at / cols).checked_add_signed(shift[0])?;
            let x = (at % cols).checked_add_signed(shift[1])?;
            (y < rows && x < cols).then_some(y * cols + x)
        })
    }

    /// Whether sizes fit together and numbers are finite, which those read from a file need not be.
    pub(crate) fn is_whole(&self) -> bool {
        let [rows, cols] = self.size;
        let Some(n) = rows.checked_mul(cols).filter(|n| *n > 0 && self.dim > 0) else {
            return false;
        };
        let is_matrix = |matrix: &Matrix<f32>| {
            let fits = (matrix.rows, matrix.cols) == (n, self.dim) && matrix.is_whole();
            fits && matrix.data.iter().all(|x| x.is_finite())
        };
        let is_plane = |plane: &Plane| {
            is_matrix(&plane.tokens) && plane.keep.len() == n && plane.keep.contains(&true)
        };
        match &self.known {
            Known::Parts(parts) => {
                let number = (1..STATISTICS_FROM).contains(&parts.len());
                number && parts.len() == self.n_parts && parts.iter().all(is_plane)
            }
            Known::Statistics(statistics) => {
                let positive = statistics.variance.data.iter().all(|v| *v > 0.0);
                self.n_parts >= STATISTICS_FROM
                    && is_plane(&statistics.mean)
                    && is_matrix(&statistics.variance)
                    && positive
            }
        }
    }
}

/// Golden parts, and what it takes to leave one of them out again.
struct Learned {
    golden: Golden,
    planes: Vec<Plane>,
    /// Sums over all parts, and the shift of each onto the first; from [`STATISTICS_FROM`] parts on.
    gathered: Option<(Sums, Vec<[isize; 2]>)>,
}

impl Learned {
    fn of(parts: &[TokenGrid<'_>], options: &GoldenOptions) -> Result<Self, AdaptError> {
        options.check()?;
        let first = parts.first().ok_or(AdaptError::NoGoodFrame)?;
        let (size, dim) = ([first.rows(), first.cols()], first.dim());
        let planes = parts
            .iter()
            .map(|part| {
                check(part, size, dim)?;
                Plane::of(part, &options.prepare)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mut golden = Golden {
            options: *options,
            size,
            dim,
            n_parts: planes.len(),
            known: Known::Parts(Vec::new()),
        };
        let mut gathered = None;
        if planes.len() >= STATISTICS_FROM {
            let (sums, shifts) = gather(&golden, &planes);
            golden.known = Known::Statistics(Statistics::of(&sums));
            gathered = Some((sums, shifts));
        } else {
            golden.known = Known::Parts(planes.clone());
        }
        Ok(Self {
            golden,
            planes,
            gathered,
        })
    }

    /// Each part compared with the others, by the rule that all of them together are compared by. Nothing for a single part.
    fn left_out(&self) -> Result<Vec<GoldenVerdict>, AdaptError> {
        if self.planes.len() < 2 {
            return Ok(Vec::new());
        }
        let one = |index: usize| {
            let known = match &self.gathered {
                Some((sums, shifts)) => {
                    let mut others = sums.clone();
                    others.take(&self.golden, &self.planes[index], shifts[index]);
                    Known::Statistics(Statistics::of(&others))
                }
                None => {
                    let others = self.planes.iter().enumerate();
                    let others = others.filter(|(other, _)| *other != index);
                    Known::Parts(others.map(|(_, plane)| plane.clone()).collect())
                }
            };
            let others = Golden {
                options: self.golden.options,
                size: self.golden.size,
                dim: self.golden.dim,
                n_parts: self.planes.len() - 1,
                known,
            };
            others.compare_plane(&self.planes[index])
        };
        (0..self.planes.len()).map(one).collect()
    }
}

impl Statistics {
    /// The variance of a value at a position is drawn towards that of all values.
    fn of(sums: &Sums) -> Self {
        let (n, dim) = (sums.sum.rows, sums.sum.cols);
        let scatter = |at: usize, j: usize| {
            let count = sums.counts[at].max(1) as f64;
            (sums.squares.row(at)[j] - sums.sum.row(at)[j].powi(2) / count).max(0.0)
        };
        let freedom: usize = sums.counts.iter().map(|c| c.saturating_sub(1)).sum();
        let total: f64 = (0..n)
            .map(|at| (0..dim).map(|j| scatter(at, j)).sum::<f64>())
            .sum();
        let overall = total / (freedom.max(1) * dim) as f64;
        // Golden parts that are all the same have no variance; what is then a difference is left to the smallest one that f32 tells apart.
        let floor = (overall * 1e-3).max(1e-12);
        let mut mean = Matrix::zeros(n, dim);
        let mut variance = Matrix::zeros(n, dim);
        for (at, &count) in sums.counts.iter().enumerate() {
            let (own, count) = (count.saturating_sub(1) as f64, count.max(1) as f64);
            for j in 0..dim {
                mean.row_mut(at)[j] = (sums.sum.row(at)[j] / count) as f32;
                let shrunk = (scatter(at, j) + PRIOR * overall) / (own + PRIOR);
                // The mean itself is uncertain by a count-th of the variance.
                variance.row_mut(at)[j] = (shrunk.max(floor) * (1.0 + 1.0 / count)) as f32;
            }
        }
        let keep = sums.counts.iter().map(|c| *c > 0).collect();
        Self {
            mean: Plane { tokens: mean, keep },
            variance,
        }
    }

    /// Mean over the values of the squared deviation in units of the variance: near 1 for a good token.
    fn deviation(&self, token: &[f32], at: usize) -> f32 {
        let pairs = token
            .iter()
            .zip(self.mean.tokens.row(at))
            .zip(self.variance.row(at));
        let sum: f64 = pairs
            .map(|((x, m), v)| f64::from(x - m).powi(2) / f64::from(*v))
            .sum();
        (sum / token.len() as f64) as f32
    }
}

impl Plane {
    fn of(grid: &TokenGrid<'_>, prepare: &Prepare) -> Result<Self, AdaptError> {
        let kept = prepare.apply(grid)?;
        let keep: Vec<bool> = (0..grid.len()).map(|i| grid.keeps(i)).collect();
        let mut tokens = Matrix::zeros(grid.len(), grid.dim());
        for (row, at) in (0..grid.len()).filter(|&i| keep[i]).enumerate() {
            tokens.row_mut(at).copy_from_slice(kept.row(row));
        }
        Ok(Self { tokens, keep })
    }
}

fn check(grid: &TokenGrid<'_>, size: [usize; 2], dim: usize) -> Result<(), AdaptError> {
    grid.check_dim(dim)?;
    if [grid.rows(), grid.cols()] == size {
        return Ok(());
    }
    Err(AdaptError::GridShape {
        what: "token grid",
        expected: format!("{} x {}", size[0], size[1]),
        got: format!("{} x {}", grid.rows(), grid.cols()),
        remedy: "golden parts and frames must have the same size and region of interest",
    })
}

fn verdict(
    [rows, cols]: [usize; 2],
    scores: &[Option<f32>],
    shift: [isize; 2],
    nearest: Option<usize>,
) -> Result<GoldenVerdict, AdaptError> {
    if scores.iter().all(Option::is_none) {
        return Err(AdaptError::AllMasked {
            what: "frame beside the golden parts".into(),
        });
    }
    Ok(GoldenVerdict {
        differences: TokenMap {
            rows,
            cols,
            values: scores.iter().map(|s| s.unwrap_or(0.0)).collect(),
            keep: Some(scores.iter().map(Option::is_some).collect()),
        },
        shift,
        nearest,
    })
}

fn half_squared(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum::<f32>() / 2.0
}

#[cfg(test)]
mod tests;
