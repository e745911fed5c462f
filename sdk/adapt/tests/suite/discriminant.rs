use crate::common::{Data, centred, difference, dot, solve, wide};
use ssl_edge_adapt::Support;
use ssl_edge_adapt::head::discriminant::DiscriminantProblem;
use ssl_edge_adapt::head::statistics::Statistics;

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

#[test]
fn leave_one_out_equals_refits() {
    for data in [
        Data::clusters(1, &[5, 9], 4, 1.0),
        Data::clusters(2, &[3, 4, 2, 6], 20, 0.5),
    ] {
        let support = data.support();
        for problem in both_spaces(&support) {
            for factor in [1e-2, 1.0] {
                let lambda = factor * problem.unit();
                let got = problem.leave_one_out(lambda);
                for (i, row) in data.rows.iter().enumerate() {
                    let want = oracle(&data.without(i), lambda, &wide(row));
                    let got = &got[i * data.n_classes..(i + 1) * data.n_classes];
                    assert!(
                        difference(&centred(got), &centred(&want)) < 1e-7,
                        "{got:?} {want:?}"
                    );
                }
            }
        }
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
        let want = oracle(&data.without(i), lambda, &wide(&data.rows[i]));
        assert!(difference(&centred(&got[i * 3..i * 3 + 3]), &centred(&want)) < 1e-8);
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
