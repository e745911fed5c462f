//! Weighted sums of rows of 8 bit in integers: twice as fast as in `f32`, and exact, so that any order of the sum gives the same bits.
//!
//! Weights have as many bits after the point as fit into 16 bit and sum to one exactly; what that leaves of a sum is less than 0.03 codes.

use crate::simd::{Loop, dispatch};

/// Weights of one output row in fixed point; a last one is 0 if their number is odd.
#[derive(Clone, Copy)]
pub(crate) struct Fixed<'a> {
    pub(crate) weights: &'a [[i16; 2]],
    /// The weights that are not there to make a pair.
    pub(crate) taps: usize,
    /// What one is worth: a power of two.
    pub(crate) unit: f32,
}

/// Weighted sum of rows that lie `pitch` samples apart.
pub(crate) fn down(rows: &[u8], pitch: usize, fixed: Fixed, out: &mut [f32]) {
    let done = pairs::down(rows, pitch, fixed, out);
    dispatch(Plain {
        rows: &rows[done..],
        pitch,
        fixed,
        out: &mut out[done..],
    });
}

/// Any CPU.
struct Plain<'a> {
    rows: &'a [u8],
    pitch: usize,
    fixed: Fixed<'a>,
    out: &'a mut [f32],
}

impl Loop for Plain<'_> {
    #[inline(always)]
    fn run(self) {
        const WIDE: usize = 32;
        let (wide, rest) = self.out.as_chunks_mut::<WIDE>();
        let mut at = 0;
        for out in wide {
            *out = sums(self.rows, self.pitch, self.fixed, at);
            at += WIDE;
        }
        for out in rest {
            [*out] = sums(self.rows, self.pitch, self.fixed, at);
            at += 1;
        }
    }
}

#[inline(always)]
fn sums<const N: usize>(rows: &[u8], pitch: usize, fixed: Fixed, at: usize) -> [f32; N] {
    let mut sums = [0i32; N];
    let weights = fixed.weights.as_flattened();
    for (tap, &weight) in weights[..fixed.taps].iter().enumerate() {
        let row = &rows[tap * pitch + at..][..N];
        for i in 0..N {
            sums[i] += i32::from(row[i]) * i32::from(weight);
        }
    }
    sums.map(|sum| sum as f32 * fixed.unit)
}

/// AVX2 multiplies and adds pairs of 16 bit, here the samples of two rows, in one instruction.
#[cfg(target_arch = "x86_64")]
mod pairs {
    use std::arch::x86_64::__m256i;

    use pulp::NullaryFnOnce;
    use pulp::x86::V3;

    use super::Fixed;

    /// Columns that are summed together.
    const WIDE: usize = 32;

    /// Fills as many sums as it can, from the first on, and says how many.
    pub(super) fn down(rows: &[u8], pitch: usize, fixed: Fixed, out: &mut [f32]) -> usize {
        let Some(simd) = V3::try_new() else {
            return 0;
        };
        let (wide, _) = out.as_chunks_mut::<WIDE>();
        let done = wide.len() * WIDE;
        simd.vectorize(Pairs {
            simd,
            rows,
            pitch,
            fixed,
            out: wide,
        });
        done
    }

    struct Pairs<'a> {
        simd: V3,
        rows: &'a [u8],
        pitch: usize,
        fixed: Fixed<'a>,
        out: &'a mut [[f32; WIDE]],
    }

    impl NullaryFnOnce for Pairs<'_> {
        type Output = ();

        #[inline(always)]
        fn call(self) {
            let (avx, avx2) = (self.simd.avx, self.simd.avx2);
            let zero = avx._mm256_setzero_si256();
            let load = |at: usize| -> __m256i {
                let (bytes, _) = self.rows[at..]
                    .split_first_chunk::<WIDE>()
                    .expect("a row is as long as the sums");
                bytemuck::cast(*bytes)
            };
            let n_out = self.out.len();
            for (block, out) in (0..n_out).zip(self.out) {
                let mut sums = [zero; 4];
                for (pair, &weights) in self.fixed.weights.iter().enumerate() {
                    let at = 2 * pair * self.pitch + block * WIDE;
                    let first = load(at);
                    let has_second = 2 * pair + 1 < self.fixed.taps;
                    let second = if has_second {
                        load(at + self.pitch)
                    } else {
                        first
                    };
                    let weights = avx._mm256_set1_epi32(bytemuck::cast(weights));
                    let low = avx2._mm256_unpacklo_epi8(first, second);
                    let high = avx2._mm256_unpackhi_epi8(first, second);
                    let quarters = [
                        avx2._mm256_unpacklo_epi8(low, zero),
                        avx2._mm256_unpackhi_epi8(low, zero),
                        avx2._mm256_unpacklo_epi8(high, zero),
                        avx2._mm256_unpackhi_epi8(high, zero),
                    ];
                    for (sum, quarter) in sums.iter_mut().zip(quarters) {
                        *sum =
                            avx2._mm256_add_epi32(*sum, avx2._mm256_madd_epi16(quarter, weights));
                    }
                }
                // Each sum holds four columns of the lower half and four of the upper one.
                let sums: [[i32; 8]; 4] = sums.map(bytemuck::cast);
                for (quarter, sums) in sums.iter().enumerate() {
                    for i in 0..4 {
                        out[4 * quarter + i] = sums[i] as f32 * self.fixed.unit;
                        out[16 + 4 * quarter + i] = sums[4 + i] as f32 * self.fixed.unit;
                    }
                }
            }
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod pairs {
    /// Nothing: the plain loop does all.
    pub(super) fn down(_: &[u8], _: usize, _: super::Fixed, _: &mut [f32]) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_sum_gives_the_sum() {
        let rows: Vec<u8> = (0..9 * 120).map(|i| (i * 89 + i / 7) as u8).collect();
        for taps in 1..=7 {
            let weight = |tap: usize| {
                if tap < taps {
                    4000 * tap as i16 - 9000
                } else {
                    0
                }
            };
            let weights: Vec<[i16; 2]> = (0..taps.div_ceil(2))
                .map(|pair| [weight(2 * pair), weight(2 * pair + 1)])
                .collect();
            let fixed = Fixed {
                weights: &weights,
                taps,
                unit: 0.5,
            };
            for len in [1, 31, 32, 33, 64, 111] {
                let pitch = 117;
                let expected: Vec<f32> = (0..len)
                    .map(|x| {
                        let product =
                            |tap: usize| i64::from(rows[tap * pitch + x]) * i64::from(weight(tap));
                        (0..taps).map(product).sum::<i64>() as f32 * 0.5
                    })
                    .collect();
                // exactly as long as the last row must be
                let rows = &rows[..(taps - 1) * pitch + len];
                let mut out = vec![f32::NAN; len];
                down(rows, pitch, fixed, &mut out);
                assert_eq!(out, expected, "{taps} taps, {len} columns");
                out.fill(f32::NAN);
                Plain {
                    rows,
                    pitch,
                    fixed,
                    out: &mut out,
                }
                .run();
                assert_eq!(out, expected, "{taps} taps, {len} columns, plain");
            }
        }
    }
}
