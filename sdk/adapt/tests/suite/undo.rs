use crate::common::{Data, encoder};
use ssl_edge_adapt::{AdaptError, FitOptions, FitReport, Job, SampleMeta, Verdict};

fn taught() -> Job {
    let mut job = Data::clusters(1, &[6, 5, 4], 5, 0.4).job();
    job.set_cost(job.classes()[1].id, 1.5).unwrap();
    job
}

type State = (String, FitReport, Vec<Verdict>);

/// Classes, samples, report and verdicts; the revision, which goes on, is left out.
fn state(job: &mut Job) -> State {
    let report = job.fit(&FitOptions::default()).unwrap();
    let frames = Data::clusters(2, &[30], 5, 1.0).rows;
    let verdict = |row: &Vec<f32>| Verdict {
        revision: 0,
        ..job.inspect(row).unwrap()
    };
    let what = format!("{:?} {:?}", job.classes(), job.samples());
    (what, report, frames.iter().map(verdict).collect())
}

#[test]
fn every_change_is_taken_back_without_a_trace() {
    type Change = fn(&mut Job) -> Result<(), AdaptError>;
    let changes: [(&str, Change); 9] = [
        ("add class", |job| job.add_class("new").map(drop)),
        ("rename", |job| job.rename_class(job.classes()[1].id, "x")),
        ("good", |job| job.set_good(job.classes()[2].id, true)),
        ("cost", |job| job.set_cost(job.classes()[1].id, 9.0)),
        ("remove class", |job| job.remove_class(job.classes()[1].id)),
        ("merge", |job| {
            job.merge_classes(job.classes()[0].id, job.classes()[2].id)
        }),
        ("add", |job| {
            let class = job.classes()[1].id;
            job.add_sample(class, &[1.0, 2.0, 3.0, 4.0, 5.0], SampleMeta::default())
                .map(drop)
        }),
        ("relabel", |job| {
            job.relabel_sample(job.samples()[8].id, job.classes()[0].id)
        }),
        ("remove", |job| {
            job.remove_sample(job.samples()[7].id).map(drop)
        }),
    ];
    for (name, change) in changes {
        let mut job = taught();
        let before = state(&mut job);
        let revision = job.revision();
        change(&mut job).unwrap();
        assert_ne!(
            format!("{:?} {:?}", job.classes(), job.samples()),
            before.0,
            "{name}"
        );
        assert_eq!(job.undo(), Some(revision + 1), "{name}");
        assert_eq!(job.revision(), revision + 2, "{name}");
        assert!(matches!(job.inspect(&[0.0; 5]), Err(AdaptError::NotFitted)));
        assert_eq!(state(&mut job), before, "{name}");
    }
    // All of them, one after the other.
    let mut job = taught();
    let before = state(&mut job);
    for (_, change) in changes {
        change(&mut job).unwrap();
    }
    for _ in changes {
        job.undo().unwrap();
    }
    assert_eq!(state(&mut job), before);
}

#[test]
fn there_is_an_end_to_taking_back() {
    let mut job = Job::new(encoder(1));
    assert_eq!(job.undo(), None);
    for i in 0..70 {
        job.add_class(&i.to_string()).unwrap();
    }
    let taken = std::iter::from_fn(|| job.undo()).count();
    assert_eq!((taken, job.classes().len()), (64, 6));
    assert_eq!(job.revision(), 70 + 64);
    // A class that comes back does so under its id, and ids go on.
    let id = job.classes()[2].id;
    job.remove_class(id).unwrap();
    job.undo();
    assert_eq!(job.classes()[2].id, id);
    assert_eq!(job.add_class("next").unwrap().0, 70);
}

#[test]
fn merged_jobs_and_loaded_files_cannot_be_taken_back() {
    let mut job = taught();
    let other = Data::clusters(9, &[2], 5, 1.0).job();
    job.merge(&other).unwrap();
    assert_eq!(job.undo(), None);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sslj");
    job.add_class("x").unwrap();
    job.save(&path).unwrap();
    assert_eq!(Job::load(&path).unwrap().undo(), None);
    assert!(job.undo().is_some());
}
