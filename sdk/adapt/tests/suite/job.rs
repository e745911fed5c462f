use crate::common::{Data, encoder, in_pool};
use crate::discriminant::oracle_without;
use ssl_edge_adapt::head::discriminant::DiscriminantProblem;
use ssl_edge_adapt::head::lambda_grid;
use ssl_edge_adapt::{
    AdaptError, ClassId, EncoderId, FitOptions, HeadKind, Job, SampleId, SampleMeta,
};

const HEADS: [HeadKind; 6] = HeadKind::ALL;

fn with_head(head: HeadKind) -> FitOptions {
    FitOptions {
        head: Some(head),
        ..FitOptions::default()
    }
}

fn from(source: &str) -> SampleMeta {
    SampleMeta {
        source: source.into(),
        unix_time: 1_700_000_000,
    }
}

#[test]
fn every_head_learns_separate_classes() {
    let data = Data::clusters(1, &[6, 8, 7], 24, 2.0);
    let mut job = data.job();
    for head in HEADS {
        let report = job.fit(&with_head(head)).unwrap();
        assert_eq!((report.n, report.loo_n), (21, 21));
        assert_eq!(
            (report.loo_accuracy, report.loo_balanced_accuracy),
            (Some(1.0), Some(1.0))
        );
        assert_eq!(report.confusion.get(1, 1), 8);
        assert!(report.suspects.is_empty());
        assert_eq!(
            report.lambda.is_some(),
            !matches!(head, HeadKind::Prototype | HeadKind::Knn)
        );
        for (i, (row, label)) in data.rows.iter().zip(&data.labels).enumerate() {
            let verdict = job.inspect(row).unwrap();
            assert_eq!(verdict.class, job.classes()[*label].id);
            assert_eq!(verdict.name, format!("class {label}"));
            assert_eq!(verdict.nearest, SampleId(i as u64));
            assert!(verdict.distance < 1e-6 && !verdict.unknown);
            assert_eq!(verdict.score, verdict.scores[*label]);
            assert!((verdict.scores.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            assert!(
                verdict.score > 0.5 && verdict.score < 1.0,
                "{head:?} {}",
                verdict.score
            );
        }
    }
}

/// Brute force: for each λ of the grid refit without each sample, count what is right; none may beat the λ that the job took.
#[test]
fn lambda_is_the_best_of_the_grid_by_refits() {
    let data = Data::clusters(2, &[5, 6, 7], 10, 0.35);
    let support = data.support();
    let grid = lambda_grid(
        DiscriminantProblem::in_sample_space(&support)
            .unwrap()
            .unit(),
    );
    let hits = |lambda: f64| {
        let right = |&i: &usize| {
            let label = data.labels[i];
            let scores = oracle_without(&data, lambda, i..i + 1, [5, 6, 7][label]);
            (0..3).all(|c| c == label || scores[c] < scores[label])
        };
        (0..data.rows.len()).filter(right).count()
    };
    let report = data.job().fit(&with_head(HeadKind::Discriminant)).unwrap();
    let chosen = report.lambda.unwrap();
    assert!(grid.iter().any(|l| (l / chosen - 1.0).abs() < 1e-9));
    let counts: Vec<usize> = grid.iter().map(|l| hits(*l)).collect();
    assert_eq!(Some(&hits(chosen)), counts.iter().max());
    assert!(
        counts.iter().min() < counts.iter().max(),
        "the data must tell the λ apart"
    );
    assert!((report.loo_accuracy.unwrap() - hits(chosen) as f64 / 18.0).abs() < 1e-12);
}

#[test]
fn a_wrong_label_is_a_suspect() {
    let mut data = Data::clusters(4, &[10, 10], 16, 2.0);
    data.labels[3] = 1;
    let report = data.job().fit(&FitOptions::default()).unwrap();
    assert_eq!(report.suspects, [SampleId(3)]);
    assert_eq!(report.confusion.get(1, 0), 1);
    assert_eq!(report.loo_accuracy, Some(0.95));
    assert!((report.loo_balanced_accuracy.unwrap() - (1.0 + 10.0 / 11.0) / 2.0).abs() < 1e-12);
}

#[test]
fn one_sample_a_class_is_fitted_without_estimates() {
    let data = Data::clusters(5, &[1, 1, 1], 8, 2.0);
    let mut job = data.job();
    for head in HEADS {
        let report = job.fit(&with_head(head)).unwrap();
        assert_eq!(
            (report.loo_n, report.loo_accuracy, report.unknown.threshold),
            (0, None, None)
        );
        for (row, label) in data.rows.iter().zip(&data.labels) {
            assert_eq!(job.inspect(row).unwrap().class, job.classes()[*label].id);
        }
    }
}

#[test]
fn samples_that_are_all_alike_within_classes_are_fitted() {
    let rows = vec![
        vec![1.0, 0.0],
        vec![1.0, -0.0],
        vec![0.0, 1.0],
        vec![-0.0, 1.0],
    ];
    let mut job = Data {
        rows,
        labels: vec![0, 0, 1, 1],
        n_classes: 2,
    }
    .job();
    for head in HEADS {
        assert_eq!(job.fit(&with_head(head)).unwrap().loo_accuracy, Some(1.0));
        assert_eq!(job.inspect(&[0.1, 2.0]).unwrap().name, "class 1");
    }
}

#[test]
fn a_change_asks_for_a_fit_and_a_name_does_not() {
    let mut job = Data::clusters(6, &[3, 3], 4, 2.0).job();
    let frame = [1.0, 0.0, 0.0, 0.0];
    assert!(matches!(job.inspect(&frame), Err(AdaptError::NotFitted)));
    job.fit(&FitOptions::default()).unwrap();
    let class = job.classes()[1].id;
    job.rename_class(class, "dent").unwrap();
    assert!(job.inspect(&frame).is_ok() && job.report().is_some());
    assert_eq!(job.class_named("dent").unwrap().id, class);
    job.add_sample(class, &frame, from("a.png")).unwrap();
    assert!(matches!(job.inspect(&frame), Err(AdaptError::NotFitted)));
    assert!(job.report().is_none());
}

#[test]
fn ids_are_not_used_again() {
    let mut job = Job::new(encoder(1));
    let first = job.add_class("a").unwrap();
    let sample = job.add_sample(first, &[1.0], from("1.png")).unwrap();
    assert_eq!(job.remove_sample(sample).unwrap().meta, from("1.png"));
    assert_ne!(
        job.add_sample(first, &[1.0], from("2.png")).unwrap(),
        sample
    );
    job.remove_class(first).unwrap();
    assert!(job.samples().is_empty());
    assert_ne!(job.add_class("a").unwrap(), first);
    assert!(matches!(
        job.sample(sample),
        Err(AdaptError::UnknownSample { id: 0 })
    ));
    assert!(matches!(
        job.class(first),
        Err(AdaptError::UnknownClass { id: 0 })
    ));
}

#[test]
fn mistakes_are_named() {
    let mut job = Job::new(encoder(3));
    let text = |error: AdaptError| error.to_string();
    assert!(
        text(job.fit(&FitOptions::default()).unwrap_err())
            .contains("(none); a head needs at least two classes")
    );
    let good = job.add_class("good").unwrap();
    job.add_sample(good, &[1.0, 2.0, 3.0], from("0.png"))
        .unwrap();
    assert_eq!(job.fit(&FitOptions::default()).unwrap().head, None);
    job.add_class("stain").unwrap();
    assert!(
        text(job.fit(&FitOptions::default()).unwrap_err())
            .contains("class `stain` has no sample; add one")
    );
    assert!(text(job.add_class("stain").unwrap_err()).contains("already has a class `stain`"));
    assert!(matches!(
        job.add_class("  "),
        Err(AdaptError::EmptyClassName)
    ));
    assert!(text(job.rename_class(good, "stain").unwrap_err()).contains("`stain`"));
    assert!(
        text(job.add_sample(ClassId(9), &[0.0; 3], from("")).unwrap_err())
            .contains("no class with id 9")
    );
    let short = text(
        job.add_sample(good, &[0.0; 2], from("line 3/0017.png"))
            .unwrap_err(),
    );
    assert!(
        short.contains("line 3/0017.png") && short.contains("2 values where 3"),
        "{short}"
    );
    let nan = text(
        job.add_sample(good, &[0.0, f32::NAN, 0.0], from("0018.png"))
            .unwrap_err(),
    );
    assert!(
        nan.contains("0018.png") && nan.contains("value 1") && nan.contains("NaN"),
        "{nan}"
    );
    assert_eq!(job.samples().len(), 1);
    let dim = text(
        Job::new(encoder(0))
            .add_class("x")
            .and_then(|_| Job::new(encoder(0)).inspect(&[]))
            .unwrap_err(),
    );
    assert!(dim.contains("not fitted"), "{dim}");
}

#[test]
fn a_frame_is_checked() {
    let mut job = Data::clusters(7, &[3, 3], 4, 2.0).job();
    job.fit(&FitOptions::default()).unwrap();
    assert!(matches!(
        job.inspect(&[0.0; 5]),
        Err(AdaptError::WrongDimension {
            expected: 4,
            got: 5,
            ..
        })
    ));
    assert!(matches!(
        job.inspect(&[0.0, 0.0, f32::INFINITY, 0.0]),
        Err(AdaptError::NotFinite { index: 2, .. })
    ));
    let zeros = job.inspect(&[0.0; 4]).unwrap();
    assert_eq!(zeros.distance, 1.0);
}

#[test]
fn options_are_checked() {
    let mut job = Data::clusters(8, &[3, 3], 4, 2.0).job();
    for lambda in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = job
            .fit(&FitOptions {
                lambda: Some(lambda),
                ..FitOptions::default()
            })
            .unwrap_err();
        assert!(error.to_string().starts_with("lambda is"), "{error}");
    }
    let report = job
        .fit(&FitOptions {
            lambda: Some(0.5),
            ..FitOptions::default()
        })
        .unwrap();
    assert_eq!(report.lambda, Some(0.5));
}

#[test]
fn equal_embeddings_are_an_error() {
    // The sign of a zero makes another frame of the same embedding.
    let row = |a: f32, b: f32| vec![0.1, a, b];
    let mut job = Data {
        rows: vec![
            row(0.0, 0.0),
            row(0.0, -0.0),
            row(-0.0, 0.0),
            row(-0.0, -0.0),
        ],
        labels: vec![0, 0, 1, 1],
        n_classes: 2,
    }
    .job();
    for head in [
        HeadKind::Discriminant,
        HeadKind::Lda,
        HeadKind::Ridge,
        HeadKind::Logistic,
    ] {
        let error = job.fit(&with_head(head)).unwrap_err();
        assert!(error.to_string().contains("same embedding"), "{error}");
    }
}

#[test]
fn another_encoder_is_refused_by_name() {
    let job = Job::new(encoder(3));
    assert!(job.check_encoder(&encoder(3)).is_ok());
    let other = EncoderId {
        hash: [0x12; 32],
        dim: 192,
    };
    let text = job.check_encoder(&other).unwrap_err().to_string();
    for part in [
        "abababababab",
        "121212121212",
        "3 values",
        "192 values",
        "open the bundle",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(job.check_encoder(&encoder(4)).is_err());
}

#[test]
fn threads_change_nothing() {
    let data = Data::clusters(9, &[300, 310], 40, 0.2);
    let fit = || {
        HEADS.map(|head| {
            let mut job = data.job();
            let report = job.fit(&with_head(head)).unwrap();
            (
                report,
                data.rows[..20]
                    .iter()
                    .map(|row| job.inspect(row).unwrap())
                    .collect::<Vec<_>>(),
            )
        })
    };
    let alone = fit();
    for threads in [1, 3] {
        assert!(in_pool(threads, fit) == alone);
    }
}
