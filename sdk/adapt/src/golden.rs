//! Golden compare: the token grid of a frame against those of 1 to N golden parts, position by position, after a search for a small shift.
//!
//! With one or two golden parts the difference of a token is that to the most similar golden part, `‖a - b‖² / 2` (`1 - cos` for tokens of
//! norm 1). From three on each position has a mean and a variance for each value of the token (PaDiM with a diagonal covariance), so that
//! what varies among good parts counts less.

use crate::anomaly::{Prepare, TokenGrid, TokenMap};
use crate::error::AdaptError;
use crate::linalg::Matrix;

/// Golden parts from which positions have statistics.
const STATISTICS_FROM: usize = 3;
/// Observations that the variance over all positions is worth beside those of one position.
const PRIOR: f64 = 4.0;

/// How frames are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoldenOptions {
    /// What is done to tokens first.
    pub prepare: Prepare,
    /// Largest shift in tokens that is searched for, in each direction.
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

/// What golden parts look like at each position.
#[derive(Clone, Debug, PartialEq)]
pub struct Golden {
    options: GoldenOptions,
    size: [usize; 2],
    dim: usize,
    parts: Vec<Plane>,
    statistics: Option<Statistics>,
}

/// Tokens by position.
#[derive(Clone, Debug, PartialEq)]
struct Plane {
    tokens: Matrix<f32>,
    keep: Vec<bool>,
}

