use crate::common::{Data, job_of_parts, layout};
use ssl_edge_adapt::{AdaptError, FitOptions, FitReport, HeadKind, Job};

fn search() -> FitOptions {
    FitOptions {
        search: true,
        ..FitOptions::default()
    }
}

/// Part `a` of classes `distance_a` apart, part `b` of classes `distance_b` apart, `a` preferred.
fn two_parts(seed: u8, distance_a: f64, distance_b: f64, n: usize) -> Job {
    let a = Data::clusters(seed, &[n, n], 4, distance_a);
    let b = Data::clusters(seed + 100, &[n, n], 6, distance_b);
    let rows = a
        .rows
        .iter()
        .zip(&b.rows)
        .map(|(x, y)| [&x[..], y].concat());
    let data = Data {
        rows: rows.collect(),
        labels: a.labels.clone(),
        n_classes: 2,
    };
    job_of_parts(&data, &layout(&[4, 6], &["a"]))
}

fn tried(report: &FitReport, head: HeadKind, parts: &[&str]) -> f64 {
    let found = report
        .tried
        .iter()
        .find(|t| t.head == head && t.parts == parts);
    found.unwrap().loo_accuracy
}

#[test]
fn a_part_that_tells_all_wins() {
    for seed in 0..10 {
        let mut job = two_parts(seed, 0.0, 2.0, 15);
        let report = job.fit(&search()).unwrap();
        assert!(report.parts.contains(&"b".to_string()), "{report:?}");
        assert!(report.loo_accuracy.unwrap() > 0.95);
        assert!(tried(&report, HeadKind::Lda, &["a"]) < 0.8);
        assert_eq!(report.tried[0].parts, ["a"]);
        // 3 selections of one head, and the preferred part with the 5 other heads.
        assert_eq!(report.tried.len(), 8);
        // What was found is what later fits use.
        let again = job.fit(&FitOptions::default()).unwrap();
        assert_eq!((again.head, &again.parts), (report.head, &report.parts));
        assert_eq!(again.loo_accuracy, report.loo_accuracy);
    }
}

/// The chance of a change where none is better is at most 0.05: of 60 jobs, 3 are expected at most, and more than 8 have a chance below 0.5 %.
#[test]
fn noise_does_not_displace_the_reference() {
    let mut displaced = 0;
    for seed in 0..60 {
        let report = two_parts(seed, 0.35, 0.0, 12).fit(&search()).unwrap();
        let accuracy = tried(&report, HeadKind::Lda, &["a"]);
        assert!(accuracy < 1.0 || report.parts == ["a"]);
        displaced += usize::from(
            (report.head, &report.parts[..]) != (Some(HeadKind::Lda), &["a".to_string()]),
        );
    }
    assert!(displaced <= 8, "{displaced}");
}

/// Many features and labels that say nothing: each head can fit the samples at will, and a leave-one-out that let a head keep what it has seen
/// would make that head win.
#[test]
fn heads_that_fit_anything_do_not_displace_the_reference() {
    let mut displaced = 0;
    for seed in 0..30 {
        let mut data = Data::clusters(seed, &[24], 300, 0.0);
        data.labels = (0..24).map(|i| i % 2).collect();
        data.n_classes = 2;
        let report = data.job().fit(&search()).unwrap();
        displaced += usize::from(report.head != Some(HeadKind::Lda));
    }
    // At most 1.5 are expected, and more than 6 have a chance below 0.1 %.
    assert!(displaced <= 6, "{displaced}");
}

#[test]
fn nothing_is_compared_where_nothing_can_be_left_out() {
    let report = two_parts(1, 2.0, 2.0, 1).fit(&search()).unwrap();
    assert_eq!((report.head, report.tried.len()), (Some(HeadKind::Lda), 0));
    assert_eq!(
        (report.parts, report.loo_accuracy),
        (vec!["a".to_string()], None)
    );
}

/// Each `tried` accuracy is the one that a fit of that head and those parts reports.
#[test]
fn what_was_tried_is_what_fits_report() {
    let mut job = two_parts(3, 0.3, 0.5, 9);
    let report = job.fit(&search()).unwrap();
    for tried in &report.tried {
        let one = FitOptions {
            head: Some(tried.head),
            parts: Some(tried.parts.clone()),
            ..FitOptions::default()
        };
        assert_eq!(
            job.fit(&one).unwrap().loo_accuracy,
            Some(tried.loo_accuracy),
            "{tried:?}"
        );
    }
}

#[test]
fn a_constant_part_is_passed_over() {
    let a = Data::clusters(5, &[8, 8], 4, 1.0);
    let data = Data {
        rows: a
            .rows
            .iter()
            .map(|row| [&row[..], &[1.0, 2.0]].concat())
            .collect(),
        labels: a.labels.clone(),
        n_classes: 2,
    };
    let report = job_of_parts(&data, &layout(&[4, 2], &["a"]))
        .fit(&search())
        .unwrap();
    assert_eq!(report.parts, ["a"]);
    assert!(report.tried.iter().all(|tried| tried.parts != ["b"]));
}

#[test]
fn a_search_leaves_no_choice_open() {
    let mut job = two_parts(6, 1.0, 1.0, 4);
    let with = |options: FitOptions| FitOptions {
        search: true,
        ..options
    };
    for options in [
        FitOptions {
            head: Some(HeadKind::Knn),
            ..FitOptions::default()
        },
        FitOptions {
            parts: Some(vec!["b".into()]),
            ..FitOptions::default()
        },
        FitOptions {
            lambda: Some(1.0),
            ..FitOptions::default()
        },
    ] {
        let error = job.fit(&with(options)).unwrap_err();
        assert!(
            matches!(error, AdaptError::BadOption { name: "search", .. }),
            "{error}"
        );
    }
}
