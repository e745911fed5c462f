//! Kernels for x86 with AVX2 and FMA: 6 rows by two vectors of 8 columns, 12 of the 16 registers.
//!
//! Loops take [`STEPS`] steps along K at once, which saves instructions that are no products. On a Zen 3 whose
//! cores seem to be shared with other hyperthreads, they were what was scarce: a loop of single steps left a third of the multipliers' time unused.

use std::arch::asm;
use std::arch::x86_64::*;

use super::tile::{FloatTile, IntTile, by_height};

/// Rows of a call.
pub(super) const ROWS: usize = 6;

/// Columns of a panel.
pub(super) const COLUMNS: usize = 16;

/// Steps along K between two tests of a loop.
const STEPS: usize = 8;

/// The same where rows of A are neighbours: distances of more steps along K than these take an instruction.
const FEWER_STEPS: usize = 4;

/// Steps along K between two requests to the near cache.
const AHEAD: usize = 4;

/// # Safety
/// AVX2 and FMA are there, and see [`super::tile::Kernels::float`].
pub(super) unsafe fn float(tile: &FloatTile) {
    match tile.ka {
        1 => by_height!(tile, float_rows, [1 2 3 4 5 6]),
        _ => by_height!(tile, float_columns, [1 2 3 4 5 6]),
    }
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

/// The same pointer, of which the compiler knows nothing: it cannot begin to read through it above, where no register is left. It is no instruction.
#[inline(always)]
#[allow(
    clippy::pointers_in_nomem_asm_block,
    reason = "nothing reads through it in the block"
)]
fn here<T>(mut pointer: *const T) -> *const T {
    // SAFETY: there is no instruction.
    unsafe {
        asm!("/* {0} */", inout(reg) pointer, options(pure, nomem, nostack, preserves_flags));
    }
    pointer
}

/// Of rows of A whose values are neighbours.
#[target_feature(enable = "avx2,fma")]
unsafe fn float_rows<const R: usize>(tile: &FloatTile) {
    // SAFETY: A has R rows of K, B has K rows of 16, and the caller answers for C and the bias.
    unsafe {
        // a distance that is known costs no instruction
        let sums = match tile.ldb {
            COLUMNS => float_sums::<R, STEPS>(tile, [tile.lda, 1, COLUMNS]),
            ldb => float_sums::<R, STEPS>(tile, [tile.lda, 1, ldb]),
        };
        store_float(tile, sums);
    }
}

/// Of rows of A that are neighbours.
#[target_feature(enable = "avx2,fma")]
unsafe fn float_columns<const R: usize>(tile: &FloatTile) {
    // SAFETY: as above.
    unsafe {
        let sums = match (tile.lda, tile.ldb) {
            (1, COLUMNS) => float_sums::<R, FEWER_STEPS>(tile, [1, tile.ka, COLUMNS]),
            (lda, ldb) => float_sums::<R, FEWER_STEPS>(tile, [lda, tile.ka, ldb]),
        };
        store_float(tile, sums);
    }
}

/// # Safety
/// A has R rows of K, `lda` apart, whose values are `ka` apart; B has K rows of 16, `ldb` apart.
#[inline(always)]
unsafe fn float_sums<const R: usize, const STEPS: usize>(
    tile: &FloatTile,
    [lda, ka, ldb]: [usize; 3],
) -> [[__m256; 2]; R] {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); 2]; R];
        let (mut a, mut b, mut ahead) = (tile.a, tile.b, tile.ahead);
        for _ in 0..tile.k / STEPS {
            for step in 0..STEPS {
                if step % AHEAD == 0 {
                    _mm_prefetch::<_MM_HINT_T0>(ahead.advance(AHEAD));
                }
                (a, b) = (here(a), here(b));
                float_step::<R>(&mut sums, a.add(step * ka), lda, b.add(step * ldb));
            }
            a = a.add(STEPS * ka);
            b = b.add(STEPS * ldb);
        }
        for _ in 0..tile.k % STEPS {
            float_step::<R>(&mut sums, a, lda, b);
            a = a.add(ka);
            b = b.add(ldb);
        }
        sums
    }
}

