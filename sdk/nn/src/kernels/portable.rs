//! Kernels in plain loops: the reference of all others, and what runs where there are no others.

use super::tile::{FloatTile, IntTile, by_height};

/// Rows of a call.
pub(super) const ROWS: usize = 4;

/// Columns of a panel.
pub(super) const COLUMNS: usize = 32;

/// # Safety
/// See [`super::tile::Kernels::float`].
pub(super) unsafe fn float(tile: &FloatTile) {
    by_height!(tile, float_rows, [1 2 3 4]);
}

/// # Safety
/// See [`super::tile::Kernels::float`].
pub(super) unsafe fn int(tile: &IntTile) {
    by_height!(tile, int_rows, [1 2 3 4]);
}

/// Fused where the target has the instruction; the function that stands in for it elsewhere takes a hundred times as long.
#[inline(always)]
fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
        a.mul_add(b, c)
    } else {
        a * b + c
    }
}

unsafe fn float_rows<const R: usize>(tile: &FloatTile) {
    let mut sums = [[0_f32; COLUMNS]; R];
    for k in 0..tile.k {
        // SAFETY: B has K rows of 32 columns, A has R rows of K.
        let b = unsafe { &*tile.b.add(k * tile.ldb).cast::<[f32; COLUMNS]>() };
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: as above.
            let a = unsafe { *tile.a.add(r * tile.lda + k * tile.ka) };
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = multiply_add(a, *b, *sum);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (n, sum) in sums.iter().enumerate() {
            // SAFETY: C has R rows of 32 columns, the bias 32 values where it is not null.
            unsafe {
                let bias = if tile.bias.is_null() {
                    0.0
                } else {
                    *tile.bias.add(n)
                };
                let c = tile.c.add(r * tile.ldc + n);
                let value = sum + bias;
                *c = if tile.add { *c + value } else { value };
            }
        }
    }
}

unsafe fn int_rows<const R: usize>(tile: &IntTile) {
    // SAFETY: `start` has 32 values.
    let start = unsafe { *tile.start.cast::<[i32; COLUMNS]>() };
    let mut sums = [start; R];
    for group in 0..tile.groups {
        // SAFETY: B has `groups` times 32 columns of four values, A has R rows of `groups` times four.
        let b = unsafe { &*tile.b.add(group * COLUMNS * 4).cast::<[[i8; 4]; COLUMNS]>() };
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: as above.
            let a = unsafe { *tile.a.add(r * tile.lda + group * 4).cast::<[i8; 4]>() };
            for (sum, b) in sums.iter_mut().zip(b) {
                for (a, b) in a.iter().zip(b) {
                    *sum += i32::from(*a) * i32::from(*b);
                }
            }
        }
    }
    // SAFETY: C has R rows of 32 columns, there are R row scales and 32 scales and biases.
    unsafe { store::<R>(tile, sums) }
}

/// The steps behind the sums.
///
/// # Safety
/// See [`super::tile::Kernels::float`].
pub(super) unsafe fn store<const R: usize>(tile: &IntTile, sums: [[i32; COLUMNS]; R]) {
    for (r, sums) in sums.iter().enumerate() {
        for (n, sum) in sums.iter().enumerate() {
            // SAFETY: the caller's.
            unsafe {
                let value =
                    *sum as f32 * *tile.row_scale.add(r) * *tile.scale.add(n) + *tile.bias.add(n);
                let c = tile.c.add(r * tile.ldc + n);
                *c = if tile.add { *c + value } else { value };
            }
        }
    }
}
