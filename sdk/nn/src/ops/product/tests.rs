//! Products beside sums in f64, and on what their bits depend.

use half::bf16;

use super::left::{Place, SAME_SET};
use super::packing::{DEPTH, STRIDE};
use super::*;

fn noise(seed: u32, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 - 0.5
    };
    (0..len).map(|_| next()).collect()
}

/// A matrix of this shape in memory that is wider than it, plain or transposed.
fn matrix(data: &[f32], [r, c]: [usize; 2], extra: usize, transposed: bool) -> Matrix<'_> {
    match transposed {
        true => rows(data, c, r, r + extra).transpose(),
        false => rows(data, r, c, c + extra),
    }
}

fn at(m: &Matrix, row: usize, column: usize) -> f64 {
    f64::from(match m.transposed {
        true => m.data[column * m.stride + row],
        false => m.data[row * m.stride + column],
    })
}

type Multiply<'f> = &'f dyn Fn(MatrixMut<'_>, Accum<'_>, Matrix<'_>, Matrix<'_>);

/// Compares with sums in f64 of the factors as they are, or in bf16; what lies beside the result must stay as it is.
fn check(
    shape: [usize; 3],
    extra: usize,
    transposed: [bool; 2],
    precision: Precision,
    multiply: Multiply,
) {
    let [m, k, n] = shape;
    let sides = m.max(k).max(n) + extra;
    let (a, b) = (noise(1, sides * sides), noise(2, sides * sides));
    let a = matrix(&a, [m, k], extra, transposed[0]);
    let b = matrix(&b, [k, n], extra, transposed[1]);
    let read = |m: &Matrix, row, column| match precision {
        Precision::Bf16 => bf16::from_f32(at(m, row, column) as f32).to_f64(),
        _ => at(m, row, column),
    };
    let sum = |row, column| -> f64 {
        let products = (0..k).map(|k| read(&a, row, k) * read(&b, k, column));
        products.sum()
    };
    let sums: Vec<f64> = (0..m * n).map(|i| sum(i / n, i % n)).collect();
    let bias = noise(4, n);
    for accum in [Accum::Replace, Accum::Add, Accum::Bias(&bias)] {
        let before = noise(3, m * (n + extra));
        let mut result = before.clone();
        // The last row may end with the slice.
        let len = ((m * (n + extra)) as isize - extra as isize).max(0) as usize;
        multiply(rows_mut(&mut result[..len], m, n, n + extra), accum, a, b);
        for (i, (found, before)) in result.iter().zip(&before).enumerate() {
            let (row, column) = (i / (n + extra), i % (n + extra));
            let mut expected = f64::from(*before);
            if column < n {
                let sum = sums[row * n + column];
                expected = match accum {
                    Accum::Replace => sum,
                    Accum::Add => sum + expected,
                    Accum::Bias(bias) => sum + f64::from(bias[column]),
                };
            }
            let off = (f64::from(*found) - expected).abs();
            assert!(
                off <= 1e-6 * (1.0 + k as f64).sqrt(),
                "{precision} {shape:?} {transposed:?} at {row}, {column}: {found} for {expected}"
            );
        }
    }
}

/// Every way to pack that this CPU can multiply.
fn packings() -> impl Iterator<Item = (Precision, Packing)> {
    let best = Packing::of(Precision::Bf16);
    let in_bf16 = [Packing::Rounded, best].map(|packing| (Precision::Bf16, packing));
    [(Precision::F32, Packing::Whole)]
        .into_iter()
        .chain(in_bf16)
}

const SHAPES: [[usize; 3]; 14] = [
    [0, 3, 2],
    [3, 0, 2],
    [3, 2, 0],
    [1, 1, 1],
    [12, 64, 32],
    [13, 7, 33],
    [50, 64, 50],
    [197, 64, 31],
    [5, 513, 70],
    [300, 90, 40],
    [121, 1100, 65],
    [2, 5, 400],
    [31, 2115, 33],
    // B takes several groups of blocks
    [20, 1100, 2100],
];

#[test]
fn equals_sums_in_f64() {
    for shape in SHAPES {
        for transposed in [[false, false], [false, true], [true, false], [true, true]] {
            for (precision, packing) in packings() {
                check(shape, 3, transposed, precision, &|dst, accum, a, b| {
                    multiply(dst, accum, [a, b], packing, 1);
                });
                for threads in [2, 5] {
                    let pool = rayon::ThreadPoolBuilder::new()
                        .num_threads(threads)
                        .build()
                        .unwrap();
                    pool.install(|| {
                        check(shape, 0, transposed, precision, &|dst, accum, a, b| {
                            product_parallel(dst, accum, a, b, precision);
                        });
                    });
                }
            }
        }
    }
}

#[test]
fn rows_that_share_a_set_of_the_cache_are_packed() {
    check(
        [30, 1000, 40],
        24,
        [false, false],
        Precision::F32,
        &|dst, accum, a, b| {
            multiply(dst, accum, [a, b], Packing::Whole, 1);
        },
    );
    let data = noise(5, 30 * SAME_SET);
    let a = rows(&data, 30, 1000, SAME_SET);
    let packing = Packing::Whole;
    let kernels = packing.kernels();
    let cuts: Vec<_> = kernels.cuts(30).collect();
    let place = |a: &Matrix| Place::of(packing, a, &cuts, kernels.rows);
    assert!(matches!(place(&a), Place::Rows(_)));
    let other = rows(&data, 30, 1000, SAME_SET - 8);
    assert!(matches!(place(&other), Place::There));
    let mut packed = vec![0.0; 20 * STRIDE];
    packing.rows(&mut packed, &a, [10, 20], [DEPTH, 488]);
    assert_eq!(packed[19 * STRIDE + 487], data[29 * SAME_SET + DEPTH + 487]);
}

