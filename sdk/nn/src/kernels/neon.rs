//! Kernels for 64-bit Arm: 4 rows by four vectors of 4 columns, 16 of the 32 registers.

use std::arch::aarch64::*;
use std::arch::asm;

use super::tile::{FloatTile, IntTile, by_height};

/// Rows of a call.
pub(super) const ROWS: usize = 4;

/// Columns of a panel.
pub(super) const COLUMNS: usize = 16;

/// Vectors of four columns in a panel.
const VECTORS: usize = 4;

/// # Safety
/// See [`super::tile::Kernels::float`].
pub(super) unsafe fn float(tile: &FloatTile) {
    by_height!(tile, float_rows, [1 2 3 4]);
}

/// # Safety
/// See [`super::tile::Kernels::float`].
pub(super) unsafe fn int_pairs(tile: &IntTile) {
    by_height!(tile, pair_rows, [1 2 3 4]);
}

/// # Safety
/// The dot product instructions are there, and see [`super::tile::Kernels::float`].
pub(super) unsafe fn int_dot(tile: &IntTile) {
    by_height!(tile, dot_rows, [1 2 3 4]);
}

#[target_feature(enable = "neon")]
unsafe fn float_rows<const R: usize>(tile: &FloatTile) {
    // SAFETY: A has R rows of K, B has K rows of 16 columns, C has R rows of 16, the bias 16 where it is not null.
    unsafe {
        let mut sums = [[vdupq_n_f32(0.0); VECTORS]; R];
        let mut b = tile.b;
        // four values of a row are one load where they are neighbours
        let in_fours = if tile.ka == 1 { tile.k / 4 } else { 0 };
        for k in 0..in_fours {
            let mut factors = [vdupq_n_f32(0.0); R];
            for (r, factor) in factors.iter_mut().enumerate() {
                *factor = vld1q_f32(tile.a.add(r * tile.lda + 4 * k));
            }
            multiply_add::<0, R>(&mut sums, &factors, b);
            multiply_add::<1, R>(&mut sums, &factors, b.add(tile.ldb));
            multiply_add::<2, R>(&mut sums, &factors, b.add(2 * tile.ldb));
            multiply_add::<3, R>(&mut sums, &factors, b.add(3 * tile.ldb));
            b = b.add(4 * tile.ldb);
        }
        for k in 4 * in_fours..tile.k {
            let mut factors = [vdupq_n_f32(0.0); R];
            for (r, factor) in factors.iter_mut().enumerate() {
                *factor = vdupq_n_f32(*tile.a.add(r * tile.lda + k * tile.ka));
            }
            multiply_add::<0, R>(&mut sums, &factors, b);
            b = b.add(tile.ldb);
        }
        store_float::<R>(tile, sums);
    }
}

/// Adds lane `LANE` of each row's factors times 16 columns at `b`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn multiply_add<const LANE: i32, const R: usize>(
    sums: &mut [[float32x4_t; VECTORS]; R],
    factors: &[float32x4_t; R],
    b: *const f32,
) {
    for v in 0..VECTORS {
        // SAFETY: the caller has 16 columns there.
        let columns = unsafe { vld1q_f32(b.add(4 * v)) };
        for (sums, factor) in sums.iter_mut().zip(factors) {
            sums[v] = vfmaq_laneq_f32::<LANE>(sums[v], columns, *factor);
        }
    }
}

#[inline(always)]
unsafe fn store_float<const R: usize>(tile: &FloatTile, sums: [[float32x4_t; VECTORS]; R]) {
    // SAFETY: C has R rows of 16 columns, the bias 16 values where it is not null.
    unsafe {
        for (r, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                let n = 4 * v;
                let mut value = *sum;
                if !tile.bias.is_null() {
                    value = vaddq_f32(value, vld1q_f32(tile.bias.add(n)));
                }
                let c = tile.c.add(r * tile.ldc + n);
                if tile.add {
                    value = vaddq_f32(vld1q_f32(c), value);
                }
                vst1q_f32(c, value);
            }
        }
    }
}

