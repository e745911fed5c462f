use crate::common::{Data, centred, difference, dot, normal, solve, wide};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use ssl_edge_adapt::head::discriminant::DiscriminantProblem;
use ssl_edge_adapt::head::statistics::Statistics;
use ssl_edge_adapt::{AdaptError, Support};
use std::ops::Range;

/// Minus half the squared distance of `x` to each class mean under `(S + λI)⁻¹`, from the definition.
fn oracle(data: &Data, lambda: f64, x: &[f64]) -> Vec<f64> {
    let (d, classes) = (data.dim(), data.n_classes);
    let mut means = vec![vec![0.0; d]; classes];
    for (c, mean) in means.iter_mut().enumerate() {
        let rows: Vec<_> = (0..data.rows.len())
            .filter(|&i| data.labels[i] == c)
            .collect();
        for &i in &rows {
            mean.iter_mut()
                .zip(&data.rows[i])
                .for_each(|(m, x)| *m += f64::from(*x) / rows.len() as f64);
        }
    }
    let mut scatter = vec![vec![0.0; d]; d];
    for (row, &label) in data.rows.iter().zip(&data.labels) {
        let u: Vec<f64> = wide(row)
            .iter()
            .zip(&means[label])
            .map(|(x, m)| x - m)
            .collect();
        for i in 0..d {
            for j in 0..d {
                scatter[i][j] += u[i] * u[j];
            }
        }
    }
    for (i, row) in scatter.iter_mut().enumerate() {
        row[i] += lambda;
    }
    let distance = |mean: &Vec<f64>| {
        let u: Vec<f64> = x.iter().zip(mean).map(|(x, m)| x - m).collect();
        let solved: Vec<f64> =
            solve(scatter.clone(), u.iter().map(|v| vec![*v]).collect()).concat();
        -0.5 * dot(&u, &solved)
    };
    means.iter().map(distance).collect()
}

fn both_spaces<'s>(support: &'s Support<'s>) -> [DiscriminantProblem<'s>; 2] {
    let statistics = Statistics::of(support);
    [
        DiscriminantProblem::in_sample_space(support).unwrap(),
        DiscriminantProblem::in_feature_space(&statistics, support).unwrap(),
    ]
}

#[test]
fn scores_equal_the_definition_up_to_a_constant() {
    for data in [
        Data::clusters(1, &[5, 9], 4, 1.0),
        Data::clusters(2, &[3, 4, 2, 6], 20, 0.5),
    ] {
        let support = data.support();
        let query = Data::clusters(9, &[3], data.dim(), 1.0);
        for problem in both_spaces(&support) {
            for factor in [1e-2, 1.0, 1e2] {
                let lambda = factor * problem.unit();
                let head = problem.solve(lambda);
                for row in &query.rows {
                    let want = centred(&oracle(&data, lambda, &wide(row)));
                    assert!(difference(&centred(&head.scores(row)), &want) < 1e-8);
                }
            }
        }
    }
}

/// The oracle without some rows of a class of `n` samples, asked about the first of them; the distance to its own class is corrected.
pub(crate) fn oracle_without(data: &Data, lambda: f64, rows: Range<usize>, n: usize) -> Vec<f64> {
    let mut scores = oracle(
        &data.without(rows.clone()),
        lambda,
        &wide(&data.rows[rows.start]),
    );
    scores[data.labels[rows.start]] *= 1.0 - 1.0 / (n * n) as f64;
    scores
}

#[test]
fn leave_one_out_equals_refits() {
    for (data, sizes) in [
        (Data::clusters(1, &[5, 9], 4, 1.0), [5, 9, 0, 0]),
        (Data::clusters(2, &[3, 4, 2, 6], 20, 0.5), [3, 4, 2, 6]),
    ] {
        let support = data.support();
        for problem in both_spaces(&support) {
            for factor in [1e-2, 1.0] {
                let lambda = factor * problem.unit();
                let got = problem.leave_one_out(lambda);
                for i in 0..data.rows.len() {
                    let want = oracle_without(&data, lambda, i..i + 1, sizes[data.labels[i]]);
                    let got = &got[i * data.n_classes..(i + 1) * data.n_classes];
                    assert!(difference(got, &want) < 1e-7, "{got:?} {want:?}");
                }
            }
        }
    }
}

#[test]
fn groups_left_out_equal_refits() {
    let data = Data::clusters(4, &[7, 6, 8], 9, 0.7);
    let support = data.support();
    let groups = [
        0..3,
        3..4,
        4..7,
        7..8,
        8..13,
        13..15,
        15..18,
        18..20,
        20..21,
    ];
    let sizes = groups.clone().map(|group| group.len());
    let of_class = [3, 2, 4];
    for problem in both_spaces(&support) {
        for factor in [1e-2, 1.0] {
            let lambda = factor * problem.unit();
            let got = problem.leave_groups_out(lambda, &sizes).unwrap();
            for (group, got) in groups.iter().zip(got.chunks(3)) {
                let n = of_class[data.labels[group.start]];
                let want = oracle_without(&data, lambda, group.clone(), n);
                assert!(difference(got, &want) < 1e-7, "{group:?}: {got:?} {want:?}");
            }
        }
        for sizes in [&[7, 6, 7][..], &[8, 5, 8], &[7, 6, 8, 0]] {
            let error = problem.leave_groups_out(1.0, sizes).unwrap_err();
            assert!(matches!(error, AdaptError::Shape { .. }), "{sizes:?}");
        }
    }
}

