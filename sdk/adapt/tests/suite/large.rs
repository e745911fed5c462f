//! Sizes at the edge of what a job is for.

use crate::common::Data;
use ssl_edge_adapt::FitOptions;
use std::time::{Duration, Instant};

#[test]
fn a_thousand_classes_are_fitted() {
    let data = Data::clusters(1, &[3; 1000], 48, 3.0);
    let mut job = data.job();
    let start = Instant::now();
    let report = job.fit(&FitOptions::default()).unwrap();
    assert!(
        report.loo_accuracy.unwrap() > 0.95,
        "{:?}",
        report.loo_accuracy
    );
    assert_eq!(job.inspect(&data.rows[2999]).unwrap().name, "class 999");
    assert!(
        start.elapsed() < Duration::from_secs(120),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn ten_thousand_samples_are_fitted() {
    let data = Data::clusters(2, &[5000, 5000], 64, 0.5);
    let mut job = data.job();
    let start = Instant::now();
    let report = job.fit(&FitOptions::default()).unwrap();
    assert_eq!((report.n, report.unknown.n), (10_000, 10_000));
    assert!(
        report.loo_accuracy.unwrap() > 0.95,
        "{:?}",
        report.loo_accuracy
    );
    assert!(
        start.elapsed() < Duration::from_secs(120),
        "{:?}",
        start.elapsed()
    );
}
