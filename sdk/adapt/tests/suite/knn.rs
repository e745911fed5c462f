use crate::common::{Data, difference, dot, wide};
use ssl_edge_adapt::head::knn::{Knn, NEIGHBOURS, TEMPERATURE};

/// All cosines sorted, the first among equals first; votes of the nearest by their share.
fn oracle(data: &Data, x: &[f32], except: Option<usize>) -> Vec<f64> {
    let q = wide(x);
    let mut cosines: Vec<(f64, usize)> = (0..data.rows.len())
        .filter(|i| Some(*i) != except)
        .map(|i| {
            let t = wide(&data.rows[i]);
            let cosine = dot(&q, &t) / (dot(&q, &q) * dot(&t, &t)).sqrt();
            (cosine, data.labels[i])
        })
        .collect();
    cosines.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut votes = vec![0.0; data.n_classes];
    for (cosine, label) in cosines.iter().take(NEIGHBOURS) {
        votes[*label] += (cosine / TEMPERATURE).exp();
    }
    let sum: f64 = votes.iter().sum();
    votes.iter().map(|vote| vote / sum).collect()
}

#[test]
fn votes_are_those_of_the_nearest_by_brute_force() {
    for data in [
        Data::clusters(1, &[20, 30, 25], 12, 0.2),
        Data::clusters(2, &[1, 2], 5, 0.5),
    ] {
        let head = Knn::fit(&data.support());
        for row in &Data::clusters(3, &[40], data.dim(), 1.0).rows {
            assert!(difference(&head.scores(row), &oracle(&data, row, None)) < 1e-4);
        }
    }
}

#[test]
fn leave_one_out_equals_refits() {
    let data = Data::clusters(4, &[200, 1, 100], 12, 0.2);
    let got = Knn::leave_one_out(&data.support());
    for (i, row) in data.rows.iter().enumerate() {
        let want = oracle(&data, row, Some(i));
        assert!(difference(&got[3 * i..3 * i + 3], &want) < 1e-4);
    }
}

#[test]
fn a_frame_of_zeros_is_like_all() {
    let data = Data::clusters(5, &[3, 3], 4, 1.0);
    let scores = Knn::fit(&data.support()).scores(&[0.0; 4]);
    assert_eq!(scores, [3.0 / 5.0, 2.0 / 5.0]);
}
