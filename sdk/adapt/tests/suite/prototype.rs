use crate::common::{Data, difference, dot, wide};
use ssl_edge_adapt::head::prototype::Prototype;

fn unit(x: &[f64]) -> Vec<f64> {
    let norm = dot(x, x).sqrt();
    x.iter().map(|v| v / norm).collect()
}

/// Cosine of `x` to the mean of the normalised rows of each class.
fn oracle(data: &Data, x: &[f64]) -> Vec<f64> {
    (0..data.n_classes)
        .map(|class| {
            let mut mean = vec![0.0; data.dim()];
            for (row, _) in data
                .rows
                .iter()
                .zip(&data.labels)
                .filter(|(_, l)| **l == class)
            {
                mean.iter_mut()
                    .zip(unit(&wide(row)))
                    .for_each(|(m, v)| *m += v);
            }
            dot(&unit(&mean), &unit(x))
        })
        .collect()
}

#[test]
fn scores_are_cosines_to_the_class_means() {
    let data = Data::clusters(1, &[4, 2, 7], 9, 0.7);
    let head = Prototype::fit(&data.support());
    for row in &data.rows {
        assert!(difference(&head.scores(row), &oracle(&data, &wide(row))) < 1e-12);
    }
}

#[test]
fn leave_one_out_equals_refits() {
    let data = Data::clusters(2, &[4, 2, 7], 9, 0.7);
    let got = Prototype::leave_one_out(&data.support());
    for (i, row) in data.rows.iter().enumerate() {
        let want = oracle(&data.without(i..i + 1), &wide(row));
        assert!(difference(&got[i * 3..(i + 1) * 3], &want) < 1e-9);
    }
}

#[test]
fn a_class_without_another_sample_scores_nothing() {
    let data = Data::clusters(3, &[1, 3], 5, 0.7);
    assert_eq!(Prototype::leave_one_out(&data.support())[0], 0.0);
}
