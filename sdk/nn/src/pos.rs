//! Position tables of a vision transformer.
//!
//! [`bicubic_matrix`] writes the resampling of a learned position grid as one constant matrix, so that it is
//! differentiable, exportable and exact: PyTorch's `interpolate(mode="bicubic", align_corners=False)` with a = -0.75
//! and clamped borders, the resampling of DINO's `interpolate_pos_encoding`, with the scale taken from the two sizes
//! (DINO v1 adds 0.1 to the target size against rounding of its output size; here the size is given).
//! [`sincos_2d`] is the fixed table of MAE.

/// PyTorch's bicubic coefficient.
const A: f64 = -0.75;

/// Matrix `[to_h * to_w, from_h * from_w]`, row-major, that resamples a row-major grid of `from` = `[h, w]` cells to
/// `to` = `[h, w]` cells. Equal sizes give the identity; each row sums to 1.
pub fn bicubic_matrix(from: [usize; 2], to: [usize; 2]) -> Vec<f64> {
    let rows = bicubic_axis(from[0], to[0]);
    let cols = bicubic_axis(from[1], to[1]);
    let width = from[0] * from[1];
    let mut matrix = vec![0.0; to[0] * to[1] * width];
    for (out, line) in matrix.chunks_exact_mut(width.max(1)).enumerate() {
        let (oy, ox) = (out / to[1], out % to[1]);
        for (iy, &wy) in rows[oy * from[0]..][..from[0]].iter().enumerate() {
            for (ix, &wx) in cols[ox * from[1]..][..from[1]].iter().enumerate() {
                line[iy * from[1] + ix] = wy * wx;
            }
        }
    }
    matrix
}

/// One axis of [`bicubic_matrix`]: `[to, from]`.
fn bicubic_axis(from: usize, to: usize) -> Vec<f64> {
    let mut axis = vec![0.0; to * from];
    let scale = from as f64 / to as f64;
    for out in 0..to {
        let source = scale * (out as f64 + 0.5) - 0.5;
        let base = source.floor();
        let t = source - base;
        let taps = [outer(t + 1.0), inner(t), inner(1.0 - t), outer(2.0 - t)];
        for (k, tap) in taps.into_iter().enumerate() {
            let index = (base as i64 - 1 + k as i64).clamp(0, from as i64 - 1) as usize;
            axis[out * from + index] += tap;
        }
    }
    axis
}

/// The kernel for distances up to 1.
fn inner(x: f64) -> f64 {
    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
}

/// The kernel for distances from 1 to 2.
fn outer(x: f64) -> f64 {
    ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
}

/// Fixed sine-cosine table `[h * w, dim]`, row-major over `grid` = `[h, w]`: the first half of the channels encodes
/// the column, the second half the row; each half is `[sin | cos]` of `position * 10000^(-i / (dim / 4))`.
/// MAE's `get_2d_sincos_pos_embed` without its zero row for CLS.
///
/// # Panics
/// If `dim` is not a multiple of 4.
pub fn sincos_2d(dim: usize, grid: [usize; 2]) -> Vec<f32> {
    assert!(
        dim.is_multiple_of(4),
        "a 2-D sine-cosine table needs a width that is a multiple of 4, got {dim}"
    );
    let quarter = dim / 4;
    let mut table = Vec::with_capacity(grid[0] * grid[1] * dim);
    for row in 0..grid[0] {
        for column in 0..grid[1] {
            for position in [column, row] {
                let angle = |i: usize| position as f64 / 10_000f64.powf(i as f64 / quarter as f64);
                table.extend((0..quarter).map(|i| angle(i).sin() as f32));
                table.extend((0..quarter).map(|i| angle(i).cos() as f32));
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel as one even function of the distance (Keys 1981 with a = -0.75).
    fn keys(distance: f64) -> f64 {
        let d = distance.abs();
        match d {
            d if d <= 1.0 => 1.25 * d.powi(3) - 2.25 * d.powi(2) + 1.0,
            d if d < 2.0 => -0.75 * d.powi(3) + 3.75 * d.powi(2) - 6.0 * d + 3.0,
            _ => 0.0,
        }
    }

    /// Convolution of the border-extended signal with the kernel, evaluated at every source position.
    fn resample(signal: &[f64], [h, w]: [usize; 2], [th, tw]: [usize; 2]) -> Vec<f64> {
        let at = |y: i64, x: i64| {
            signal[y.clamp(0, h as i64 - 1) as usize * w + x.clamp(0, w as i64 - 1) as usize]
        };
        let mut out = Vec::new();
        for oy in 0..th {
            for ox in 0..tw {
                let y = (oy as f64 + 0.5) * h as f64 / th as f64 - 0.5;
                let x = (ox as f64 + 0.5) * w as f64 / tw as f64 - 0.5;
                let mut sum = 0.0;
                for sy in -4..h as i64 + 4 {
                    for sx in -4..w as i64 + 4 {
                        sum += at(sy, sx) * keys(y - sy as f64) * keys(x - sx as f64);
                    }
                }
                out.push(sum);
            }
        }
        out
    }

    #[test]
    fn matrix_equals_convolution() {
        let cases = [
            ([14, 14], [6, 6]),
            ([8, 8], [4, 4]),
            ([3, 5], [7, 4]),
            ([1, 4], [3, 9]),
            ([14, 14], [16, 31]),
        ];
        for (from, to) in cases {
            let signal: Vec<f64> = (0..from[0] * from[1])
                .map(|i| (i as f64 * 12.9898).sin() * 3.0 + (i % 7) as f64)
                .collect();
            let matrix = bicubic_matrix(from, to);
            assert_eq!(matrix.len(), to[0] * to[1] * signal.len());
            let expected = resample(&signal, from, to);
            for (line, expected) in matrix.chunks_exact(signal.len()).zip(expected) {
                let got: f64 = line.iter().zip(&signal).map(|(a, b)| a * b).sum();
                assert!(
                    (got - expected).abs() < 1e-12,
                    "{from:?} -> {to:?}: {got} {expected}"
                );
                assert!((line.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn equal_sizes_give_the_identity() {
        let matrix = bicubic_matrix([3, 4], [3, 4]);
        for (i, &value) in matrix.iter().enumerate() {
            assert_eq!(value, f64::from(i / 12 == i % 12));
        }
    }

    #[test]
    fn sincos_has_column_first_and_cosine_second() {
        let (dim, width) = (16, 5);
        let table = sincos_2d(dim, [3, width]);
        assert_eq!(table.len(), 3 * width * dim);
        assert_eq!(
            table[..dim],
            [[0.0f32; 4], [1.0; 4], [0.0; 4], [1.0; 4]].concat()
        );
        let (row, column) = (2.0f64, 3.0f64);
        let token = &table[(2 * width + 3) * dim..][..dim];
        let close = |got: f32, expected: f64| assert!((f64::from(got) - expected).abs() < 1e-6);
        close(token[0], column.sin());
        close(token[4], column.cos());
        close(token[8], row.sin());
        close(token[12], row.cos());
        close(token[1], (column * 0.1).sin());
        close(token[15], (row * 0.001).cos());
    }
}
