//! The integer kernel for 64-bit Arm with dot products: 4 rows by four vectors of 4 columns; a panel takes two passes.

use std::arch::aarch64::*;
use std::arch::asm;

use super::tile::{COLUMNS, IntTile, by_height};

/// Rows of a call.
pub(super) const ROWS: usize = 4;

/// Vectors of four columns in one pass.
const VECTORS: usize = 4;

/// # Safety
/// The dot product instructions are there, and see [`super::tile::Kernels::float`].
pub(super) unsafe fn int_dot(tile: &IntTile) {
    by_height!(tile, dot_rows, [1 2 3 4]);
}

#[target_feature(enable = "neon,dotprod")]
unsafe fn dot_rows<const R: usize>(tile: &IntTile) {
    // SAFETY: A has R rows of `groups` times 4 bytes, B has `groups` times 128 bytes, `start` 32 values.
    unsafe {
        for first in [0, 4 * VECTORS] {
            let mut sums = [[vdupq_n_s32(0); VECTORS]; R];
            for sums in &mut sums {
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = vld1q_s32(tile.start.add(first + 4 * v));
                }
            }
            let (mut a, mut b) = (tile.a, tile.b.add(4 * first));
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
            store::<R>(tile, first, &sums);
        }
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

#[inline]
#[target_feature(enable = "neon")]
unsafe fn store<const R: usize>(tile: &IntTile, first: usize, sums: &[[int32x4_t; VECTORS]; R]) {
    // SAFETY: C has R rows of 32 columns, there are R row scales and 32 scales and biases.
    unsafe {
        for (r, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                let n = first + 4 * v;
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