#[test]
fn a_factor_that_is_packed_once_gives_the_products_own_bits() {
    for [m, k, n] in [
        [1, 1, 1],
        [13, 7, 33],
        [50, 64, 197],
        [64, 197, 32],
        [7, 1100, 65],
    ] {
        let sides = m.max(k).max(n);
        let (a, b) = (noise(1, sides * sides), noise(2, sides * sides));
        for transposed in [[false, false], [false, true], [true, false], [true, true]] {
            let a = matrix(&a, [m, k], 0, transposed[0]);
            let b = matrix(&b, [k, n], 0, transposed[1]);
            let mut whole = noise(3, m * n);
            let mut once = whole.clone();
            multiply(
                rows_mut(&mut whole, m, n, n),
                Accum::Add,
                [a, b],
                Packing::Whole,
                1,
            );
            let factor = Factor::new(b);
            factor.product(rows_mut(&mut once, m, n, n), Accum::Add, a);
            assert_eq!(once, whole);

            let padded = factor.padded();
            let mut wide = noise(4, m * padded);
            factor.product(rows_mut(&mut wide, m, padded, padded), Accum::Replace, a);
            multiply(
                rows_mut(&mut whole, m, n, n),
                Accum::Replace,
                [a, b],
                Packing::Whole,
                1,
            );
            for (wide, whole) in wide.chunks(padded).zip(whole.chunks(n)) {
                assert_eq!(wide[..n], *whole);
                assert!(wide[n..].iter().all(|v| *v == 0.0));
            }
        }
    }
}

#[test]
fn columns_side_by_side_are_written_apart() {
    let (a, b) = (noise(5, 9 * 8), noise(6, 8 * 6));
    let mut out = noise(7, 9 * 20);
    let before = out.clone();
    let parts = rows_mut(&mut out, 9, 18, 20).split_columns(6);
    for (i, mut part) in parts.enumerate().filter(|(i, _)| *i != 1) {
        let accum = if i == 0 { Accum::Replace } else { Accum::Add };
        let a = rows(&a, 9, 8, 8).subrows(i, 7);
        Factor::new(rows(&b, 8, 6, 6)).product(part.subrows(1, 7), accum, a);
    }
    let sum = |row: usize, column: usize| -> f32 {
        (0..8).map(|k| a[row * 8 + k] * b[k * 6 + column]).sum()
    };
    for (i, (found, before)) in out.iter().zip(&before).enumerate() {
        let (row, column) = (i / 20, i % 20);
        let wanted = match (row, column) {
            (1..8, 0..6) => sum(row - 1, column),
            (1..8, 12..18) => before + sum(row + 1, column - 12),
            _ => *before,
        };
        assert!(
            (found - wanted).abs() < 1e-5,
            "{row}, {column}: {found} for {wanted}"
        );
    }
}

#[test]
fn what_is_not_finite_shows_in_the_product() {
    for (_, packing) in packings() {
        for bad in [
            f32::NAN,
            -f32::NAN,
            f32::from_bits(0x7fff_ffff),
            f32::INFINITY,
        ] {
            let mut a = noise(9, 5 * 40);
            a[3 * 40 + 17] = bad;
            let b = noise(10, 40 * 33);
            for transposed in [false, true] {
                let mut y = vec![0.0; 33 * 5];
                let (a, b) = (rows(&a, 5, 40, 40), rows(&b, 40, 33, 33));
                let (n_rows, n_columns, factors) = match transposed {
                    false => (5, 33, [a, b]),
                    true => (33, 5, [b.transpose(), a.transpose()]),
                };
                let dst = rows_mut(&mut y, n_rows, n_columns, n_columns);
                multiply(dst, Accum::Replace, factors, packing, 1);
                for (i, value) in y.iter().enumerate() {
                    let row = if transposed { i % 5 } else { i / 33 };
                    assert_eq!(
                        value.is_finite(),
                        row != 3,
                        "{packing:?} {bad} {transposed}"
                    );
                }
            }
        }
    }
}

#[test]
fn bits_depend_on_nothing_but_the_factors() {
    let [m, k, n] = [301, 1100, 200];
    let (a, b) = (noise(7, m * k), noise(8, k * n));
    let (a, b) = (rows(&a, m, k, k), rows(&b, k, n, n));
    for precision in [Precision::F32, Precision::Bf16] {
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let mut y = vec![0.0; m * n];
            pool.install(|| {
                product_parallel(rows_mut(&mut y, m, n, n), Accum::Replace, a, b, precision)
            });
            y
        };
        let one = with(1);
        assert!([2, 3, 8].into_iter().all(|threads| with(threads) == one));
        // a product of some rows is those rows of the product
        let mut some = vec![0.0; 7 * n];
        let dst = rows_mut(&mut some, 7, n, n);
        multiply(
            dst,
            Accum::Replace,
            [a.subrows(100, 7), b],
            Packing::of(precision),
            1,
        );
        assert_eq!(some, one[100 * n..107 * n]);
    }
}
