//! Distance to the nearest good token (AnomalyDINO, PatchCore), against all good tokens or a coreset of them that fits a byte budget.

use crate::blocks;
use crate::error::AdaptError;
use crate::linalg::Matrix;
use crate::support::normalised_rows;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// How a value of a kept token is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Storage {
    /// Four bytes a value.
    F32,
    /// One byte a value and four for the scale of each token.
    Int8,
}

impl Storage {
    /// Bytes of one token of `dim` values.
    pub fn bytes_per_token(self, dim: usize) -> usize {
        match self {
            Self::F32 => 4 * dim,
            Self::Int8 => dim + 4,
        }
    }
}

/// How many good tokens are kept, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighbourOptions {
    /// Bytes that the kept tokens may take. If all good tokens fit, all are kept.
    pub budget_bytes: usize,
    /// How they are stored.
    pub storage: Storage,
    /// Values to which tokens are projected while the coreset is chosen; distances between kept tokens are those of the tokens themselves.
    pub projection: usize,
    /// Key of the projection.
    pub seed: u64,
}

impl Default for NeighbourOptions {
    fn default() -> Self {
        Self {
            budget_bytes: 1 << 18,
            storage: Storage::Int8,
            projection: 128,
            seed: 0,
        }
    }
}

/// Good tokens of norm 1 to search in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bank {
    dim: usize,
    /// Tokens that it was made from.
    learned: usize,
    rows: Rows,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Rows {
    F32(Matrix<f32>),
    Int8 { values: Vec<i8>, scales: Vec<f32> },
}

impl Bank {
    /// Keeps rows of `tokens` (of any norm). If they do not all fit, greedy k-centre (Sener and Savarese 2018) chooses: the token farthest
    /// from the mean first, then always the one farthest from those chosen, by Euclidean distance after a random projection.
    ///
    /// # Errors
    ///
    /// No token; a budget below one token; a projection to no value.
    pub(crate) fn fit(
        tokens: &Matrix<f32>,
        options: &NeighbourOptions,
    ) -> Result<Self, AdaptError> {
        if tokens.rows == 0 {
            return Err(AdaptError::NoGoodFrame);
        }
        let room = options.budget_bytes / options.storage.bytes_per_token(tokens.cols);
        if room == 0 {
            return Err(AdaptError::BadOption {
                name: "budget_bytes",
                value: options.budget_bytes.to_string(),
                range: "enough for one token: its values at 1 byte (int8, and 4 bytes more) or 4 bytes (f32)",
            });
        }
        if options.projection == 0 {
            return Err(AdaptError::BadOption {
                name: "projection",
                value: "0".into(),
                range: "at least 1",
            });
        }
        let each = (0..tokens.rows).map(|i| tokens.row(i));
        let unit = normalised_rows(each, tokens.rows, tokens.cols);
        let chosen = if tokens.rows <= room {
            unit
        } else {
            let projected = project(&unit, options);
            let picks = k_centres(&projected, room);
            select(&unit, &picks)
        };
        Ok(Self {
            dim: tokens.cols,
            learned: tokens.rows,
            rows: match options.storage {
                Storage::F32 => Rows::F32(chosen),
                Storage::Int8 => quantise(&chosen),
            },
        })
    }

    /// Tokens kept.
    pub fn len(&self) -> usize {
        match &self.rows {
            Rows::F32(rows) => rows.rows,
            Rows::Int8 { scales, .. } => scales.len(),
        }
    }

    /// Never: a bank keeps at least one token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether all tokens that it was made from are kept.
    pub fn is_exact(&self) -> bool {
        self.len() == self.learned
    }

    /// Bytes that the tokens take.
    pub fn bytes(&self) -> usize {
        match &self.rows {
            Rows::F32(rows) => size_of_val(&rows.data[..]),
            Rows::Int8 { values, scales } => values.len() + size_of_val(&scales[..]),
        }
    }

    pub(crate) fn is_whole(&self) -> bool {
        let values = self.len().checked_mul(self.dim);
        let fits = match &self.rows {
            Rows::F32(rows) => {
                rows.is_whole() && rows.cols == self.dim && rows.data.iter().all(|v| v.is_finite())
            }
            Rows::Int8 {
                values: bytes,
                scales,
            } => values == Some(bytes.len()) && scales.iter().all(|s| s.is_finite()),
        };
        fits && self.dim > 0 && !self.is_empty()
    }

    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    /// `1 - cos` to the nearest kept token, 0..2, for each row of `tokens`.
    pub(crate) fn distances(&self, tokens: &Matrix<f32>) -> Vec<f32> {
        let each = (0..tokens.rows).map(|i| tokens.row(i));
        let unit = normalised_rows(each, tokens.rows, tokens.cols);
        let mut best = vec![f32::NEG_INFINITY; unit.rows];
        for start in (0..self.len()).step_by(blocks::ROWS) {
            let part = self.part(start..(start + blocks::ROWS).min(self.len()));
            let cosines = blocks::map(unit.rows, |rows| {
                unit.rows_times_transposed(rows, &part).data
            });
            let rows = cosines
                .iter()
                .flat_map(|block| block.chunks_exact(part.rows));
            for (best, row) in best.iter_mut().zip(rows) {
                *best = row.iter().copied().fold(*best, f32::max);
            }
        }
        best.into_iter()
            .map(|cosine| (1.0 - cosine).max(0.0))
            .collect()
    }