#[derive(Clone, Debug, PartialEq)]
struct Statistics {
    mean: Plane,
    /// Of each value at each position, `[rows * cols, dim]`.
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
        let first = parts.first().ok_or(AdaptError::NoGoodFrame)?;
        let (size, dim) = ([first.rows(), first.cols()], first.dim());
        let parts = parts
            .iter()
            .map(|part| {
                check(part, size, dim)?;
                Plane::of(part, &options.prepare)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mut golden = Self {
            options: *options,
            size,
            dim,
            parts,
            statistics: None,
        };
        if golden.parts.len() >= STATISTICS_FROM {
            golden.statistics = Some(golden.gather());
        }
        Ok(golden)
    }

    /// Golden parts learned.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Never: there is at least one golden part.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Compares a frame.
    ///
    /// # Errors
    ///
    /// A frame of another grid or token length; a frame of which nothing can be compared.
    pub fn compare(&self, frame: &TokenGrid<'_>) -> Result<GoldenVerdict, AdaptError> {
        check(frame, self.size, self.dim)?;
        let plane = Plane::of(frame, &self.options.prepare)?;
        if let Some(statistics) = &self.statistics {
            let (shift, _) = self.register(&plane, &statistics.mean);
            let score = |a: usize, b: usize| statistics.deviation(plane.tokens.row(a), b);
            let scores = self.scores(&plane, &statistics.mean, shift, score);
            return verdict(self.size, &scores, shift, None);
        }
        let mut best = vec![None; plane.keep.len()];
        let mut nearest = (0, [0, 0], f32::INFINITY);
        for (index, part) in self.parts.iter().enumerate() {
            let (shift, distance) = self.register(&plane, part);
            if distance < nearest.2 {
                nearest = (index, shift, distance);
            }
            let score = |a: usize, b: usize| half_squared(plane.tokens.row(a), part.tokens.row(b));
            for (best, score) in best.iter_mut().zip(self.scores(&plane, part, shift, score)) {
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
        let [rows, cols] = self.size;
        (0..rows * cols)
            .map(|at| {
                let y = (at / cols)
                    .checked_add_signed(shift[0])
                    .filter(|y| *y < rows)?;
                let x = (at % cols)
                    .checked_add_signed(shift[1])
                    .filter(|x| *x < cols)?;
                let other = y * cols + x;
                (frame.keep[at] && golden.keep[other]).then(|| score(at, other))
            })
            .collect()
    }

    /// Mean and variance at each position, over the parts that have a token there after they were moved onto the first.
    fn gather(&self) -> Statistics {
        let n = self.size[0] * self.size[1];
        let mut sum = Matrix::<f64>::zeros(n, self.dim);
        let mut squares = Matrix::<f64>::zeros(n, self.dim);
        let mut counts = vec![0usize; n];
        for part in &self.parts {
            let (shift, _) = self.register(&self.parts[0], part);
            let source = self.scores(&Plane::everywhere(&self.parts[0]), part, shift, |_, b| {
                b as f32
            });
            for (at, other) in source.iter().enumerate() {
                let Some(other) = other else { continue };
                counts[at] += 1;
                for (j, x) in part.tokens.row(*other as usize).iter().enumerate() {
                    sum.row_mut(at)[j] += f64::from(*x);
                    squares.row_mut(at)[j] += f64::from(*x).powi(2);
                }
            }
        }
        let scatter = |at: usize, j: usize| {
            let count = counts[at].max(1) as f64;
            (squares.row(at)[j] - sum.row(at)[j].powi(2) / count).max(0.0)
        };
        let freedom: usize = counts.iter().map(|c| c.saturating_sub(1)).sum();
        let total: f64 = (0..n)
            .map(|at| (0..self.dim).map(|j| scatter(at, j)).sum::<f64>())
            .sum();
        let overall = total / (freedom.max(1) * self.dim) as f64;
        // Golden parts that are all the same have no variance; what is then a difference is left to the smallest one that f32 tells apart.
        let floor = (overall * 1e-3).max(1e-12);
        let mut mean = Matrix::zeros(n, self.dim);
        let mut variance = Matrix::zeros(n, self.dim);
        for at in 0..n {
            let (count, own) = (
                counts[at].max(1) as f64,
                counts[at].saturating_sub(1) as f64,
            );
            for j in 0..self.dim {
                mean.row_mut(at)[j] = (sum.row(at)[j] / count) as f32;
                let shrunk = (scatter(at, j) + PRIOR * overall) / (own + PRIOR);
                // The mean itself is uncertain by a count-th of the variance.
                variance.row_mut(at)[j] = (shrunk.max(floor) * (1.0 + 1.0 / count)) as f32;
            }
        }
        let keep = counts.iter().map(|c| *c > 0).collect();
        Statistics {
            mean: Plane { tokens: mean, keep },
            variance,
        }
    }
}

impl Statistics {
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

    /// A plane of which every token counts.
    fn everywhere(other: &Self) -> Self {
        Self {
            tokens: other.tokens.clone(),
            keep: vec![true; other.keep.len()],
        }
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
mod tests {
    use super::*;

    const SIZE: [usize; 2] = [6, 7];

    /// A pattern without repetition, seen at (row + dy, col + dx), with a little noise.
    fn tokens(dy: isize, dx: isize, noise: u32) -> Vec<f32> {
        let mut out = Vec::new();
        for at in 0..42isize {
            let (y, x) = (at / 7 + dy, at % 7 + dx);
            for j in 0..4isize {
                let phase = (y * 13 + x * 29 + j * 7 + y * x * j) as f32;
                let jitter = ((at as u32 * 7 + j as u32 * 3 + noise * 11) % 17) as f32 / 17.0 - 0.5;
                out.push(phase.sin() + 0.02 * jitter * (noise > 0) as u8 as f32);
            }
        }
        out
    }

    fn grid(tokens: &[f32]) -> TokenGrid<'_> {
        TokenGrid::new(tokens, SIZE, 4).unwrap()
    }

    fn fit(parts: &[Vec<f32>]) -> Golden {
        let grids: Vec<_> = parts.iter().map(|p| grid(p)).collect();
        Golden::fit(&grids, &GoldenOptions::default()).unwrap()
    }

    #[test]
    fn every_small_shift_is_found_and_undone() {
        for parts in [
            vec![tokens(0, 0, 0)],
            (1..5).map(|n| tokens(0, 0, n)).collect(),
        ] {
            let golden = fit(&parts);
            for dy in -2..=2 {
                for dx in -2..=2 {
                    let mut moved = tokens(dy, dx, 0);
                    let defect = 3 * 7 + 3;
                    moved[4 * defect] += 3.0;
                    let verdict = golden.compare(&grid(&moved)).unwrap();
                    assert_eq!(verdict.shift, [dy, dx]);
                    let keep = verdict.differences.keep.as_ref().unwrap();
                    let left: usize = (6 - dy.unsigned_abs()) * (7 - dx.unsigned_abs());
                    assert_eq!(keep.iter().filter(|k| **k).count(), left);
                    let values = &verdict.differences.values;
                    let largest = (0..42)
                        .max_by(|&a, &b| values[a].total_cmp(&values[b]))
                        .unwrap();
                    assert_eq!(largest, defect);
                }
            }
        }
    }

    #[test]
    fn the_nearest_of_two_parts_counts_at_each_token() {
        let (a, mut b) = (tokens(0, 0, 0), tokens(0, 0, 0));
        b[..4].copy_from_slice(&[-1.0, 1.0, -1.0, 1.0]);
        let golden = fit(&[a.clone(), b.clone()]);
        for (frame, nearest) in [(&a, 0), (&b, 0)] {
            let verdict = golden.compare(&grid(frame)).unwrap();
            assert_eq!(verdict.nearest, Some(nearest));
            assert!(verdict.differences.values.iter().all(|v| *v < 1e-6));
        }
        assert_eq!(golden.len(), 2);
    }

    /// Mean and variance of one position by hand.
    #[test]
    fn statistics_are_those_of_each_position() {
        let options = GoldenOptions {
            prepare: Prepare {
                window: 1,
                unit_norm: false,
            },
            max_shift: 0,
        };
        let parts = [[1.0, 10.0], [2.0, 10.0], [3.0, 10.0]];
        let grids: Vec<_> = parts
            .iter()
            .map(|p| TokenGrid::new(p, [1, 2], 1).unwrap())
            .collect();
        let golden = Golden::fit(&grids, &options).unwrap();
        let verdict = golden
            .compare(&TokenGrid::new(&[5.0, 10.5], [1, 2], 1).unwrap())
            .unwrap();
        // Scatter 2 and 0 with two degrees of freedom each: overall 0.5, shrunk (2 + 2) / 6 and (0 + 2) / 6, times 4 / 3.
        let want = [
            9.0 / (4.0 / 6.0 * 4.0 / 3.0),
            0.25 / (2.0 / 6.0 * 4.0 / 3.0),
        ];
        for (got, want) in verdict.differences.values.iter().zip(want) {
            assert!((f64::from(*got) - want).abs() < 1e-4, "{got} {want}");
        }
    }

    #[test]
    fn masks_and_wrong_grids() {
        let part = tokens(0, 0, 0);
        let keep: Vec<bool> = (0..42).map(|i| i != 5).collect();
        let golden = Golden::fit(
            &[grid(&part).with_mask(&keep).unwrap()],
            &GoldenOptions::default(),
        )
        .unwrap();
        let verdict = golden.compare(&grid(&part)).unwrap();
        assert_eq!(verdict.differences.keep.unwrap(), keep);
        let only: Vec<bool> = keep.iter().map(|k| !k).collect();
        let left = golden.compare(&grid(&part).with_mask(&only).unwrap());
        assert!(
            left.is_ok_and(|v| v.shift != [0, 0]),
            "the token has a counterpart only when moved"
        );
        let other = TokenGrid::new(&part, [7, 6], 4).unwrap();
        assert!(matches!(
            golden.compare(&other),
            Err(AdaptError::GridShape { .. })
        ));
        assert!(matches!(
            Golden::fit(&[], &GoldenOptions::default()),
            Err(AdaptError::NoGoodFrame)
        ));
    }
}
