use crate::common::{Data, dot, encoder, job_of_parts, layout, meta, wide};
use ssl_edge_adapt::{AdaptError, FitOptions, HeadKind, Job, SampleMeta};

#[test]
fn an_explanation_names_what_a_verdict_rests_on() {
    let mut job = Job::new(encoder(2));
    let (good, dent) = (
        job.add_class("good").unwrap(),
        job.add_class("dent").unwrap(),
    );
    for (class, x, source, unix_time) in [
        (good, [1.0, 0.0], "g1.png", 11),
        (good, [1.0, 0.2], "g2.png", 12),
        (dent, [0.0, 1.0], "d1.png", 13),
        (dent, [0.2, 1.0], "d2.png", 14),
    ] {
        let meta = SampleMeta {
            source: source.into(),
            unix_time,
        };
        job.add_sample(class, &x, meta).unwrap();
    }
    job.fit(&FitOptions::default()).unwrap();
    let verdict = job.inspect(&[0.1, 2.0]).unwrap();
    assert_eq!(verdict.revision, job.revision());
    let why = job.explain(&verdict).unwrap();
    assert_eq!((why.revision, why.encoder), (7, "ab".repeat(32)));
    assert_eq!(
        (why.head, why.parts),
        (Some(HeadKind::Lda), vec!["embedding".to_string()])
    );
    assert_eq!(
        (why.nearest_source.as_str(), why.nearest_unix_time),
        ("d1.png", 13)
    );
    assert_eq!(why.nearest_class, "dent");
    // A new name is the one to show; the sample's removal ends the explanation.
    job.rename_class(dent, "Delle").unwrap();
    assert_eq!(job.explain(&verdict).unwrap().nearest_class, "Delle");
    job.remove_sample(verdict.nearest).unwrap();
    assert!(matches!(job.explain(&verdict), Err(AdaptError::NotFitted)));
    job.fit(&FitOptions::default()).unwrap();
    assert!(matches!(
        job.explain(&verdict),
        Err(AdaptError::UnknownSample { id: 2 })
    ));
}

#[test]
fn the_nearest_sample_is_the_one_by_brute_force() {
    let data = Data::clusters(1, &[20, 20], 6, 0.3);
    let mut job = job_of_parts(&data, &layout(&[2, 4], &["b"]));
    let report = job.fit(&FitOptions::default()).unwrap();
    assert_eq!(report.parts, ["b"]);
    for row in &Data::clusters(2, &[50], 6, 1.0).rows {
        let x = wide(&row[2..]);
        let distance = |taught: &Vec<f32>| {
            let y = wide(&taught[2..]);
            1.0 - dot(&x, &y) / (dot(&x, &x) * dot(&y, &y)).sqrt()
        };
        let distances: Vec<f64> = data.rows.iter().map(distance).collect();
        let nearest = (0..40)
            .min_by(|a, b| distances[*a].total_cmp(&distances[*b]))
            .unwrap();
        let verdict = job.inspect(row).unwrap();
        assert_eq!(verdict.nearest.0, nearest as u64);
        assert!((f64::from(verdict.distance) - distances[nearest]).abs() < 1e-6);
        assert_eq!(
            verdict.p_value,
            report.unknown.p_value(distances[nearest]) as f32
        );
        assert_eq!(
            verdict.unknown,
            report.unknown.is_unknown(distances[nearest])
        );
    }
}

#[test]
fn a_loaded_job_explains_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sslj");
    let mut job = Data::clusters(3, &[4, 4], 3, 1.0).job();
    let class = job.classes()[0].id;
    job.add_sample(class, &[1.0, 2.0, 3.0], meta("x.png"))
        .unwrap();
    job.fit(&FitOptions {
        head: Some(HeadKind::Knn),
        ..FitOptions::default()
    })
    .unwrap();
    job.save(&path).unwrap();
    let loaded = Job::load(&path).unwrap();
    let verdict = loaded.inspect(&[1.0, 2.1, 3.0]).unwrap();
    assert_eq!(verdict, job.inspect(&[1.0, 2.1, 3.0]).unwrap());
    assert_eq!(
        loaded.explain(&verdict).unwrap(),
        job.explain(&verdict).unwrap()
    );
    assert_eq!(loaded.explain(&verdict).unwrap().nearest_source, "x.png");
}
