use crate::common::{Data, difference, dot, solve, wide};
use ssl_edge_adapt::head::ridge::{Ridge, RidgeProblem};
use ssl_edge_adapt::head::statistics::Statistics;
use ssl_edge_adapt::{AdaptError, Support};

/// Normal equations with a column of ones whose weight is not penalised; no centring.
fn oracle(data: &Data, lambda: f64) -> Ridge {
    let (d, classes) = (data.dim(), data.n_classes);
    let mut a = vec![vec![0.0; d + 1]; d + 1];
    let mut b = vec![vec![0.0; classes]; d + 1];
    for (row, &label) in data.rows.iter().zip(&data.labels) {
        let mut x = wide(row);
        x.push(1.0);
        for i in 0..=d {
            b[i][label] += x[i];
            for j in 0..=d {
                a[i][j] += x[i] * x[j];
            }
        }
    }
    for (i, row) in a.iter_mut().enumerate().take(d) {
        row[i] += lambda;
    }
    let w = solve(a, b);
    Ridge {
        weights: (0..classes)
            .flat_map(|c| (0..d).map(|j| w[j][c]).collect::<Vec<_>>())
            .collect(),
        bias: w[d].clone(),
    }
}

fn cases() -> Vec<Data> {
    vec![
        Data::clusters(1, &[5, 9], 4, 1.0),
        Data::clusters(2, &[3, 4, 2, 6], 30, 0.5),
        Data::clusters(3, &[7, 1, 12], 20, 0.3),
    ]
}

fn both_spaces<'s>(support: &'s Support<'s>) -> [RidgeProblem<'s>; 2] {
    let statistics = Statistics::of(support);
    [
        RidgeProblem::in_sample_space(support).unwrap(),
        RidgeProblem::in_feature_space(&statistics, support).unwrap(),
    ]
}

#[test]
fn both_spaces_solve_the_normal_equations() {
    for data in cases() {
        let support = data.support();
        for problem in both_spaces(&support) {
            for factor in [1e-3, 1.0, 1e3] {
                let lambda = factor * problem.unit();
                let (got, want) = (problem.solve(lambda), oracle(&data, lambda));
                assert!(difference(&got.weights, &want.weights) < 1e-8);
                assert!(difference(&got.bias, &want.bias) < 1e-8);
            }
        }
    }
}

#[test]
fn leave_one_out_equals_refits() {
    for data in cases() {
        let support = data.support();
        for problem in both_spaces(&support) {
            let lambda = 0.3 * problem.unit();
            let got = problem.leave_one_out(lambda);
            for (i, row) in data.rows.iter().enumerate() {
                let refit = oracle(&data.without(i..i + 1), lambda);
                let x = wide(row);
                let want: Vec<f64> = (0..data.n_classes)
                    .map(|c| {
                        dot(&refit.weights[c * x.len()..(c + 1) * x.len()], &x) + refit.bias[c]
                    })
                    .collect();
                assert!(
                    difference(&got[i * data.n_classes..(i + 1) * data.n_classes], &want) < 1e-8
                );
            }
        }
    }
}

#[test]
fn scores_are_the_linear_function() {
    let data = Data::clusters(4, &[4, 4, 4], 7, 1.0);
    let support = data.support();
    let head = RidgeProblem::in_sample_space(&support).unwrap().solve(1.0);
    let x = wide(&data.rows[5]);
    let want: Vec<f64> = (0..3)
        .map(|c| dot(&head.weights[c * 7..(c + 1) * 7], &x) + head.bias[c])
        .collect();
    assert!(difference(&head.scores(&data.rows[5]), &want) < 1e-12);
}

#[test]
fn equal_embeddings_are_an_error() {
    let row = vec![0.25f32, -1.5, 3.0];
    let support = Support::new(vec![&row; 4], vec![0, 0, 1, 1], 2).unwrap();
    let error = RidgeProblem::in_sample_space(&support).err().unwrap();
    assert!(matches!(error, AdaptError::Degenerate { n: 4 }), "{error}");
    let error = RidgeProblem::in_feature_space(&Statistics::of(&support), &support)
        .err()
        .unwrap();
    assert!(matches!(error, AdaptError::Degenerate { n: 4 }), "{error}");
}

#[test]
fn statistics_of_other_samples_are_refused() {
    let (data, other) = (
        Data::clusters(5, &[3, 3], 2, 1.0),
        Data::clusters(5, &[3, 4], 2, 1.0),
    );
    let support = data.support();
    let error = RidgeProblem::in_feature_space(&Statistics::of(&other.support()), &support)
        .err()
        .unwrap();
    assert!(
        matches!(
            error,
            AdaptError::Shape {
                expected: 6,
                got: 7,
                ..
            }
        ),
        "{error}"
    );
}
