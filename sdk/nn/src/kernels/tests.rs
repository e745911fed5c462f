//! Products of f32 beside sums in f64, for every height of a call, and how rows are cut into calls.

use super::*;

/// Values that a product of few of them holds without rounding: small multiples of 1/8.
fn eighths(len: usize, seed: usize) -> Vec<f32> {
    let eighth = |i: usize| ((i * 37 + seed * 11) % 31) as f32 / 8.0 - 2.0;
    (0..len).map(eighth).collect()
}

/// Sums of such values are exact, so that every instruction set has the same bits.
#[test]
fn every_height_and_depth_equals_plain_sums() {
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let kernels = Kernels::of(isa);
        let columns = kernels.columns;
        for rows in 1..=kernels.rows {
            for k in [1, 4, 7, 8, 9, 24, 67, 300] {
                let by_rows = [k + 3, 1];
                for ([lda, ka], ldb, add, with_bias) in [
                    (by_rows, columns, false, true),
                    (by_rows, columns, true, false),
                    (by_rows, columns + 5, true, true),
                    ([1, kernels.rows], columns, false, true),
                    ([1, kernels.rows + 3], columns, true, false),
                    ([1, kernels.rows], columns + 5, true, true),
                    ([2, 2 * kernels.rows], columns, false, false),
                ] {
                    let ldc = columns + 2;
                    let a = eighths(rows * lda + k * ka, 1);
                    let b = eighths(k * ldb, 2);
                    let bias = eighths(columns, 3);
                    let before = eighths(rows * ldc, 4);
                    let mut c = before.clone();
                    let tile = FloatTile {
                        rows,
                        k,
                        a: a.as_ptr(),
                        lda,
                        ka,
                        b: b.as_ptr(),
                        ldb,
                        bias: if with_bias {
                            bias.as_ptr()
                        } else {
                            std::ptr::null()
                        },
                        c: c.as_mut_ptr(),
                        ldc,
                        add,
                        ahead: Ahead::nothing(b.as_ptr()),
                    };
                    // SAFETY: A, B, C and the bias were made for these sizes.
                    unsafe { kernels.float(&tile) };
                    for (i, (found, before)) in c.iter().zip(&before).enumerate() {
                        let (row, column) = (i / ldc, i % ldc);
                        let mut expected = f64::from(*before);
                        if column < columns {
                            let products = (0..k).map(|k| {
                                f64::from(a[row * lda + k * ka]) * f64::from(b[k * ldb + column])
                            });
                            expected = if add { expected } else { 0.0 };
                            expected += products.sum::<f64>();
                            expected += if with_bias {
                                f64::from(bias[column])
                            } else {
                                0.0
                            };
                        }
                        assert_eq!(
                            f64::from(*found),
                            expected,
                            "{isa} {rows} x {k} at {row}, {column}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn cuts_cover_all_rows_once_in_calls_of_nearly_one_height() {
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let kernels = Kernels::of(isa);
        for rows in 0..200 {
            let cuts: Vec<_> = kernels.cuts(rows).collect();
            assert_eq!(cuts.len(), rows.div_ceil(kernels.rows));
            let mut next = 0;
            for cut in &cuts {
                assert_eq!(cut.first, next);
                next += cut.rows;
            }
            assert_eq!(next, rows);
            let heights = || cuts.iter().map(|cut| cut.rows);
            let (least, most) = (heights().min(), heights().max());
            assert!(most <= Some(kernels.rows) && most <= least.map(|least| least + 1));
        }
    }
}

#[test]
fn strips_are_columns_of_their_rows() {
    let from = eighths(40 * 50, 5);
    for height in [4, 5, 6, 12] {
        for width in 1..=height {
            for (at, steps) in [(0, 1), (3, 17), (50 * 24, 16), (50 * 40 - width, 1)] {
                let mut to = vec![0.0; steps * height];
                strip((&mut to, height), (&from[at..], 50), [steps, width]);
                for (k, row) in to.chunks(height).enumerate() {
                    assert_eq!(row[..width], from[at + 50 * k..][..width], "{height} {k}");
                }
            }
        }
    }
    let mut ends_with_the_slice = vec![0.0; 2 * 12];
    strip(
        (&mut ends_with_the_slice, 12),
        (&from[..50 + 7], 50),
        [2, 7],
    );
    assert_eq!(ends_with_the_slice[12..][..7], from[50..][..7]);
}
