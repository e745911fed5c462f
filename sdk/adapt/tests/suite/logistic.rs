use crate::common::{Data, centred, difference, dot, wide};
use ssl_edge_adapt::head::logistic::LogisticProblem;
use ssl_edge_adapt::head::ridge::Ridge;
use ssl_edge_adapt::{FitOptions, HeadKind};

/// Gradient of the penalised loss at a head, from the definition: of the weights `[C, D]`, and of the biases `[C]`.
fn gradient(data: &Data, head: &Ridge, lambda: f64) -> (Vec<f64>, Vec<f64>) {
    let (d, n_classes) = (data.dim(), data.n_classes);
    let mut weights: Vec<f64> = head.weights.iter().map(|w| lambda * w).collect();
    let mut biases = vec![0.0; n_classes];
    for (row, &label) in data.rows.iter().zip(&data.labels) {
        let of_class = data.labels.iter().filter(|l| **l == label).count();
        let x = wide(row);
        let exp = |c: usize| (dot(&head.weights[c * d..(c + 1) * d], &x) + head.bias[c]).exp();
        let sum: f64 = (0..n_classes).map(exp).sum();
        for c in 0..n_classes {
            let target = if c == label { 1.0 } else { 0.0 };
            let residual = (exp(c) / sum - target) / (n_classes * of_class) as f64;
            biases[c] += residual;
            for j in 0..d {
                weights[c * d + j] += residual * x[j];
            }
        }
    }
    (weights, biases)
}

fn norm(x: &[f64]) -> f64 {
    dot(x, x).sqrt()
}

fn cases() -> [Data; 3] {
    [
        Data::clusters(1, &[9, 5], 4, 0.4),
        Data::clusters(2, &[3, 4, 2, 6], 30, 0.3),
        Data::clusters(3, &[12, 7, 20], 6, 0.2),
    ]
}

/// The loss is λ-strongly convex in the weights, so that `λ ‖W - W*‖² ≤ ‖g_W‖ ‖W - W*‖ + ‖g_b‖ ‖b - b*‖`. Biases of these sizes differ by less
/// than 100.
#[test]
fn the_gradient_certifies_the_optimum() {
    for data in cases() {
        let support = data.support();
        let problem = LogisticProblem::new(&support).unwrap();
        for factor in [1e-3, 1e-1, 1.0] {
            let lambda = factor * problem.unit();
            let head = problem.solve(lambda);
            let (weights, biases) = gradient(&data, &head, lambda);
            let (w, b) = (norm(&weights), norm(&biases));
            let error = (w + (w * w + 400.0 * lambda * b).sqrt()) / (2.0 * lambda);
            assert!(
                error < 0.03 * norm(&head.weights),
                "{error} of {}",
                norm(&head.weights)
            );
            let scale = problem.unit().sqrt();
            assert!(w < 1e-5 * scale && b < 1e-5 * scale, "{w} {b}");
        }
    }
}

/// Sample and feature space: rows of zeros appended to the features change nothing but the space that the problem is solved in.
#[test]
fn both_spaces_give_one_head() {
    let data = Data::clusters(4, &[9, 8], 5, 0.3);
    let wide = Data {
        rows: data
            .rows
            .iter()
            .map(|row| [&row[..], &[0.0; 40]].concat())
            .collect(),
        labels: data.labels.clone(),
        n_classes: 2,
    };
    let (narrow_support, wide_support) = (data.support(), wide.support());
    let narrow = LogisticProblem::new(&narrow_support).unwrap();
    let wide = LogisticProblem::new(&wide_support).unwrap();
    let lambda = 0.01 * narrow.unit();
    let (a, b) = (narrow.solve(lambda), wide.solve(lambda));
    for row in &data.rows {
        let padded = [&row[..], &[0.0; 40]].concat();
        assert!(difference(&centred(&a.scores(row)), &centred(&b.scores(&padded))) < 1e-4);
    }
}

/// The fits that leave samples out end earlier; what is left of the way from the scores of all samples' fit to those of a whole refit is small,
/// for weak penalties too, under which the samples are fitted so well that their own gradient is next to nothing.
#[test]
fn leave_one_out_equals_refits() {
    for data in cases() {
        let support = data.support();
        let problem = LogisticProblem::new(&support).unwrap();
        let n_classes = data.n_classes;
        for factor in [1e-4, 1e-2, 1e-1] {
            let lambda = factor * problem.unit();
            let (all, got) = (problem.solve(lambda), problem.leave_one_out(lambda));
            let (mut way, mut rest_of_it) = (0.0, 0.0);
            for (i, row) in data.rows.iter().enumerate() {
                let rest = data.without(i..i + 1);
                let support = rest.support();
                let refit = LogisticProblem::new(&support).unwrap().solve(lambda);
                let want = centred(&refit.scores(row));
                let apart = |scores: &[f64]| -> f64 {
                    let pairs = centred(scores).into_iter().zip(&want);
                    pairs.map(|(a, b)| (a - b).powi(2)).sum()
                };
                way += apart(&all.scores(row));
                rest_of_it += apart(&got[i * n_classes..(i + 1) * n_classes]);
            }
            let share = (rest_of_it / way).sqrt();
            assert!(share < 0.1, "{share} of the way is left at {factor}");
        }
    }
}

