//! What changes leave behind: records, marks, costs.

use crate::common::{Data, encoder, meta};
use ssl_edge_adapt::{
    Action, AdaptError, FitOptions, HeadKind, Job, Layout, Remade, SampleId, SampleMeta,
};

#[test]
fn every_action_is_recorded_with_its_operator() {
    let mut job = Job::new(encoder(2));
    job.set_operator("Ada", 100);
    let good = job.add_class("good").unwrap();
    let dent = job.add_class("dent").unwrap();
    let scratch = job.add_class("scratch").unwrap();
    job.rename_class(dent, "Delle").unwrap();
    job.set_good(dent, true).unwrap();
    job.set_cost(good, 3.0).unwrap();
    let sample = |job: &mut Job, class, x: [f32; 2], source: &str| {
        job.add_sample(class, &x, meta(source)).unwrap()
    };
    let a = sample(&mut job, good, [1.0, 0.0], "a.png");
    let b = sample(&mut job, dent, [0.0, 1.0], "b.png");
    let c = sample(&mut job, scratch, [-1.0, 0.5], "c.png");
    job.set_operator("Bob", 200);
    job.relabel_sample(c, dent).unwrap();
    job.undo();
    job.fit(&FitOptions::default()).unwrap();
    job.merge_classes(scratch, dent).unwrap();
    job.remove_sample(b).unwrap();
    let mut other = Job::new(encoder(2));
    let there = other.add_class("good").unwrap();
    sample(&mut other, there, [2.0, 0.0], "d.png");
    job.merge(&other).unwrap();
    job.remove_class(dent).unwrap();
    let d = SampleId(3);
    let want = [
        Action::AddClass {
            class: good,
            name: "good".into(),
        },
        Action::AddClass {
            class: dent,
            name: "dent".into(),
        },
        Action::AddClass {
            class: scratch,
            name: "scratch".into(),
        },
        Action::RenameClass {
            class: dent,
            from: "dent".into(),
            to: "Delle".into(),
        },
        Action::SetGood {
            class: dent,
            good: true,
        },
        Action::SetCost {
            class: good,
            cost: 3.0,
        },
        Action::AddSample {
            sample: a,
            class: good,
            source: "a.png".into(),
        },
        Action::AddSample {
            sample: b,
            class: dent,
            source: "b.png".into(),
        },
        Action::AddSample {
            sample: c,
            class: scratch,
            source: "c.png".into(),
        },
        Action::Relabel {
            sample: c,
            from: scratch,
            to: dent,
        },
        Action::Undo { revision: 10 },
        Action::Fit {
            head: Some(HeadKind::Lda),
            parts: vec!["embedding".into()],
            samples: 3,
        },
        Action::MergeClasses {
            from: scratch,
            into: dent,
            samples: 1,
        },
        Action::RemoveSample {
            sample: b,
            class: dent,
            source: "b.png".into(),
        },
        Action::AddSample {
            sample: d,
            class: good,
            source: "d.png".into(),
        },
        Action::MergeJob { samples: 1 },
        Action::RemoveClass {
            class: dent,
            name: "Delle".into(),
            samples: 1,
        },
    ];
    let actions: Vec<&Action> = job.history().iter().map(|record| &record.action).collect();
    assert_eq!(actions, want.iter().collect::<Vec<_>>());
    for (i, record) in job.history().iter().enumerate() {
        let who = if i < 9 { ("Ada", 100) } else { ("Bob", 200) };
        assert_eq!((record.by.as_str(), record.unix_time), who);
        assert_eq!(record.revision, i as u64 + 1);
    }
    assert_eq!(job.revision(), 17);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sslj");
    job.save(&path).unwrap();
    let loaded = Job::load(&path).unwrap();
    assert_eq!((loaded.history(), loaded.revision()), (job.history(), 17));
    let migrated = job
        .migrate::<AdaptError>(encoder(1), Layout::single(1), &FitOptions::default(), |s| {
            Ok(Remade {
                feature: vec![s.embedding[0]],
                tokens: None,
                copies: Vec::new(),
            })
        })
        .unwrap();
    let last: Vec<&Action> = migrated.job.history()[17..]
        .iter()
        .map(|r| &r.action)
        .collect();
    assert!(matches!(
        last[..],
        [Action::NewEncoder { .. }, Action::Fit { head: None, .. }]
    ));
}

