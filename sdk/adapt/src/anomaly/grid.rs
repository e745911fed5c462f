//! Patch tokens of one frame, the tokens of them that count, and what is done to them before they are scored.

use crate::error::AdaptError;
use crate::linalg::Matrix;
use crate::support::inverse_norm;
use serde::{Deserialize, Serialize};

/// Patch tokens `[rows, cols, dim]` of one frame, checked once. Some of them may be left out by a mask.
#[derive(Clone, Copy, Debug)]
pub struct TokenGrid<'a> {
    tokens: &'a [f32],
    rows: usize,
    cols: usize,
    dim: usize,
    keep: Option<&'a [bool]>,
}

impl<'a> TokenGrid<'a> {
    /// Row-major `tokens` `[rows, cols, dim]`.
    ///
    /// # Errors
    ///
    /// An empty grid, another number of values, or a value that is not finite.
    pub fn new(
        tokens: &'a [f32],
        [rows, cols]: [usize; 2],
        dim: usize,
    ) -> Result<Self, AdaptError> {
        let expected = rows.checked_mul(cols).and_then(|n| n.checked_mul(dim));
        if tokens.is_empty() || expected != Some(tokens.len()) {
            return Err(AdaptError::GridShape {
                what: "patch tokens",
                expected: format!("{rows} x {cols} x {dim} values, at least one"),
                got: format!("{} values", tokens.len()),
                remedy: "pass the patch tokens of one frame with the grid that the encoder names",
            });
        }
        if let Some(index) = tokens.iter().position(|value| !value.is_finite()) {
            return Err(AdaptError::NotFinite {
                what: format!("patch token {}", index / dim),
                index: index % dim,
                value: tokens[index],
            });
        }
        Ok(Self {
            tokens,
            rows,
            cols,
            dim,
            keep: None,
        })
    }

    /// The same tokens, of which only those with `keep` `[rows, cols]` count.
    ///
    /// # Errors
    ///
    /// A mask of another size, or one that keeps no token.
    pub fn with_mask(mut self, keep: &'a [bool]) -> Result<Self, AdaptError> {
        if keep.len() != self.len() {
            return Err(AdaptError::GridShape {
                what: "token mask",
                expected: format!("{} x {}", self.rows, self.cols),
                got: format!("{} values", keep.len()),
                remedy: "make the mask with `token_mask` for the grid of the frame",
            });
        }
        if !keep.contains(&true) {
            return Err(AdaptError::AllMasked {
                what: "frame".into(),
            });
        }
        self.keep = Some(keep);
        Ok(self)
    }

    /// Tokens in the grid, kept or not.
    pub fn len(&self) -> usize {
        self.rows * self.cols
    }

    /// Never: a grid has at least one token.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Rows of tokens.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of tokens.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Values of a token.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Whether the token at `index` (row-major) counts.
    pub fn keeps(&self, index: usize) -> bool {
        self.keep.is_none_or(|keep| keep[index])
    }

    /// Token at `index` (row-major), `[dim]`.
    pub fn token(&self, index: usize) -> &'a [f32] {
        &self.tokens[index * self.dim..(index + 1) * self.dim]
    }

    pub(crate) fn mask(&self) -> Option<&'a [bool]> {
        self.keep
    }

    pub(crate) fn check_dim(&self, dim: usize) -> Result<(), AdaptError> {
        if self.dim == dim {
            return Ok(());
        }
        Err(AdaptError::WrongDimension {
            what: "patch tokens".into(),
            expected: dim,
            got: self.dim,
        })
    }
}

/// What is done to tokens before they are learned or scored; the same for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepare {
    /// Odd side of the window of tokens over which the mean is taken (PatchCore's neighbourhood); 1 leaves each token as it is, which
    /// is the default: tokens of a transformer have seen their surroundings already. Only kept tokens inside the grid enter a mean.
    pub window: usize,
    /// Whether each vector is divided by its norm afterwards.
    pub unit_norm: bool,
}

impl Default for Prepare {
    fn default() -> Self {
        Self {
            window: 1,
            unit_norm: true,
        }
    }
}

impl Prepare {
    pub(crate) fn check(&self) -> Result<(), AdaptError> {
        if self.window.is_multiple_of(2) || self.window > 15 {
            return Err(AdaptError::BadOption {
                name: "window",
                value: self.window.to_string(),
                range: "odd, from 1 to 15",
            });
        }
        Ok(())
    }