/// Without its only sample a class is gone: what the others are told does not depend on how many rows that sample has.
#[test]
fn the_only_group_of_a_class_is_left_out() {
    let data = Data::clusters(7, &[3, 4, 5], 6, 1.0);
    let support = data.support();
    let problem = DiscriminantProblem::in_sample_space(&support).unwrap();
    let lambda = problem.unit();
    let got = problem.leave_groups_out(lambda, &[3, 2, 2, 1, 4]).unwrap();
    assert_eq!(got[0], f64::NEG_INFINITY);
    let mut others = data.without(0..3);
    others.labels.iter_mut().for_each(|label| *label -= 1);
    others.n_classes = 2;
    let want = oracle(&others, lambda, &wide(&data.rows[0]));
    assert!(difference(&got[1..3], &want) < 1e-8, "{got:?} {want:?}");
}

/// Over many jobs, samples left out are as far from their class as new samples are from the class of the fitted head.
#[test]
fn samples_left_out_are_as_far_from_their_class_as_new_ones() {
    let mut rng = ChaCha8Rng::from_seed([9; 32]);
    for n in [2, 3, 5] {
        let (mut left_out, mut new, jobs) = (0.0, 0.0, 4000 / n);
        for _ in 0..jobs {
            let mut row = || {
                (0..6)
                    .map(|_| normal(&mut rng) as f32)
                    .collect::<Vec<f32>>()
            };
            let data = Data {
                rows: (0..2 * n).map(|_| row()).collect(),
                labels: (0..2 * n).map(|i| i % 2).collect(),
                n_classes: 2,
            };
            let support = data.support();
            let problem = DiscriminantProblem::in_sample_space(&support).unwrap();
            // With a large λ distances are Euclidean.
            let lambda = 1e9;
            let scores = problem.leave_one_out(lambda);
            let own = scores
                .chunks(2)
                .zip(&data.labels)
                .map(|(row, &label)| -2.0 * lambda * row[label]);
            left_out += own.sum::<f64>() / (2 * n * jobs) as f64;
            new -= 2.0 * lambda * oracle(&data, lambda, &wide(&row()))[0] / jobs as f64;
        }
        let expected = 6.0 * (1.0 + 1.0 / n as f64);
        println!("{n}: {left_out:.3}, new ones {new:.3}, expected {expected:.3}");
        assert!((left_out / expected - 1.0).abs() < 0.03 && (new / expected - 1.0).abs() < 0.06);
    }
}

#[test]
fn a_large_lambda_is_the_nearest_mean() {
    let data = Data::clusters(3, &[6, 3, 4], 5, 1.0);
    let support = data.support();
    let problem = DiscriminantProblem::in_sample_space(&support).unwrap();
    let head = problem.solve(1e9 * problem.unit());
    for row in &Data::clusters(8, &[40], 5, 1.0).rows {
        let scores = head.scores(row);
        let got = (0..3)
            .max_by(|a, b| scores[*a].total_cmp(&scores[*b]))
            .unwrap();
        let distance = |class: usize| -> f64 {
            let members: Vec<_> = data
                .rows
                .iter()
                .zip(&data.labels)
                .filter(|(_, l)| **l == class)
                .collect();
            (0..5)
                .map(|j| {
                    let mean = members.iter().map(|(r, _)| f64::from(r[j])).sum::<f64>()
                        / members.len() as f64;
                    (f64::from(row[j]) - mean).powi(2)
                })
                .sum()
        };
        let want = (0..3)
            .min_by(|a, b| distance(*a).total_cmp(&distance(*b)))
            .unwrap();
        assert_eq!(got, want);
    }
}

#[test]
fn a_class_of_one_sample_does_not_disturb_the_others() {
    let data = Data::clusters(5, &[4, 1, 5], 6, 1.0);
    let support = data.support();
    let problem = DiscriminantProblem::in_sample_space(&support).unwrap();
    let lambda = problem.unit();
    let got = problem.leave_one_out(lambda);
    assert_eq!(got[4 * 3 + 1], f64::NEG_INFINITY);
    for i in (0..10).filter(|i| *i != 4) {
        let want = oracle_without(&data, lambda, i..i + 1, [4, 1, 5][data.labels[i]]);
        assert!(difference(&got[i * 3..i * 3 + 3], &want) < 1e-8);
    }
}

#[test]
fn one_sample_a_class_is_the_nearest_sample() {
    let data = Data::clusters(6, &[1, 1, 1], 4, 1.0);
    let support = data.support();
    let head = {
        let problem = DiscriminantProblem::in_sample_space(&support).unwrap();
        problem.solve(problem.unit())
    };
    for (label, row) in data.rows.iter().enumerate() {
        let scores = head.scores(row);
        assert!((0..3).all(|c| c == label || scores[c] < scores[label]));
    }
}
