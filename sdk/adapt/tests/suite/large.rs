//! Sizes at the edge of what a job is for.

use crate::common::{Data, in_pool};
use ssl_edge_adapt::{FitOptions, Job};
use std::time::Instant;

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
    assert_eq!((report.n, report.unknown.n()), (10_000, 8192));
    assert!(
        report.loo_accuracy.unwrap() > 0.95,
        "{:?}",
        report.loo_accuracy
    );
}

/// The largest job that is meant to work: half a minute and 2.3 GiB. It prints its times, which `--nocapture` shows.
#[test]
fn a_hundred_thousand_samples_of_a_thousand_classes() {
    let data = Data::clusters(3, &[100; 1000], 384, 1.0);
    let timed =
        |what: &str, start: Instant| println!("{what}: {:.1} s", start.elapsed().as_secs_f64());
    let start = Instant::now();
    let mut job = data.job();
    timed("teach", start);
    let start = Instant::now();
    let report = in_pool(2, || job.fit(&FitOptions::default())).unwrap();
    timed("fit on two threads", start);
    assert_eq!((report.n, report.unknown.n()), (100_000, 8192));
    assert!(report.loo_accuracy.unwrap() > 0.99);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.sslj");
    let start = Instant::now();
    job.save(&path).unwrap();
    timed("save", start);
    let start = Instant::now();
    let loaded = Job::load(&path).unwrap();
    timed("load", start);
    let start = Instant::now();
    let verdict = loaded.inspect(&data.rows[54_321]).unwrap();
    timed("inspect", start);
    assert_eq!(verdict.name, "class 543");
    assert_eq!(verdict, job.inspect(&data.rows[54_321]).unwrap());
    let start = Instant::now();
    job.remove_sample(job.samples()[50_000].id).unwrap();
    job.undo().unwrap();
    timed("forget and take back", start);
}
