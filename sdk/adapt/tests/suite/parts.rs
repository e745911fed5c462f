use crate::common::{Data, encoder, job_of_parts, layout};
use ssl_edge_adapt::{AdaptError, FitOptions, HeadKind, Job, Layout, Part};

/// Columns of two sets side by side, those of the second times `factor`.
fn beside(a: &Data, b: &Data, factor: f32) -> Data {
    let row = |(x, y): (&Vec<f32>, &Vec<f32>)| {
        let scaled = y.iter().map(|v| v * factor);
        x.iter().copied().chain(scaled).collect()
    };
    Data {
        rows: a.rows.iter().zip(&b.rows).map(row).collect(),
        labels: a.labels.clone(),
        n_classes: a.n_classes,
    }
}

fn pair(factor: f32) -> Data {
    let a = Data::clusters(1, &[12, 10], 6, 0.3);
    let b = Data::clusters(2, &[12, 10], 9, 0.3);
    beside(&a, &b, factor)
}

/// Largest difference of scores and distances over the frames, which must get one verdict.
fn differs(a: &Job, b: &Job, frames: impl Iterator<Item = (Vec<f32>, Vec<f32>)>) -> f32 {
    let mut most = 0.0f32;
    for (x, y) in frames {
        let (x, y) = (a.inspect(&x).unwrap(), b.inspect(&y).unwrap());
        assert_eq!((&x.name, x.nearest), (&y.name, y.nearest));
        let scores = x.scores.iter().zip(&y.scores).map(|(p, q)| (p - q).abs());
        most = scores.fold(most.max((x.distance - y.distance).abs()), f32::max);
    }
    most
}

#[test]
fn the_size_of_a_part_does_not_matter() {
    let both = layout(&[6, 9], &["a", "b"]);
    let mut plain = job_of_parts(&pair(1.0), &both);
    let want = plain.fit(&FitOptions::default()).unwrap();
    for factor in [1e-3, 40.0, 1e4] {
        let mut job = job_of_parts(&pair(factor), &both);
        let got = job.fit(&FitOptions::default()).unwrap();
        assert_eq!(got.loo_accuracy, want.loo_accuracy);
        assert_eq!(got.parts, ["a", "b"]);
        let (ones, others) = (pair(1.0), pair(factor));
        let frames = ones.rows.into_iter().zip(others.rows);
        assert!(differs(&plain, &job, frames) < 1e-4);
    }
}

/// After scaling, the mean squared distance from the mean is 1 in each part; written out here, and given to a job of one part.
#[test]
fn parts_vary_alike() {
    let data = pair(7.0);
    let n = data.rows.len() as f64;
    let spread = |range: std::ops::Range<usize>| -> f64 {
        let of_column = |j: usize| {
            let mean = data.rows.iter().map(|r| f64::from(r[j])).sum::<f64>() / n;
            let squares = data.rows.iter().map(|r| (f64::from(r[j]) - mean).powi(2));
            squares.sum::<f64>() / n
        };
        range.map(of_column).sum()
    };
    let scales = [spread(0..6).sqrt(), spread(6..15).sqrt()];
    let scaled = |row: &Vec<f32>| -> Vec<f32> {
        let scale = |(j, x): (usize, &f32)| (f64::from(*x) / scales[usize::from(j >= 6)]) as f32;
        row.iter().enumerate().map(scale).collect()
    };
    let by_hand = Data {
        rows: data.rows.iter().map(scaled).collect(),
        labels: data.labels.clone(),
        n_classes: 2,
    };
    let mut whole = by_hand.job();
    whole.fit(&FitOptions::default()).unwrap();
    let mut job = job_of_parts(&data, &layout(&[6, 9], &["a", "b"]));
    job.fit(&FitOptions::default()).unwrap();
    let frames = data.rows.iter().map(|row| (row.clone(), scaled(row)));
    assert!(differs(&job, &whole, frames) < 1e-5);
}

/// A head on one part is the head of a job that has nothing else, bit for bit.
#[test]
fn one_part_is_seen_as_it_is() {
    let data = pair(3.0);
    let mut job = job_of_parts(&data, &layout(&[6, 9], &["b"]));
    let only = Data {
        rows: data.rows.iter().map(|row| row[6..].to_vec()).collect(),
        labels: data.labels.clone(),
        n_classes: 2,
    };
    let mut alone = only.job();
    let (got, want) = (
        job.fit(&FitOptions::default()).unwrap(),
        alone.fit(&FitOptions::default()).unwrap(),
    );
    assert_eq!((got.lambda, got.unknown), (want.lambda, want.unknown));
    let frames = data.rows.iter().map(|row| (row.clone(), row[6..].to_vec()));
    assert_eq!(differs(&job, &alone, frames), 0.0);
}