    /// Kept tokens as `f32`.
    fn part(&self, range: std::ops::Range<usize>) -> Matrix<f32> {
        let values = range.start * self.dim..range.end * self.dim;
        let data = match &self.rows {
            Rows::F32(rows) => rows.data[values].to_vec(),
            Rows::Int8 {
                values: bytes,
                scales,
            } => {
                let rows = bytes[values]
                    .chunks_exact(self.dim)
                    .zip(&scales[range.clone()]);
                rows.flat_map(|(row, scale)| row.iter().map(move |v| f32::from(*v) * scale))
                    .collect()
            }
        };
        Matrix {
            rows: range.len(),
            cols: self.dim,
            data,
        }
    }
}

/// Symmetric, each row by its largest value. The scales give rows of norm 1, not the rows' own norms: with those, cosines would be off by
/// rounding in the first order, and tokens that are much alike would all have distance 0.
fn quantise(tokens: &Matrix<f32>) -> Rows {
    let mut values = Vec::with_capacity(tokens.data.len());
    let mut scales = Vec::with_capacity(tokens.rows);
    for i in 0..tokens.rows {
        let largest = tokens.row(i).iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        let start = values.len();
        values.extend(tokens.row(i).iter().map(|x| (x * inverse).round() as i8));
        let square: i64 = values[start..].iter().map(|v| i64::from(*v).pow(2)).sum();
        scales.push(match square {
            0 => 0.0,
            _ => (1.0 / (square as f64).sqrt()) as f32,
        });
    }
    Rows::Int8 { values, scales }
}

/// Rows times a random matrix of ±1 (Achlioptas 2003), which keeps distances up to a common factor; unchanged if it would not shrink them.
fn project(tokens: &Matrix<f32>, options: &NeighbourOptions) -> Matrix<f32> {
    if tokens.cols <= options.projection {
        return tokens.clone();
    }
    let mut key = [0; 32];
    key[..8].copy_from_slice(&options.seed.to_le_bytes());
    key[8..16].copy_from_slice(b"coreset\0");
    let mut rng = ChaCha8Rng::from_seed(key);
    let mut signs = Matrix::zeros(tokens.cols, options.projection);
    for value in &mut signs.data {
        *value = if rng.next_u32() >> 31 == 0 { 1.0 } else { -1.0 };
    }
    tokens.times(&signs)
}

/// Indices of `count` rows by greedy k-centre; the lowest index among equals.
fn k_centres(rows: &Matrix<f32>, count: usize) -> Vec<usize> {
    let mut mean = vec![0.0f32; rows.cols];
    for i in 0..rows.rows {
        for (m, x) in mean.iter_mut().zip(rows.row(i)) {
            *m += x / rows.rows as f32;
        }
    }
    let mut nearest = vec![f32::INFINITY; rows.rows];
    let mut next = approach(rows, &mean, &mut nearest);
    nearest.fill(f32::INFINITY);
    let mut chosen = Vec::with_capacity(count);
    while chosen.len() < count {
        chosen.push(next);
        let centre = rows.row(next).to_vec();
        next = approach(rows, &centre, &mut nearest);
    }
    chosen
}

/// Lowers the squared distances to those from `centre`, and returns the row that is then farthest.
fn approach(rows: &Matrix<f32>, centre: &[f32], nearest: &mut [f32]) -> usize {
    blocks::fill(nearest, 1, |range, nearest| {
        for (i, nearest) in range.zip(nearest) {
            *nearest = nearest.min(squared_distance(rows.row(i), centre));
        }
    });
    let mut farthest = 0;
    for (i, distance) in nearest.iter().enumerate() {
        if *distance > nearest[farthest] {
            farthest = i;
        }
    }
    farthest
}

/// In eight interleaved partial sums.
fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail = a8.remainder().iter().zip(b8.remainder());
    let tail: f32 = tail.map(|(x, y)| (x - y) * (x - y)).sum();
    for (x, y) in a8.zip(b8) {
        for lane in 0..8 {
            sums[lane] += (x[lane] - y[lane]) * (x[lane] - y[lane]);
        }
    }
    sums.iter().sum::<f32>() + tail
}

