//! Softmax over rows of scores, which may be longer than what counts of them.

use super::simd::{self, vectorised};

/// Running sums of a row.
const LANES: usize = 16;

vectorised! {
    /// The first `n` values of rows of `stride` to `softmax(scale · s)`.
    pub(crate) fn softmax_rows(s: &mut [f32], stride: usize, n: usize, scale: f32) {
        for row in s.chunks_exact_mut(stride) {
            let row = &mut row[..n];
            let max = simd::max(row);
            let inverse = 1.0 / exp_sum::<FMA>(row, max, scale);
            for v in row.iter_mut() {
                *v *= inverse;
            }
        }
    }
}

/// Every value to `exp((v - max) · scale)`, and their sum.
#[inline(always)]
fn exp_sum<const FMA: bool>(row: &mut [f32], max: f32, scale: f32) -> f32 {
    let mut sums = [0.0; LANES];
    let mut add = |values: &mut [f32; LANES]| {
        for i in 0..LANES {
            values[i] = simd::exp::<FMA>((values[i] - max) * scale);
            sums[i] += values[i];
        }
    };
    let (chunks, rest) = row.as_chunks_mut::<LANES>();
    for chunk in chunks {
        add(chunk);
    }
    if !rest.is_empty() {
        // values that are far below the others add nothing that f32 could tell
        let mut last = [f32::NEG_INFINITY; LANES];
        last[..rest.len()].copy_from_slice(rest);
        add(&mut last);
        rest.copy_from_slice(&last[..rest.len()]);
    }
    simd::sum(&sums)
}

vectorised! {
    /// `ds = p ∘ (dp - Σ p ∘ dp) · scale` of the first `n` values of rows of `stride`, written over `dp`.
    pub(super) fn softmax_rows_grad(p: &[f32], dp: &mut [f32], stride: usize, n: usize, scale: f32) {
        for (p, dp) in p.chunks_exact(stride).zip(dp.chunks_exact_mut(stride)) {
            let (p, dp) = (&p[..n], &mut dp[..n]);
            let mean = simd::dot(p, dp);
            for (p, dp) in p.iter().zip(dp) {
                *dp = p * (*dp - mean) * scale;
            }
        }
    }
}