/// Adds the bias and what is there, where the tile says so.
///
/// # Safety
/// C has R rows of 16, the bias 16 values where it is not null.
#[inline(always)]
unsafe fn store_float<const R: usize>(tile: &FloatTile, sums: [[__m256; 2]; R]) {
    // SAFETY: the caller's.
    unsafe {
        for (r, sums) in sums.iter().enumerate() {
            for (half, sum) in sums.iter().enumerate() {
                let n = 8 * half;
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

/// # Safety
/// A has R rows of one value, B has 16.
#[inline(always)]
unsafe fn float_step<const R: usize>(
    sums: &mut [[__m256; 2]; R],
    a: *const f32,
    lda: usize,
    b: *const f32,
) {
    // SAFETY: the caller's.
    unsafe {
        let columns = [_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8))];
        for (r, sums) in sums.iter_mut().enumerate() {
            let factor = _mm256_set1_ps(*a.add(r * lda));
            sums[0] = _mm256_fmadd_ps(factor, columns[0], sums[0]);
            sums[1] = _mm256_fmadd_ps(factor, columns[1], sums[1]);
        }
    }
}

#[target_feature(enable = "avx2,avxvnni")]
unsafe fn vnni_rows<const R: usize>(tile: &IntTile) {
    // SAFETY: the caller's.
    unsafe { store::<R>(tile, int_sums::<R, true>(tile)) }
}

#[target_feature(enable = "avx2")]
unsafe fn wide_rows<const R: usize>(tile: &IntTile) {
    // SAFETY: the caller's.
    unsafe { store::<R>(tile, int_sums::<R, false>(tile)) }
}

/// # Safety
/// A has R rows of `groups` times 4 bytes, B has `groups` times 64 bytes with AVX-VNNI, which is there then, and 32 without.
#[inline(always)]
unsafe fn int_sums<const R: usize, const VNNI: bool>(tile: &IntTile) -> [[__m256i; 2]; R] {
    let group = if VNNI { 4 } else { 2 };
    // SAFETY: the caller's.
    unsafe {
        let mut sums = start::<R>(tile);
        let (mut a, mut b, mut ahead) = (tile.a, tile.b, tile.ahead);
        for _ in 0..tile.groups / STEPS {
            for step in 0..STEPS {
                if step % AHEAD == 0 {
                    _mm_prefetch::<_MM_HINT_T0>(ahead.advance(AHEAD));
                }
                (a, b) = (here(a), here(b));
                let at = [4 * step, group * COLUMNS * step];
                int_step::<R, VNNI>(&mut sums, a.add(at[0]), tile.lda, b.add(at[1]));
            }
            a = a.add(4 * STEPS);
            b = b.add(group * COLUMNS * STEPS);
        }
        for _ in 0..tile.groups % STEPS {
            int_step::<R, VNNI>(&mut sums, a, tile.lda, b);
            a = a.add(4);
            b = b.add(group * COLUMNS);
        }
        sums
    }
}

/// # Safety
/// As [`int_sums`], for one group.
#[inline(always)]
unsafe fn int_step<const R: usize, const VNNI: bool>(
    sums: &mut [[__m256i; 2]; R],
    a: *const u8,
    lda: usize,
    b: *const i8,
) {
    // SAFETY: the caller's.
    unsafe {
        let columns = match VNNI {
            true => [
                _mm256_loadu_si256(b.cast()),
                _mm256_loadu_si256(b.add(32).cast()),
            ],
            false => [
                _mm256_cvtepi8_epi16(_mm_loadu_si128(b.cast())),
                _mm256_cvtepi8_epi16(_mm_loadu_si128(b.add(16).cast())),
            ],
        };
        for (r, sums) in sums.iter_mut().enumerate() {
            let factor = _mm256_set1_epi32(a.add(r * lda).cast::<i32>().read_unaligned());
            for (sum, columns) in sums.iter_mut().zip(columns) {
                *sum = match VNNI {
                    true => _mm256_dpbusd_avx_epi32(*sum, factor, columns),
                    false => _mm256_add_epi32(*sum, _mm256_madd_epi16(factor, columns)),
                };
            }
        }
    }
}

#[inline(always)]
unsafe fn start<const R: usize>(tile: &IntTile) -> [[__m256i; 2]; R] {
    // SAFETY: `start` has 16 values.
    unsafe {
        [[
            _mm256_loadu_si256(tile.start.cast()),
            _mm256_loadu_si256(tile.start.add(8).cast()),
        ]; R]
    }
}

#[inline(always)]
unsafe fn store<const R: usize>(tile: &IntTile, sums: [[__m256i; 2]; R]) {
    // SAFETY: C has R rows of 16 columns, there are R row scales and 16 scales and biases.
    unsafe {
        for (r, sums) in sums.iter().enumerate() {
            let row_scale = _mm256_set1_ps(*tile.row_scale.add(r));
            for (half, sum) in sums.iter().enumerate() {
                let n = 8 * half;
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
