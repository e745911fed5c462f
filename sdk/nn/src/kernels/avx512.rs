//! Kernels for x86 with AVX-512: 12 rows by two vectors of 16 columns, 24 of the 32 registers.

use std::arch::x86_64::*;

use super::tile::{FloatTile, IntTile, by_height};

/// Rows of a call.
pub(super) const ROWS: usize = 12;

/// Columns of a panel.
pub(super) const COLUMNS: usize = 32;

/// # Safety
/// AVX-512 F is there, and see [`super::tile::Kernels::float`].
pub(super) unsafe fn float(tile: &FloatTile) {
    by_height!(tile, float_rows, [1 2 3 4 5 6 7 8 9 10 11 12]);
}

/// # Safety
/// AVX-512 F, BW and VNNI are there, and see [`super::tile::Kernels::float`].
pub(super) unsafe fn int_vnni(tile: &IntTile) {
    by_height!(tile, vnni_rows, [1 2 3 4 5 6 7 8 9 10 11 12]);
}

/// # Safety
/// AVX-512 F and BW are there, and see [`super::tile::Kernels::float`].
pub(super) unsafe fn int_wide(tile: &IntTile) {
    by_height!(tile, wide_rows, [1 2 3 4 5 6 7 8 9 10 11 12]);
}

#[target_feature(enable = "avx512f")]
unsafe fn float_rows<const R: usize>(tile: &FloatTile) {
    // SAFETY: A has R rows of K, B has K rows of 32, C has R rows of 32, the bias 32 where it is not null.
    unsafe {
        // a distance that is known costs no instruction
        let sums = match (tile.lda, tile.ka) {
            (lda, 1) => float_sums::<R>(tile, [lda, 1]),
            (1, ka) => float_sums::<R>(tile, [1, ka]),
            (lda, ka) => float_sums::<R>(tile, [lda, ka]),
        };
        store_float::<R>(tile, sums);
    }
}

/// # Safety
/// A has R rows of K, `lda` apart, whose values are `ka` apart; B has K rows of 32.
#[inline(always)]
unsafe fn float_sums<const R: usize>(tile: &FloatTile, [lda, ka]: [usize; 2]) -> [[__m512; 2]; R] {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); 2]; R];
        let (mut a, mut b, mut ahead) = (tile.a, tile.b, tile.ahead);
        for _ in 0..tile.k {
            let columns = [_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(16))];
            for (r, sums) in sums.iter_mut().enumerate() {
                let factor = _mm512_set1_ps(*a.add(r * lda));
                sums[0] = _mm512_fmadd_ps(factor, columns[0], sums[0]);
                sums[1] = _mm512_fmadd_ps(factor, columns[1], sums[1]);
            }
            _mm_prefetch::<_MM_HINT_T0>(ahead.advance(1));
            a = a.add(ka);
            b = b.add(tile.ldb);
        }
        sums
    }
}

/// Adds the bias and what is there, where the tile says so.
///
/// # Safety
/// C has R rows of 32, the bias 32 values where it is not null.
#[inline(always)]
pub(super) unsafe fn store_float<const R: usize>(tile: &FloatTile, sums: [[__m512; 2]; R]) {
    // SAFETY: the caller's.
    unsafe {
        for (r, sums) in sums.iter().enumerate() {
            for (half, sum) in sums.iter().enumerate() {
                let mut value = *sum;
                if !tile.bias.is_null() {
                    value = _mm512_add_ps(value, _mm512_loadu_ps(tile.bias.add(16 * half)));
                }
                let c = tile.c.add(r * tile.ldc + 16 * half);
                if tile.add {
                    value = _mm512_add_ps(_mm512_loadu_ps(c), value);
                }
                _mm512_storeu_ps(c, value);
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn vnni_rows<const R: usize>(tile: &IntTile) {
    // SAFETY: A has R rows of `groups` times 4 bytes, B has `groups` times 128 bytes.
    unsafe {
        let mut sums = start::<R>(tile);
        let (mut a, mut b, mut ahead) = (tile.a, tile.b, tile.ahead);
        for _ in 0..tile.groups {
            let columns = [
                _mm512_loadu_si512(b.cast()),
                _mm512_loadu_si512(b.add(64).cast()),
            ];
            for (r, sums) in sums.iter_mut().enumerate() {
                let factor = _mm512_set1_epi32(a.add(r * tile.lda).cast::<i32>().read_unaligned());
                sums[0] = _mm512_dpbusd_epi32(sums[0], factor, columns[0]);
                sums[1] = _mm512_dpbusd_epi32(sums[1], factor, columns[1]);
            }
            _mm_prefetch::<_MM_HINT_T0>(ahead.advance(1));
            a = a.add(4);
            b = b.add(4 * COLUMNS);
        }
        store::<R>(tile, sums);
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn wide_rows<const R: usize>(tile: &IntTile) {
    // SAFETY: A has R rows of `groups` times 4 bytes, B has `groups` times 64 bytes.
    unsafe {
        let mut sums = start::<R>(tile);
        let (mut a, mut b, mut ahead) = (tile.a, tile.b, tile.ahead);
        for _ in 0..tile.groups {
            let columns = [
                _mm512_cvtepi8_epi16(_mm256_loadu_si256(b.cast())),
                _mm512_cvtepi8_epi16(_mm256_loadu_si256(b.add(32).cast())),
            ];
            for (r, sums) in sums.iter_mut().enumerate() {
                let factor = _mm512_set1_epi32(a.add(r * tile.lda).cast::<i32>().read_unaligned());
                for (sum, columns) in sums.iter_mut().zip(columns) {
                    let products = _mm512_madd_epi16(factor, columns);
                    *sum = _mm512_add_epi32(*sum, products);
                }
            }
            _mm_prefetch::<_MM_HINT_T0>(ahead.advance(1));
            a = a.add(4);
            b = b.add(2 * COLUMNS);
        }
        store::<R>(tile, sums);
    }
}

#[inline(always)]
unsafe fn start<const R: usize>(tile: &IntTile) -> [[__m512i; 2]; R] {
    // SAFETY: `start` has 32 values.
    unsafe {
        [[
            _mm512_loadu_si512(tile.start.cast()),
            _mm512_loadu_si512(tile.start.add(16).cast()),
        ]; R]
    }
}

#[inline(always)]
unsafe fn store<const R: usize>(tile: &IntTile, sums: [[__m512i; 2]; R]) {
    // SAFETY: C has R rows of 32 columns, there are R row scales and 32 scales and biases.
    unsafe {
        for (r, sums) in sums.iter().enumerate() {
            let row_scale = _mm512_set1_ps(*tile.row_scale.add(r));
            for (half, sum) in sums.iter().enumerate() {
                let scale = _mm512_loadu_ps(tile.scale.add(16 * half));
                let bias = _mm512_loadu_ps(tile.bias.add(16 * half));
                let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(*sum), row_scale);
                let mut value = _mm512_add_ps(_mm512_mul_ps(scaled, scale), bias);
                let c = tile.c.add(r * tile.ldc + 16 * half);
                if tile.add {
                    value = _mm512_add_ps(_mm512_loadu_ps(c), value);
                }
                _mm512_storeu_ps(c, value);
            }
        }
    }
}