/// Labels that say nothing about the features: a leave-one-out that leaks would be right far more often than a guess.
#[test]
fn leave_one_out_does_not_leak() {
    let mut data = Data::clusters(8, &[60], 200, 0.0);
    data.labels = (0..60).map(|i| i % 3).collect();
    data.n_classes = 3;
    let report = data
        .job()
        .fit(&FitOptions {
            head: Some(HeadKind::Logistic),
            ..FitOptions::default()
        })
        .unwrap();
    // The best of four λ of a fair guess: 1/3 with a standard error of 0.06.
    assert!(report.loo_accuracy.unwrap() < 0.55, "{report:?}");
}

#[test]
fn beyond_the_folds_groups_are_left_out() {
    let data = Data::clusters(5, &[150, 110], 3, 0.3);
    let support = data.support();
    let problem = LogisticProblem::new(&support).unwrap();
    let lambda = 0.1 * problem.unit();
    let got = problem.leave_one_out(lambda);
    // Group 1 of 128: samples 1, 129 and 257.
    let group = [1, 129, 257];
    let kept: Vec<usize> = (0..260).filter(|i| !group.contains(i)).collect();
    let rest = Data {
        rows: kept.iter().map(|i| data.rows[*i].clone()).collect(),
        labels: kept.iter().map(|i| data.labels[*i]).collect(),
        n_classes: 2,
    };
    let support = rest.support();
    let refit = LogisticProblem::new(&support).unwrap().solve(lambda);
    for i in group {
        let want = centred(&refit.scores(&data.rows[i]));
        let got = centred(&got[2 * i..2 * i + 2]);
        assert!((got[0] - want[0]).abs() < 0.02, "{got:?} {want:?}");
    }
}

#[test]
fn the_only_sample_of_a_class_cannot_be_left_out() {
    let data = Data::clusters(6, &[4, 1, 5], 6, 1.0);
    let support = data.support();
    let problem = LogisticProblem::new(&support).unwrap();
    let got = problem.leave_one_out(problem.unit());
    assert_eq!(got[4 * 3 + 1], f64::NEG_INFINITY);
    let finite = got.iter().filter(|score| score.is_finite()).count();
    assert_eq!(finite, 29);
}

/// `tests/golden/logistic.py` made the numbers with scikit-learn.
#[test]
fn scikit_learn_finds_the_same_head() {
    let value = |i: usize, j: usize| {
        ((1.3 * i as f64 + 0.7 * j as f64 * (i as f64 + 1.0)).sin()
            + if j == i % 3 { 0.8 } else { 0.0 }) as f32
    };
    let data = Data {
        rows: (0..14)
            .map(|i| (0..5).map(|j| value(i, j)).collect())
            .collect(),
        labels: (0..14).map(|i| i % 3).collect(),
        n_classes: 3,
    };
    let support = data.support();
    let head = LogisticProblem::new(&support).unwrap().solve(0.05);
    assert!(
        difference(&head.weights, &GOLDEN_WEIGHTS) < 1e-4,
        "{:?}",
        head.weights
    );
    assert!(
        difference(&centred(&head.bias), &centred(&GOLDEN_BIAS)) < 1e-4,
        "{:?}",
        head.bias
    );
}

#[test]
fn a_job_takes_the_lambda_that_leaves_out_best() {
    let data = Data::clusters(7, &[8, 9], 12, 0.25);
    let report = data
        .job()
        .fit(&FitOptions {
            head: Some(HeadKind::Logistic),
            ..FitOptions::default()
        })
        .unwrap();
    let support = data.support();
    let problem = LogisticProblem::new(&support).unwrap();
    let hits = |lambda: &f64| {
        let scores = problem.leave_one_out(*lambda);
        let right =
            |i: &usize| scores[2 * i + data.labels[*i]] > scores[2 * i + 1 - data.labels[*i]];
        (0..17).filter(right).count()
    };
    let most = problem.grid().iter().map(hits).max().unwrap();
    assert!((report.loo_accuracy.unwrap() - most as f64 / 17.0).abs() < 1e-12);
    assert!(problem.grid().contains(&report.lambda.unwrap()));
}

const GOLDEN_WEIGHTS: [f64; 15] = [
    0.317823131,
    -0.391010902,
    0.111418236,
    0.0908258981,
    1.19950118,
    -0.223831107,
    1.40458924,
    -0.352028835,
    -0.199124516,
    -0.133952442,
    -0.0939920244,
    -1.01357834,
    0.2406106,
    0.108298618,
    -1.06554874,
];
const GOLDEN_BIAS: [f64; 3] = [0.310130422, -0.407550064, 0.0974196421];
