use crate::common::{Data, encoder, layout, meta};
use ssl_edge_adapt::{
    AdaptError, EncoderId, FitOptions, HeadKind, Job, Layout, Remade, Sample, SampleMeta,
};

/// Rows of `data` in classes by name; rows `from..to` only.
fn station(data: &Data, range: std::ops::Range<usize>) -> Job {
    let mut job = Job::new(encoder(data.dim()));
    for i in range {
        let name = format!("class {}", data.labels[i]);
        let class = match job.class_named(&name) {
            Some(class) => class.id,
            None => job.add_class(&name).unwrap(),
        };
        job.add_sample(class, &data.rows[i], meta(&format!("{i}.png")))
            .unwrap();
    }
    job
}

/// Scores by name of class, in alphabetical order.
fn by_name(job: &Job, frame: &[f32]) -> Vec<(String, f32)> {
    let verdict = job.inspect(frame).unwrap();
    let names = job.classes().iter().map(|class| class.name.clone());
    let mut scores: Vec<_> = names.zip(verdict.scores).collect();
    scores.sort_by(|a, b| a.0.cmp(&b.0));
    scores
}

#[test]
fn the_order_of_merging_does_not_matter() {
    let data = Data::clusters(1, &[10, 10, 10], 6, 0.3);
    // Overlapping stations; the second does not know class 0, nor the first class 2.
    let mut stations = [
        station(&data, 0..16),
        station(&data, 12..28),
        station(&data, 5..30),
    ];
    stations[0]
        .set_cost(stations[0].classes()[0].id, 4.0)
        .unwrap();
    stations[2]
        .set_cost(stations[2].classes()[0].id, 2.0)
        .unwrap();
    for (i, good) in [(0, true), (1, false), (2, true)] {
        let id = stations[i].class_named("class 1").unwrap().id;
        stations[i].set_good(id, good).unwrap();
    }
    let last = stations[1].class_named("class 2").unwrap().id;
    stations[1].set_good(last, true).unwrap();
    stations[1].add_class("empty").unwrap();
    let merged = |order: [usize; 3]| {
        let mut job = stations[order[0]].clone();
        job.merge(&stations[order[1]]).unwrap();
        job.merge(&stations[order[2]]).unwrap();
        let empty = job.class_named("empty").unwrap().id;
        job.remove_class(empty).unwrap();
        let report = job.fit(&FitOptions::default()).unwrap();
        (job, report)
    };
    let (first, want) = merged([0, 1, 2]);
    assert_eq!(want.n, 30);
    let marks = |job: &Job| {
        let mark = |name: &str| job.class_named(name).map(|c| (c.good, c.cost)).unwrap();
        ["class 0", "class 1", "class 2"].map(mark)
    };
    assert_eq!(marks(&first), [(false, 4.0), (false, 1.0), (false, 1.0)]);
    for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let (job, report) = merged(order);
        assert_eq!((report.n, report.loo_accuracy), (30, want.loo_accuracy));
        assert_eq!(marks(&job), marks(&first));
        for row in &Data::clusters(2, &[30], 6, 1.0).rows {
            for (a, b) in by_name(&job, row).iter().zip(by_name(&first, row)) {
                assert!(a.0 == b.0 && (a.1 - b.1).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn samples_of_both_are_added_once_and_marks_are_kept() {
    let data = Data::clusters(3, &[8, 8], 4, 1.0);
    let mut a = station(&data, 0..10);
    let mut b = station(&data, 6..16);
    let second = b.class_named("class 1").unwrap().id;
    b.rename_class(second, "stain").unwrap();
    a.rename_class(a.class_named("class 1").unwrap().id, "stain")
        .unwrap();
    assert_eq!(a.merge(&b).unwrap(), 6);
    assert_eq!((a.samples().len(), a.classes().len()), (16, 2));
    assert_eq!(a.samples()[15].meta, meta("15.png"));
    assert_eq!(a.merge(&b).unwrap(), 0);
    let mut empty = Job::new(encoder(4));
    b.set_cost(second, 7.0).unwrap();
    b.set_good(second, true).unwrap();
    empty.merge(&b).unwrap();
    let class = empty.class_named("stain").unwrap();
    assert!(class.good && class.cost == 7.0);
}

#[test]
fn a_contradiction_leaves_the_job_as_it_was() {
    let data = Data::clusters(4, &[4, 4], 4, 1.0);
    let mut job = station(&data, 0..8);
    job.fit(&FitOptions::default()).unwrap();
    let mut other = Job::new(encoder(4));
    let class = other.add_class("class 1").unwrap();
    other.add_sample(class, &[9.0; 4], meta("new.png")).unwrap();
    other
        .add_sample(class, &data.rows[2], meta("there/2.png"))
        .unwrap();
    let before = format!("{job:?}");
    let error = job.merge(&other).unwrap_err();
    assert!(matches!(error, AdaptError::Contradiction { sample: 2, .. }));
    let text = error.to_string();
    for part in [
        "`there/2.png`",
        "`class 1`",
        "sample 2",
        "`2.png`",
        "`class 0`",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(format!("{job:?}"), before);
}

#[test]
fn jobs_of_other_encoders_or_parts_are_refused() {
    let mut job = Job::new(encoder(4));
    let foreign = Job::new(EncoderId {
        hash: [1; 32],
        dim: 4,
    });
    assert!(matches!(
        job.merge(&foreign),
        Err(AdaptError::EncoderMismatch { .. })
    ));
    let parts = Job::with_layout(encoder(4), layout(&[1, 3], &["b"])).unwrap();
    assert!(matches!(job.merge(&parts), Err(AdaptError::Shape { .. })));
}

/// Another encoder whose features are a rotation of this one's: verdicts stay; one whose features say nothing: the report shows it.
#[test]
fn a_job_moves_to_another_encoder_and_is_compared() {
    let data = Data::clusters(5, &[9, 8], 4, 1.0);
    let mut job = Job::new(encoder(4));
    let ids = [
        job.add_class("good").unwrap(),
        job.add_class("bad").unwrap(),
    ];
    for (i, (row, &label)) in data.rows.iter().zip(&data.labels).enumerate() {
        let thumbnail = row.iter().flat_map(|x| x.to_le_bytes()).collect();
        job.add_sample_with_thumbnail(ids[label], row, meta(&i.to_string()), thumbnail)
            .unwrap();
    }
    let before = job.fit(&FitOptions::default()).unwrap();
    let untouched = format!("{job:?}");
    let turned = |x: &[f32]| vec![-x[2], x[0], x[3], -x[1]];
    let picture = |sample: &Sample| -> Vec<f32> {
        let words = sample.thumbnail.chunks(4);
        words
            .map(|w| f32::from_le_bytes(w.try_into().unwrap()))
            .collect()
    };
    let id = EncoderId {
        hash: [9; 32],
        dim: 4,
    };
    let options = FitOptions::default();
    let moved = job
        .migrate::<AdaptError>(id, Layout::single(4), &options, |sample| {
            Ok(plain(turned(&picture(sample))))
        })
        .unwrap();
    assert_eq!(format!("{job:?}"), untouched);
    assert_eq!(moved.before.as_ref(), Some(&before));
    assert_eq!(moved.after.loo_accuracy, before.loo_accuracy);
    assert_eq!(
        (moved.job.encoder(), moved.job.classes()),
        (&id, job.classes())
    );
    for (old, new) in job.samples().iter().zip(moved.job.samples()) {
        assert_eq!(
            (old.id, old.class, &old.meta, &old.thumbnail),
            (new.id, new.class, &new.meta, &new.thumbnail)
        );
        let (a, b) = (
            job.inspect(&old.embedding).unwrap(),
            moved.job.inspect(&new.embedding).unwrap(),
        );
        assert_eq!((a.name, a.nearest), (b.name, b.nearest));
        assert!((a.score - b.score).abs() < 1e-5);
    }
    // Ids go on after the move.
    let mut next = moved.job.clone();
    assert_eq!(
        next.add_sample(ids[0], &[0.0; 4], SampleMeta::default())
            .unwrap()
            .0,
        17
    );
    let mut n = 0.0;
    let blind = job.migrate::<AdaptError>(
        EncoderId { dim: 2, ..id },
        Layout::single(2),
        &options,
        |_| {
            n += 1.0f32;
            Ok(plain(vec![n.sin(), (1.7 * n).cos()]))
        },
    );
    let blind = blind.unwrap();
    assert!(
        blind.after.loo_accuracy.unwrap() < 0.9 && blind.before.unwrap().loo_accuracy == Some(1.0)
    );
}

#[test]
fn a_move_that_fails_says_why() {
    let mut job = Data::clusters(6, &[3, 3], 4, 1.0).job();
    job.fit(&FitOptions {
        head: Some(HeadKind::Knn),
        ..FitOptions::default()
    })
    .unwrap();
    let id = EncoderId {
        hash: [9; 32],
        dim: 2,
    };
    let options = FitOptions::default();
    let with = |layout: Layout, feature: fn(&Sample) -> Result<Remade, AdaptError>| {
        job.migrate(id, layout, &options, feature)
            .map(drop)
            .unwrap_err()
    };
    let lost = with(Layout::single(2), |sample| {
        Err(AdaptError::UnknownSample { id: sample.id.0 })
    });
    assert!(matches!(lost, AdaptError::UnknownSample { id: 0 }));
    let long = with(Layout::single(2), |sample| {
        Ok(plain(sample.embedding.clone()))
    })
    .to_string();
    assert!(
        long.contains("sample 0") && long.contains("4 values where 2"),
        "{long}"
    );
    assert!(matches!(
        with(Layout::single(3), |_| Ok(plain(vec![]))),
        AdaptError::Shape { .. }
    ));
    let same = with(Layout::single(2), |_| Ok(plain(vec![1.0, 2.0])));
    assert!(matches!(same, AdaptError::Degenerate { n: 6 }), "{same}");
}

/// Without patch tokens.
fn plain(feature: Vec<f32>) -> Remade {
    Remade {
        feature,
        tokens: None,
        copies: Vec::new(),
    }
}