#[test]
fn a_call_that_fails_changes_nothing() {
    let mut job = Data::clusters(1, &[2, 2], 3, 1.0).job();
    let (class, sample) = (job.classes()[0].id, job.samples()[0].id);
    let row = job.samples()[0].embedding.clone();
    let (before, revision) = (format!("{job:?}"), job.revision());
    let gone = ssl_edge_adapt::ClassId(77);
    assert!(job.add_class("class 1").is_err());
    assert!(job.rename_class(class, "class 1").is_err());
    assert!(job.rename_class(gone, "x").is_err());
    assert!(job.set_good(gone, true).is_err());
    assert!(job.remove_class(gone).is_err());
    assert!(job.merge_classes(class, class).is_err());
    assert!(job.merge_classes(class, gone).is_err());
    assert!(job.merge_classes(gone, class).is_err());
    assert!(job.relabel_sample(sample, gone).is_err());
    assert!(job.relabel_sample(SampleId(77), class).is_err());
    assert!(job.remove_sample(SampleId(77)).is_err());
    assert!(job.add_sample(class, &row, SampleMeta::default()).is_err());
    for cost in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(job.set_cost(class, cost).is_err());
    }
    assert_eq!((format!("{job:?}"), job.revision()), (before, revision));
}

#[test]
fn a_frame_is_taught_once() {
    let mut job = Job::new(encoder(2));
    let (good, bad) = (
        job.add_class("good").unwrap(),
        job.add_class("bad").unwrap(),
    );
    let first = job
        .add_sample(good, &[1.0, 2.0], meta("line/1.png"))
        .unwrap();
    let twice = job
        .add_sample(good, &[1.0, 2.0], meta("line/2.png"))
        .unwrap_err();
    assert!(matches!(twice, AdaptError::Duplicate { sample: 0, .. }));
    let text = twice.to_string();
    assert!(
        text.contains("line/2.png") && text.contains("sample 0 (`line/1.png`)"),
        "{text}"
    );
    let both = job
        .add_sample(bad, &[1.0, 2.0], meta("line/3.png"))
        .unwrap_err();
    assert!(matches!(both, AdaptError::Contradiction { sample: 0, .. }));
    let text = both.to_string();
    for part in [
        "`line/3.png`",
        "`bad`",
        "`good`",
        "sample 0",
        "`line/1.png`",
        "relabel",
    ] {
        assert!(text.contains(part), "{text}");
    }
    // After it is gone, or after a relabelling, the frame is judged by what is there.
    job.relabel_sample(first, bad).unwrap();
    assert!(matches!(
        job.add_sample(bad, &[1.0, 2.0], meta("4")),
        Err(AdaptError::Duplicate { .. })
    ));
    job.remove_sample(first).unwrap();
    job.add_sample(good, &[1.0, 2.0], meta("5")).unwrap();
    job.remove_class(good).unwrap();
    job.add_sample(bad, &[1.0, 2.0], meta("6")).unwrap();
    job.undo();
    job.undo();
    assert!(matches!(
        job.add_sample(bad, &[1.0, 2.0], meta("7")),
        Err(AdaptError::Contradiction { .. })
    ));
}