    /// The kept tokens, prepared, `[n, dim]`, in the order of the grid.
    pub(crate) fn apply(&self, grid: &TokenGrid<'_>) -> Result<Matrix<f32>, AdaptError> {
        self.check()?;
        let kept: Vec<usize> = (0..grid.len()).filter(|&i| grid.keeps(i)).collect();
        let mut out = Matrix::zeros(kept.len(), grid.dim());
        for (i, &index) in kept.iter().enumerate() {
            let row = out.row_mut(i);
            mean_around(grid, index, self.window / 2, row);
            if self.unit_norm {
                let inverse = inverse_norm(row);
                row.iter_mut()
                    .for_each(|x| *x = (f64::from(*x) * inverse) as f32);
            }
        }
        Ok(out)
    }
}

fn mean_around(grid: &TokenGrid<'_>, index: usize, radius: usize, out: &mut [f32]) {
    let (y, x) = (index / grid.cols(), index % grid.cols());
    let span = |at: usize, size: usize| at.saturating_sub(radius)..(at + radius + 1).min(size);
    let mut count = 0;
    for row in span(y, grid.rows()) {
        for col in span(x, grid.cols()) {
            let neighbour = row * grid.cols() + col;
            if grid.keeps(neighbour) {
                count += 1;
                for (o, v) in out.iter_mut().zip(grid.token(neighbour)) {
                    *o += v;
                }
            }
        }
    }
    let scale = 1.0 / count as f32;
    out.iter_mut().for_each(|o| *o *= scale);
}

/// A number for each token of a frame: anomaly scores or heat.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenMap {
    /// Rows of tokens.
    pub rows: usize,
    /// Columns of tokens.
    pub cols: usize,
    /// `[rows, cols]`; 0 where a token is left out.
    pub values: Vec<f32>,
    /// Tokens that count, `[rows, cols]`; `None` if all do.
    pub keep: Option<Vec<bool>>,
}

impl TokenMap {
    /// `scores` of the kept tokens of `grid`, put back in their places.
    pub(crate) fn scatter(grid: &TokenGrid<'_>, scores: &[f32]) -> Self {
        let mut scores = scores.iter();
        let values = (0..grid.len())
            .map(|i| match grid.keeps(i) {
                true => *scores.next().expect("one score for each kept token"),
                false => 0.0,
            })
            .collect();
        Self {
            rows: grid.rows(),
            cols: grid.cols(),
            values,
            keep: grid.mask().map(<[bool]>::to_vec),
        }
    }

    /// The values that count, in the order of the grid.
    pub fn kept(&self) -> impl Iterator<Item = f32> + '_ {
        let keep = self.keep.as_deref();
        self.values
            .iter()
            .enumerate()
            .filter(move |(i, _)| keep.is_none_or(|keep| keep[*i]))
            .map(|(_, value)| *value)
    }

    /// Mean of the largest `share` of the values that count, at least of one: with 0.01 the tail value at risk of AnomalyDINO (Damm et
    /// al. 2024), their number rounded down.
    pub fn tail_mean(&self, share: f64) -> f64 {
        let mut values: Vec<f32> = self.kept().collect();
        let n = ((values.len() as f64 * share) as usize).clamp(1, values.len());
        values.select_nth_unstable_by(n - 1, |a, b| b.total_cmp(a));
        values.truncate(n);
        // Sorted, so that equal sets of values give equal sums.
        values.sort_unstable_by(f32::total_cmp);
        values.iter().map(|v| f64::from(*v)).sum::<f64>() / n as f64
    }

    /// Each value times `factor`.
    pub fn scaled(mut self, factor: f64) -> Self {
        self.values
            .iter_mut()
            .for_each(|v| *v = (f64::from(*v) * factor) as f32);
        self
    }
}