#[test]
fn a_part_that_is_always_the_same_changes_nothing() {
    let a = Data::clusters(3, &[8, 9], 6, 0.4);
    let row = |row: &Vec<f32>| [&row[..], &[0.3, -7.0, 0.0]].concat();
    let data = Data {
        rows: a.rows.iter().map(row).collect(),
        labels: a.labels.clone(),
        n_classes: 2,
    };
    let mut job = job_of_parts(&data, &layout(&[6, 3], &["a", "b"]));
    let mut alone = a.job();
    for head in [HeadKind::Prototype, HeadKind::Knn] {
        let options = FitOptions {
            head: Some(head),
            ..FitOptions::default()
        };
        let got = job.fit(&options).unwrap();
        assert_eq!(got.loo_accuracy, alone.fit(&options).unwrap().loo_accuracy);
        let frames = a.rows.iter().map(|x| (row(x), x.clone()));
        assert!(differs(&job, &alone, frames) < 1e-4);
    }
    // It is no part to look at alone.
    let constant = FitOptions {
        head: Some(HeadKind::Lda),
        parts: Some(vec!["b".into()]),
        ..FitOptions::default()
    };
    let error = job.fit(&constant).unwrap_err();
    assert!(matches!(error, AdaptError::Degenerate { n: 17 }), "{error}");
}

#[test]
fn a_job_of_one_frame_knows_it_again() {
    let data = Data {
        rows: vec![vec![0.5, -1.0, 3.0]],
        labels: vec![0],
        n_classes: 1,
    };
    for preferred in [&["a"][..], &["a", "b"]] {
        let mut job = job_of_parts(&data, &layout(&[1, 2], preferred));
        let report = job.fit(&FitOptions::default()).unwrap();
        assert_eq!((report.head, report.unknown.threshold), (None, None));
        let verdict = job.inspect(&data.rows[0]).unwrap();
        assert!(verdict.distance < 1e-6 && !verdict.unknown && verdict.p_value == 1.0);
        assert!(job.inspect(&[-0.5, 1.0, -3.0]).unwrap().distance > 1.9);
    }
}

#[test]
fn parts_that_were_asked_for_stay() {
    let mut job = job_of_parts(&pair(1.0), &layout(&[6, 9], &["a"]));
    let parts = |names: &[&str]| FitOptions {
        parts: Some(names.iter().map(|name| name.to_string()).collect()),
        ..FitOptions::default()
    };
    assert_eq!(job.fit(&FitOptions::default()).unwrap().parts, ["a"]);
    assert_eq!(job.fit(&parts(&["b", "a", "b"])).unwrap().parts, ["a", "b"]);
    assert_eq!(job.fit(&FitOptions::default()).unwrap().parts, ["a", "b"]);
    let error = job.fit(&parts(&["b", "colour"])).unwrap_err().to_string();
    assert!(
        error.contains("`colour`") && error.contains("a, b"),
        "{error}"
    );
    assert!(job.fit(&parts(&[])).is_err());
    assert_eq!(job.report().unwrap().parts, ["a", "b"]);
}

#[test]
fn bad_layouts_are_refused() {
    let part = |name: &str, dim| Part::new(name, dim);
    let bad = [
        vec![],
        vec![part("a", 0)],
        vec![part(" ", 1)],
        vec![part("a", 1), part("a", 2)],
        vec![part("a", usize::MAX), part("b", 2)],
        (0..6).map(|i| part(&i.to_string(), 1)).collect(),
    ];
    for parts in bad {
        assert!(Layout::new(parts, &["a"]).is_err());
    }
    assert!(Layout::new(vec![part("a", 1)], &[]).is_err());
    let unknown = Layout::new(vec![part("a", 1)], &["b"]).unwrap_err();
    assert!(
        matches!(unknown, AdaptError::UnknownPart { .. }),
        "{unknown}"
    );
    let two = layout(&[3, 4], &["b"]);
    assert_eq!((two.dim(), two.preferred_names()), (7, vec!["b"]));
    let error = Job::with_layout(encoder(8), two).unwrap_err();
    let shape = matches!(
        error,
        AdaptError::Shape {
            expected: 8,
            got: 7,
            ..
        }
    );
    assert!(shape, "{error}");
}
