//! Sizes at the edge of what a job is for.

use crate::common::{Data, in_pool};
use ssl_edge_adapt::FitOptions;

#[test]
fn a_thousand_classes_are_fitted() {
    let data = Data::clusters(1, &[3; 1000], 48, 3.0);
    let mut job = data.job();
    let report = in_pool(2, || job.fit(&FitOptions::default())).unwrap();
    assert!(
        report.loo_accuracy.unwrap() > 0.95,
        "{:?}",
        report.loo_accuracy
    );
    assert_eq!(job.inspect(&data.rows[2999]).unwrap().name, "class 999");
}

#[test]
fn ten_thousand_samples_are_fitted() {
    let data = Data::clusters(2, &[5000, 5000], 64, 0.5);
    let mut job = data.job();
    let report = in_pool(2, || job.fit(&FitOptions::default())).unwrap();
    assert_eq!((report.n, report.unknown.n), (10_000, 10_000));
    assert!(
        report.loo_accuracy.unwrap() > 0.95,
        "{:?}",
        report.loo_accuracy
    );
}