/// The verdict is the class with the largest probability times cost, for costs on both sides of where it flips.
#[test]
fn costs_move_the_decision_as_the_formula_says() {
    let data = Data::clusters(2, &[12, 12, 12], 5, 0.3);
    let mut job = data.job();
    job.fit(&FitOptions::default()).unwrap();
    let ids: Vec<_> = job.classes().iter().map(|class| class.id).collect();
    let mut flipped = 0;
    for row in &Data::clusters(3, &[60], 5, 1.0).rows {
        let plain = job.inspect(row).unwrap();
        let (best, mut costly) = (plain.class, job.clone());
        let at = ids.iter().position(|id| *id == best).unwrap();
        let other = (at + 1) % 3;
        let ratio = f64::from(plain.scores[at]) / f64::from(plain.scores[other]);
        if !(1.01..1e6).contains(&ratio) {
            continue;
        }
        costly.set_cost(ids[other], ratio * 0.99).unwrap();
        let below = costly.inspect(row).unwrap();
        costly.set_cost(ids[other], ratio * 1.01).unwrap();
        let above = costly.inspect(row).unwrap();
        assert_eq!((below.class, above.class), (best, ids[other]));
        // Costs move decisions, not probabilities.
        assert!(below.scores == plain.scores && above.scores == plain.scores);
        assert_eq!(above.score, plain.scores[other]);
        flipped += 1;
    }
    assert!(flipped > 20, "{flipped}");
}

#[test]
fn a_part_passes_if_its_class_is_good_and_it_is_not_unknown() {
    let mut job = Data::clusters(4, &[25, 25], 8, 2.0).job();
    job.fit(&FitOptions::default()).unwrap();
    let (first, second) = (job.classes()[0].id, job.classes()[1].id);
    let frames = [
        job.samples()[0].embedding.clone(),
        job.samples()[30].embedding.clone(),
    ];
    let stranger: Vec<f32> = frames[0].iter().map(|x| -x).collect();
    let ok = |job: &Job, frame: &[f32]| job.inspect(frame).unwrap().ok;
    assert_eq!(ok(&job, &frames[0]), None);
    assert_eq!(ok(&job, &stranger), None);
    job.set_good(first, true).unwrap();
    assert!(job.inspect(&stranger).unwrap().unknown);
    let of = |job: &Job| [ok(job, &frames[0]), ok(job, &frames[1]), ok(job, &stranger)];
    assert_eq!(of(&job), [Some(true), Some(false), Some(false)]);
    job.set_good(second, true).unwrap();
    assert_eq!(of(&job), [Some(true), Some(true), Some(false)]);
    job.set_good(first, false).unwrap();
    assert_eq!(of(&job), [Some(false), Some(true), Some(false)]);
    for (name, good) in [
        ("Good", true),
        (" OK ", true),
        ("pass", true),
        ("NORMAL", true),
        ("not ok", false),
    ] {
        let id = job.add_class(name).unwrap();
        assert_eq!(job.class(id).unwrap().good, good, "{name}");
    }
}

#[test]
fn a_job_of_one_class_tells_what_is_unlike_it() {
    let mut job = Data::clusters(5, &[40], 8, 1.0).job();
    let report = job
        .fit(&FitOptions {
            unknown_rate: 0.1,
            ..FitOptions::default()
        })
        .unwrap();
    assert_eq!(
        (report.head, report.loo_n, report.needs_more),
        (None, 0, None)
    );
    assert_eq!(
        (report.unknown.n(), report.unknown.promised),
        (40, Some(0.1))
    );
    let like = job.inspect(&job.samples()[7].embedding).unwrap();
    assert_eq!(
        (like.name.as_str(), like.score, like.unknown),
        ("class 0", 1.0, false)
    );
    let unlike: Vec<f32> = job.samples()[7].embedding.iter().map(|x| -x).collect();
    let verdict = job.inspect(&unlike).unwrap();
    assert!(verdict.unknown && verdict.p_value == 1.0 / 41.0);
    // A second class makes it an ordinary job, with the default head.
    let second = job.add_class("second").unwrap();
    job.add_sample(second, &unlike, SampleMeta::default())
        .unwrap();
    assert_eq!(
        job.fit(&FitOptions::default()).unwrap().head,
        Some(HeadKind::Lda)
    );
    assert_eq!(job.inspect(&unlike).unwrap().name, "second");
}