/// Tokens that count, `[rows, cols]`, from pixels that count, `[height, width]`: those of which at least half the pixels do. Pixel `x`
/// belongs to the token in column `x * cols / width`.
///
/// # Errors
///
/// A mask of another size, or fewer pixels than tokens a side.
pub fn token_mask(
    pixels: &[bool],
    [height, width]: [usize; 2],
    [rows, cols]: [usize; 2],
) -> Result<Vec<bool>, AdaptError> {
    let fits = height.checked_mul(width) == Some(pixels.len());
    if !fits || rows == 0 || cols == 0 || height < rows || width < cols {
        return Err(AdaptError::GridShape {
            what: "pixel mask",
            expected: format!("{height} x {width} pixels, at least {rows} x {cols}"),
            got: format!("{} values", pixels.len()),
            remedy: "pass one value for each pixel of the frame",
        });
    }
    let mut balance = vec![0i64; rows * cols];
    for (y, line) in pixels.chunks_exact(width).enumerate() {
        for (x, &keep) in line.iter().enumerate() {
            balance[y * rows / height * cols + x * cols / width] += if keep { 1 } else { -1 };
        }
    }
    Ok(balance.iter().map(|&b| b >= 0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_grids_are_refused() {
        assert!(TokenGrid::new(&[1.0; 12], [2, 3], 2).is_ok());
        for (len, grid, dim) in [(11, [2, 3], 2), (0, [0, 3], 2), (12, [usize::MAX, 2], 3)] {
            let error = TokenGrid::new(&vec![1.0; len], grid, dim).unwrap_err();
            assert!(matches!(error, AdaptError::GridShape { .. }), "{error}");
        }
        let error = TokenGrid::new(&[1.0, 2.0, 3.0, f32::NAN], [1, 2], 2).unwrap_err();
        assert!(error.to_string().contains("patch token 1"), "{error}");
        let grid = TokenGrid::new(&[1.0; 4], [2, 2], 1).unwrap();
        assert!(matches!(
            grid.with_mask(&[false; 4]),
            Err(AdaptError::AllMasked { .. })
        ));
        assert!(grid.with_mask(&[true; 3]).is_err());
    }

    #[test]
    fn a_window_takes_the_mean_of_kept_neighbours() {
        let tokens: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let grid = TokenGrid::new(&tokens, [3, 4], 1).unwrap();
        let prepare = Prepare {
            window: 3,
            unit_norm: false,
        };
        let out = prepare.apply(&grid).unwrap();
        assert_eq!(out.row(0), [(0.0 + 1.0 + 4.0 + 5.0) / 4.0]);
        assert_eq!(out.row(5), [5.0]);
        let mut keep = [true; 12];
        keep[5] = false;
        let out = prepare.apply(&grid.with_mask(&keep).unwrap()).unwrap();
        assert_eq!(out.rows, 11);
        assert!((out.row(0)[0] - 5.0 / 3.0).abs() < 1e-6);
        for window in [0, 2, 17] {
            let bad = Prepare {
                window,
                ..Prepare::default()
            };
            assert!(bad.apply(&grid).is_err());
        }
    }

    #[test]
    fn unit_norm_leaves_zero_alone() {
        let grid = TokenGrid::new(&[3.0, 4.0, 0.0, 0.0], [1, 2], 2).unwrap();
        let prepare = Prepare {
            window: 1,
            unit_norm: true,
        };
        assert_eq!(prepare.apply(&grid).unwrap().data, [0.6, 0.8, 0.0, 0.0]);
    }

    #[test]
    fn the_tail_mean_takes_at_least_one_kept_value() {
        let mut map = TokenMap {
            rows: 10,
            cols: 30,
            values: (0..300).map(|i| i as f32).collect(),
            keep: None,
        };
        assert_eq!(map.tail_mean(0.01), 298.0);
        assert_eq!(map.tail_mean(0.0), 299.0);
        assert_eq!(map.tail_mean(1.0), 149.5);
        map.keep = Some((0..300).map(|i| i < 20).collect());
        assert_eq!(map.tail_mean(0.01), 19.0);
    }

    #[test]
    fn a_token_counts_if_half_its_pixels_do() {
        let pixels: Vec<bool> = (0..6 * 8).map(|i| i % 8 < 5).collect();
        let mask = token_mask(&pixels, [6, 8], [3, 4]).unwrap();
        assert_eq!(mask, [true, true, true, false].repeat(3));
        assert!(token_mask(&pixels, [6, 7], [3, 4]).is_err());
        assert!(token_mask(&pixels, [6, 8], [7, 4]).is_err());
    }
}
