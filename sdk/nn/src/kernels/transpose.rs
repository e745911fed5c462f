//! Transposition of a matrix while it is packed for the kernels.

/// Side of the squares that are turned in registers.
const SIDE: usize = 8;

/// `to[c * to_stride + r] = from[r * from_stride + c]` for `rows` × `columns` values.
pub(crate) fn transpose(
    (to, to_stride): (&mut [f32], usize),
    (from, from_stride): (&[f32], usize),
    [rows, columns]: [usize; 2],
) {
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(from.len() >= (rows - 1) * from_stride + columns && from_stride >= columns);
    assert!(to.len() >= (columns - 1) * to_stride + rows && to_stride >= rows);
    let squares = match has_squares() {
        true => [rows / SIDE * SIDE, columns / SIDE * SIDE],
        false => [0, 0],
    };
    #[cfg(target_arch = "x86_64")]
    for row in (0..squares[0]).step_by(SIDE) {
        for column in (0..squares[1]).step_by(SIDE) {
            // SAFETY: AVX is there, and the square lies inside both matrices.
            unsafe {
                square(
                    to.as_mut_ptr().add(column * to_stride + row),
                    to_stride,
                    from.as_ptr().add(row * from_stride + column),
                    from_stride,
                );
            }
        }
    }
    for row in 0..rows {
        let done = if row < squares[0] { squares[1] } else { 0 };
        let values = &from[row * from_stride..][..columns];
        for (column, value) in values.iter().enumerate().skip(done) {
            to[column * to_stride + row] = *value;
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_squares() -> bool {
    std::arch::is_x86_feature_detected!("avx")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_squares() -> bool {
    false
}

/// One square of [`SIDE`].
///
/// # Safety
/// AVX is there; both pointers reach as far as eight rows of eight values at their strides.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
unsafe fn square(to: *mut f32, to_stride: usize, from: *const f32, from_stride: usize) {
    use std::arch::x86_64::*;
    // SAFETY: the caller's.
    let row = |i: usize| unsafe { _mm256_loadu_ps(from.add(i * from_stride)) };
    let rows: [__m256; SIDE] = std::array::from_fn(row);
    // pairs of rows, then quadruples, then halves
    let pairs: [__m256; SIDE] = std::array::from_fn(|i| match i % 2 {
        0 => _mm256_unpacklo_ps(rows[i], rows[i + 1]),
        _ => _mm256_unpackhi_ps(rows[i - 1], rows[i]),
    });
    let [a, b, c, d, e, f, g, h] = pairs;
    let low = |x, y| _mm256_shuffle_ps::<0x44>(x, y);
    let high = |x, y| _mm256_shuffle_ps::<0xee>(x, y);
    let first = [low(a, c), high(a, c), low(b, d), high(b, d)];
    let second = [low(e, g), high(e, g), low(f, h), high(f, h)];
    for i in 0..4 {
        let lower = _mm256_permute2f128_ps::<0x20>(first[i], second[i]);
        let upper = _mm256_permute2f128_ps::<0x31>(first[i], second[i]);
        // SAFETY: the caller's.
        unsafe {
            _mm256_storeu_ps(to.add(i * to_stride), lower);
            _mm256_storeu_ps(to.add((i + 4) * to_stride), upper);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_arrives_and_nothing_else_is_touched() {
        for (rows, columns) in [(1, 1), (8, 8), (7, 33), (24, 9), (32, 197), (13, 16)] {
            let (from_stride, to_stride) = (columns + 3, rows + 5);
            let from: Vec<f32> = (0..rows * from_stride).map(|i| i as f32).collect();
            let mut to = vec![-1.0; columns * to_stride];
            transpose((&mut to, to_stride), (&from, from_stride), [rows, columns]);
            for column in 0..columns {
                for row in 0..to_stride {
                    let value = to[column * to_stride + row];
                    let expected = match row < rows {
                        true => from[row * from_stride + column],
                        false => -1.0,
                    };
                    assert_eq!(value, expected, "{rows} x {columns} at {row}, {column}");
                }
            }
        }
    }
}