fn select(rows: &Matrix<f32>, picks: &[usize]) -> Matrix<f32> {
    let mut out = Matrix::zeros(picks.len(), rows.cols);
    for (i, &pick) in picks.iter().enumerate() {
        out.row_mut(i).copy_from_slice(rows.row(pick));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matrix(rows: usize, cols: usize, data: Vec<f32>) -> Matrix<f32> {
        Matrix { rows, cols, data }
    }

    fn radius(rows: &Matrix<f32>, centres: &[usize]) -> f32 {
        let to_nearest = |i: usize| {
            let each = centres
                .iter()
                .map(|&c| squared_distance(rows.row(i), rows.row(c)));
            each.fold(f32::INFINITY, f32::min)
        };
        (0..rows.rows).map(to_nearest).fold(0.0, f32::max).sqrt()
    }

    /// Bright patches with little contrast differ by far less than a step of int8; their distances must still be those of `f32`.
    #[test]
    fn int8_tells_tokens_apart_that_are_much_alike() {
        let token = |i: usize| {
            (0..64).map(move |j| 1.0 + 0.03 * ((i * 37 + j * j * 11) % 19) as f32 / 19.0)
        };
        let tokens = matrix(40, 64, (0..40).flat_map(token).collect());
        let queries = matrix(9, 64, (100..109).flat_map(token).map(|x| x * x).collect());
        let distances = |storage| {
            let options = NeighbourOptions {
                storage,
                ..NeighbourOptions::default()
            };
            Bank::fit(&tokens, &options).unwrap().distances(&queries)
        };
        let exact = distances(Storage::F32);
        for (found, exact) in distances(Storage::Int8).iter().zip(&exact) {
            assert!(*exact > 2e-5, "{exact}");
            assert!((found - exact).abs() < 0.5 * exact, "{found} {exact}");
        }
    }

    proptest! {
        /// Gonzalez (1985): the greedy radius is at most twice the best one, found here by trying every pair of centres.
        #[test]
        fn greedy_centres_are_within_twice_the_best(data in prop::collection::vec(-1.0f32..1.0, 3 * 12)) {
            let rows = matrix(12, 3, data);
            let best = (0..12)
                .flat_map(|a| (0..a).map(move |b| [a, b]))
                .map(|pair| radius(&rows, &pair))
                .fold(f32::INFINITY, f32::min);
            let greedy = k_centres(&rows, 2);
            prop_assert!(radius(&rows, &greedy) <= 2.0 * best + 1e-6);
        }

        #[test]
        fn an_exact_bank_finds_the_nearest_of_all(
            data in prop::collection::vec(-1.0f32..1.0, 5 * 300),
            queries in prop::collection::vec(-1.0f32..1.0, 5 * 7),
        ) {
            let (tokens, queries) = (matrix(300, 5, data), matrix(7, 5, queries));
            let naive = |q: &[f32]| {
                let norm = |v: &[f32]| v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
                let cosine = |t: &[f32]| {
                    let dot: f64 = t.iter().zip(q).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    dot / norm(t) / norm(q)
                };
                1.0 - (0..300).map(|i| cosine(tokens.row(i))).fold(f64::NEG_INFINITY, f64::max)
            };
            for (storage, tolerance) in [(Storage::F32, 1e-6), (Storage::Int8, 0.02)] {
                let options = NeighbourOptions { storage, ..NeighbourOptions::default() };
                let bank = Bank::fit(&tokens, &options).unwrap();
                prop_assert!(bank.is_exact());
                for (i, d) in bank.distances(&queries).into_iter().enumerate() {
                    prop_assert!((f64::from(d) - naive(queries.row(i))).abs() < tolerance);
                }
            }
        }
    }

    #[test]
    fn each_next_centre_is_the_farthest_from_those_before() {
        let rows = matrix(6, 1, vec![0.0, 1.0, 2.0, 10.0, 4.0, 7.0]);
        // The mean is 4; then the farthest each time, found by hand.
        assert_eq!(k_centres(&rows, 4), [3, 0, 4, 5]);
    }

    #[test]
    fn a_coreset_keeps_to_its_budget_and_to_its_seed() {
        let mut rng = ChaCha8Rng::from_seed([3; 32]);
        let data = (0..600 * 160).map(|_| rng.next_u32() as f32 / u32::MAX as f32 - 0.5);
        let tokens = matrix(600, 160, data.collect());
        for storage in [Storage::F32, Storage::Int8] {
            let options = NeighbourOptions {
                budget_bytes: 20_000,
                storage,
                ..NeighbourOptions::default()
            };
            let bank = Bank::fit(&tokens, &options).unwrap();
            assert!(!bank.is_exact() && bank.bytes() <= 20_000);
            assert_eq!(bank.len(), 20_000 / storage.bytes_per_token(160));
            assert_eq!(bank, Bank::fit(&tokens, &options).unwrap());
            let other = NeighbourOptions { seed: 1, ..options };
            assert_ne!(bank, Bank::fit(&tokens, &other).unwrap());
        }
    }

    #[test]
    fn options_out_of_range_are_refused() {
        let tokens = matrix(2, 4, vec![1.0; 8]);
        for options in [
            NeighbourOptions {
                budget_bytes: 7,
                ..NeighbourOptions::default()
            },
            NeighbourOptions {
                projection: 0,
                ..NeighbourOptions::default()
            },
        ] {
            let error = Bank::fit(&tokens, &options).unwrap_err();
            assert!(matches!(error, AdaptError::BadOption { .. }), "{error}");
        }
        let none = matrix(0, 4, Vec::new());
        assert!(matches!(
            Bank::fit(&none, &NeighbourOptions::default()),
            Err(AdaptError::NoGoodFrame)
        ));
    }
}
