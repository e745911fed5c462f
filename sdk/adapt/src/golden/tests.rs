//! Made-up grids with known shifts and statistics.

use super::*;

const SIZE: [usize; 2] = [6, 7];

/// A pattern without repetition, seen at (row + dy, col + dx), with a little noise.
fn tokens(dy: isize, dx: isize, noise: u32) -> Vec<f32> {
    let mut out = Vec::new();
    for at in 0..42isize {
        let (y, x) = (at / 7 + dy, at % 7 + dx);
        for j in 0..4isize {
            let phase = (y * 13 + x * 29 + j * 7 + y * x * j) as f32;
            let jitter = ((at as u32 * 7 + j as u32 * 3 + noise * 11) % 17) as f32 / 17.0 - 0.5;
            out.push(phase.sin() + 0.02 * jitter * (noise > 0) as u8 as f32);
        }
    }
    out
}

fn grid(tokens: &[f32]) -> TokenGrid<'_> {
    TokenGrid::new(tokens, SIZE, 4).unwrap()
}

fn fit(parts: &[Vec<f32>]) -> Golden {
    let grids: Vec<_> = parts.iter().map(|p| grid(p)).collect();
    Golden::fit(&grids, &GoldenOptions::default()).unwrap()
}

#[test]
fn every_small_shift_is_found_and_undone() {
    for parts in [
        vec![tokens(0, 0, 0)],
        (1..5).map(|n| tokens(0, 0, n)).collect(),
    ] {
        let golden = fit(&parts);
        for dy in -2..=2 {
            for dx in -2..=2 {
                let mut moved = tokens(dy, dx, 0);
                let defect = 3 * 7 + 3;
                moved[4 * defect] += 3.0;
                let verdict = golden.compare(&grid(&moved)).unwrap();
                assert_eq!(verdict.shift, [dy, dx]);
                let keep = verdict.differences.keep.as_ref().unwrap();
                let left: usize = (6 - dy.unsigned_abs()) * (7 - dx.unsigned_abs());
                assert_eq!(keep.iter().filter(|k| **k).count(), left);
                let values = &verdict.differences.values;
                let largest = (0..42)
                    .max_by(|&a, &b| values[a].total_cmp(&values[b]))
                    .unwrap();
                assert_eq!(largest, defect);
            }
        }
    }
}

#[test]
fn the_nearest_of_two_parts_counts_at_each_token() {
    let (a, mut b) = (tokens(0, 0, 0), tokens(0, 0, 0));
    b[..4].copy_from_slice(&[-1.0, 1.0, -1.0, 1.0]);
    let golden = fit(&[a.clone(), b.clone()]);
    for (frame, nearest) in [(&a, 0), (&b, 0)] {
        let verdict = golden.compare(&grid(frame)).unwrap();
        assert_eq!(verdict.nearest, Some(nearest));
        assert!(verdict.differences.values.iter().all(|v| *v < 1e-6));
    }
    assert_eq!(golden.len(), 2);
}

/// Mean and variance of one position by hand.
#[test]
fn statistics_are_those_of_each_position() {
    let options = GoldenOptions {
        prepare: Prepare {
            window: 1,
            unit_norm: false,
        },
        max_shift: 0,
    };
    let parts = [[1.0, 10.0], [2.0, 10.0], [3.0, 10.0]];
    let grids: Vec<_> = parts
        .iter()
        .map(|p| TokenGrid::new(p, [1, 2], 1).unwrap())
        .collect();
    let golden = Golden::fit(&grids, &options).unwrap();
    let verdict = golden
        .compare(&TokenGrid::new(&[5.0, 10.5], [1, 2], 1).unwrap())
        .unwrap();
    // Scatter 2 and 0 with two degrees of freedom each: overall 0.5, shrunk (2 + 2) / 6 and (0 + 2) / 6, times 4 / 3.
    let want = [
        9.0 / (4.0 / 6.0 * 4.0 / 3.0),
        0.25 / (2.0 / 6.0 * 4.0 / 3.0),
    ];
    for (got, want) in verdict.differences.values.iter().zip(want) {
        assert!((f64::from(*got) - want).abs() < 1e-4, "{got} {want}");
    }
}

#[test]
fn masks_and_wrong_grids() {
    let part = tokens(0, 0, 0);
    let keep: Vec<bool> = (0..42).map(|i| i != 5).collect();
    let golden = Golden::fit(
        &[grid(&part).with_mask(&keep).unwrap()],
        &GoldenOptions::default(),
    )
    .unwrap();
    let verdict = golden.compare(&grid(&part)).unwrap();
    assert_eq!(verdict.differences.keep.unwrap(), keep);
    let only: Vec<bool> = keep.iter().map(|k| !k).collect();
    let left = golden.compare(&grid(&part).with_mask(&only).unwrap());
    assert!(
        left.is_ok_and(|v| v.shift != [0, 0]),
        "the token has a counterpart only when moved"
    );
    let other = TokenGrid::new(&part, [7, 6], 4).unwrap();
    assert!(matches!(
        golden.compare(&other),
        Err(AdaptError::GridShape { .. })
    ));
    assert!(matches!(
        Golden::fit(&[], &GoldenOptions::default()),
        Err(AdaptError::NoGoodFrame)
    ));
}