/// Without dot products: two products of 8 bits fit into 16, since no activation is -128.
#[target_feature(enable = "neon")]
unsafe fn pair_rows<const R: usize>(tile: &IntTile) {
    // SAFETY: A has R rows of `groups` times 2 bytes, B has `groups` times 32 bytes.
    unsafe {
        let mut sums = start::<R>(tile);
        let (mut a, mut b) = (tile.a, tile.b);
        for _ in 0..tile.groups / 2 {
            let (one, two) = (pair_columns(b), pair_columns(b.add(2 * COLUMNS)));
            for (r, sums) in sums.iter_mut().enumerate() {
                let factors = [pair(a.add(r * tile.lda)), pair(a.add(r * tile.lda + 2))];
                for (v, sum) in sums.iter_mut().enumerate() {
                    let products = vmull_s8(one[v], factors[0]);
                    let products = vmlal_s8(products, two[v], factors[1]);
                    *sum = vpadalq_s16(*sum, products);
                }
            }
            a = a.add(4);
            b = b.add(4 * COLUMNS);
        }
        if !tile.groups.is_multiple_of(2) {
            let columns = pair_columns(b);
            for (r, sums) in sums.iter_mut().enumerate() {
                let factor = pair(a.add(r * tile.lda));
                for (sum, columns) in sums.iter_mut().zip(columns) {
                    *sum = vpadalq_s16(*sum, vmull_s8(columns, factor));
                }
            }
        }
        store::<R>(tile, sums);
    }
}

/// Two values of k of one row, for each of four columns.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn pair(a: *const u8) -> int8x8_t {
    // SAFETY: the caller has two bytes there.
    vreinterpret_s8_s16(vdup_n_s16(unsafe { a.cast::<i16>().read_unaligned() }))
}

/// Two values of k of 16 columns, four columns in each.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn pair_columns(b: *const i8) -> [int8x8_t; VECTORS] {
    // SAFETY: the caller has 32 bytes there.
    let [low, high] = unsafe { [vld1q_s8(b), vld1q_s8(b.add(16))] };
    [
        vget_low_s8(low),
        vget_high_s8(low),
        vget_low_s8(high),
        vget_high_s8(high),
    ]
}

#[target_feature(enable = "neon,dotprod")]
unsafe fn dot_rows<const R: usize>(tile: &IntTile) {
    // SAFETY: A has R rows of `groups` times 4 bytes, B has `groups` times 64 bytes.
    unsafe {
        let mut sums = start::<R>(tile);
        let (mut a, mut b) = (tile.a, tile.b);
        for _ in 0..tile.groups {
            for (r, sums) in sums.iter_mut().enumerate() {
                let factor = a.add(r * tile.lda).cast::<i32>().read_unaligned();
                let factor = vreinterpretq_s8_s32(vdupq_n_s32(factor));
                for (v, sum) in sums.iter_mut().enumerate() {
                    let columns = vld1q_s8(b.add(16 * v));
                    *sum = dot(*sum, factor, columns);
                }
            }
            a = a.add(4);
            b = b.add(4 * COLUMNS);
        }
        store::<R>(tile, sums);
    }
}

/// `sdot`; the intrinsic of that name is not stable.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction reads and writes registers only, and its feature is enabled here.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

#[inline(always)]
unsafe fn start<const R: usize>(tile: &IntTile) -> [[int32x4_t; VECTORS]; R] {
    // SAFETY: NEON is part of 64-bit Arm.
    let mut sums = [unsafe { vdupq_n_s32(0) }; VECTORS];
    for (v, sum) in sums.iter_mut().enumerate() {
        // SAFETY: `start` has 16 values.
        *sum = unsafe { vld1q_s32(tile.start.add(4 * v)) };
    }
    [sums; R]
}

#[inline(always)]
unsafe fn store<const R: usize>(tile: &IntTile, sums: [[int32x4_t; VECTORS]; R]) {
    // SAFETY: C has R rows of 16 columns, there are R row scales and 16 scales and biases.
    unsafe {
        for (r, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                let n = 4 * v;
                let scaled = vmulq_n_f32(vcvtq_f32_s32(*sum), *tile.row_scale.add(r));
                let scaled = vmulq_f32(scaled, vld1q_f32(tile.scale.add(n)));
                let mut value = vaddq_f32(scaled, vld1q_f32(tile.bias.add(n)));
                let c = tile.c.add(r * tile.ldc + n);
                if tile.add {
                    value = vaddq_f32(vld1q_f32(c), value);
                }
                vst1q_f32(c, value);
            }
        }
    }
}
