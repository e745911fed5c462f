//! Kernels for x86 with AVX2 and FMA: 6 rows by two vectors of 8 columns, 12 of the 16 registers; a panel takes two passes.

use std::arch::x86_64::*;

use super::tile::{COLUMNS, FloatTile, IntTile, by_height};

/// Rows of a call.
pub(super) const ROWS: usize = 6;

/// Columns of one pass.
const PASS: usize = 16;

/// # Safety
/// AVX2 and FMA are there, and see [`super::tile::Kernels::float`].
pub(super) unsafe fn float(tile: &FloatTile) {
    by_height!(tile, float_rows, [1 2 3 4 5 6]);
}

/// # Safety
/// AVX2 and AVX-VNNI are there, and see [`super::tile::Kernels::float`].
pub(super) unsafe fn int_vnni(tile: &IntTile) {
    by_height!(tile, vnni_rows, [1 2 3 4 5 6]);
}

/// # Safety
/// AVX2 is there, and see [`super::tile::Kernels::float`].
pub(super) unsafe fn int_wide(tile: &IntTile) {
    by_height!(tile, wide_rows, [1 2 3 4 5 6]);
}

#[target_feature(enable = "avx2,fma")]
unsafe fn float_rows<const R: usize>(tile: &FloatTile) {
    // SAFETY: A has R rows of K, B has K rows of 32, C has R rows of 32, the bias 32 where it is not null.
    unsafe {
        for first in [0, PASS] {
            let mut sums = [[_mm256_setzero_ps(); 2]; R];
            let (mut a, mut b, mut ahead) = (tile.a, tile.b.add(first), tile.ahead);
            for _ in 0..tile.k {
                let columns = [_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8))];
                for (r, sums) in sums.iter_mut().enumerate() {
                    let factor = _mm256_set1_ps(*a.add(r * tile.lda));
                    sums[0] = _mm256_fmadd_ps(factor, columns[0], sums[0]);
                    sums[1] = _mm256_fmadd_ps(factor, columns[1], sums[1]);
                }
                _mm_prefetch::<_MM_HINT_T0>(ahead.advance());
                a = a.add(1);
                b = b.add(tile.ldb);
            }
            for (r, sums) in sums.iter().enumerate() {
                for (half, sum) in sums.iter().enumerate() {
                    let n = first + 8 * half;
                    let mut value = *sum;
                    if !tile.bias.is_null() {
                        value = _mm256_add_ps(value, _mm256_loadu_ps(tile.bias.add(n)));
                    }
                    let c = tile.c.add(r * tile.ldc + n);
                    if tile.add {
                        value = _mm256_add_ps(_mm256_loadu_ps(c), value);
                    }
                    _mm256_storeu_ps(c, value);
                }
            }
        }
    }
}

#[target_feature(enable = "avx2,avxvnni")]
unsafe fn vnni_rows<const R: usize>(tile: &IntTile) {
    // SAFETY: A has R rows of `groups` times 4 bytes, B has `groups` times 128 bytes.
    unsafe {
        for first in [0, PASS] {
            let mut sums = start::<R>(tile, first);
            let (mut a, mut b, mut ahead) = (tile.a, tile.b.add(4 * first), tile.ahead);
            for _ in 0..tile.groups {
                let columns = [
                    _mm256_loadu_si256(b.cast()),
                    _mm256_loadu_si256(b.add(32).cast()),
                ];
                for (r, sums) in sums.iter_mut().enumerate() {
                    let factor =
                        _mm256_set1_epi32(a.add(r * tile.lda).cast::<i32>().read_unaligned());
                    sums[0] = _mm256_dpbusd_avx_epi32(sums[0], factor, columns[0]);
                    sums[1] = _mm256_dpbusd_avx_epi32(sums[1], factor, columns[1]);
                }
                _mm_prefetch::<_MM_HINT_T0>(ahead.advance());
                a = a.add(4);
                b = b.add(4 * COLUMNS);
            }
            store::<R>(tile, first, sums);
        }
    }
}

#[target_feature(enable = "avx2")]
unsafe fn wide_rows<const R: usize>(tile: &IntTile) {
    // SAFETY: A has R rows of `groups` times 4 bytes, B has `groups` times 64 bytes.
    unsafe {
        for first in [0, PASS] {
            let mut sums = start::<R>(tile, first);
            let (mut a, mut b, mut ahead) = (tile.a, tile.b.add(2 * first), tile.ahead);
            for _ in 0..tile.groups {
                let columns = [
                    _mm256_cvtepi8_epi16(_mm_loadu_si128(b.cast())),
                    _mm256_cvtepi8_epi16(_mm_loadu_si128(b.add(16).cast())),
                ];
                for (r, sums) in sums.iter_mut().enumerate() {
                    let factor =
                        _mm256_set1_epi32(a.add(r * tile.lda).cast::<i32>().read_unaligned());
                    for (sum, columns) in sums.iter_mut().zip(columns) {
                        let products = _mm256_madd_epi16(factor, columns);
                        *sum = _mm256_add_epi32(*sum, products);
                    }
                }
                _mm_prefetch::<_MM_HINT_T0>(ahead.advance());
                a = a.add(4);
                b = b.add(2 * COLUMNS);
            }
            store::<R>(tile, first, sums);
        }
    }
}

#[inline(always)]
unsafe fn start<const R: usize>(tile: &IntTile, first: usize) -> [[__m256i; 2]; R] {
    // SAFETY: `start` has 32 values.
    unsafe {
        [[
            _mm256_loadu_si256(tile.start.add(first).cast()),
            _mm256_loadu_si256(tile.start.add(first + 8).cast()),
        ]; R]
    }
}

#[inline(always)]
unsafe fn store<const R: usize>(tile: &IntTile, first: usize, sums: [[__m256i; 2]; R]) {
    // SAFETY: C has R rows of 32 columns, there are R row scales and 32 scales and biases.
    unsafe {
        for (r, sums) in sums.iter().enumerate() {
            let row_scale = _mm256_set1_ps(*tile.row_scale.add(r));
            for (half, sum) in sums.iter().enumerate() {
                let n = first + 8 * half;
                let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(*sum), row_scale);
                let scaled = _mm256_mul_ps(scaled, _mm256_loadu_ps(tile.scale.add(n)));
                let mut value = _mm256_add_ps(scaled, _mm256_loadu_ps(tile.bias.add(n)));
                let c = tile.c.add(r * tile.ldc + n);
                if tile.add {
                    value = _mm256_add_ps(_mm256_loadu_ps(c), value);
                }
                _mm256_storeu_ps(c, value);
            }
        }
    }
}
