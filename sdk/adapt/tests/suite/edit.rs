//! Changing a job file where others may do the same.

use crate::common::{Data, encoder, meta};
use ssl_edge_adapt::{AdaptError, Job};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

const TARGET: &str = "SSL_EDGE_ADAPT_TEST_EDIT";

fn saved() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("line.sslj");
    Data::clusters(1, &[2, 2], 3, 1.0)
        .job()
        .save(&path)
        .unwrap();
    (folder, path)
}

#[test]
fn a_second_change_at_the_same_time_is_busy() {
    let (_folder, path) = saved();
    let (entered, wait_entered) = channel();
    let (leave, wait_leave) = channel::<()>();
    std::thread::scope(|scope| {
        let path = &path;
        let first = scope.spawn(move || {
            Job::edit(path, |job| {
                entered.send(()).unwrap();
                wait_leave.recv().unwrap();
                job.add_class("first").map(drop)
            })
        });
        wait_entered.recv().unwrap();
        let second = Job::edit(path, |job| job.add_class("second").map(drop)).unwrap_err();
        assert!(matches!(second, AdaptError::Busy { .. }), "{second}");
        assert!(second.to_string().contains("line.sslj"));
        // Reading goes on meanwhile.
        assert_eq!(Job::load(path).unwrap().classes().len(), 2);
        leave.send(()).unwrap();
        first.join().unwrap().unwrap();
    });
    Job::edit(&path, |job| job.add_class("second").map(drop)).unwrap();
    let job = Job::load(&path).unwrap();
    assert!(job.class_named("first").is_some() && job.class_named("second").is_some());
}

fn insist(path: &Path, name: &str) {
    loop {
        match Job::edit(path, |job| job.add_class(name).map(drop)) {
            Ok(()) => return,
            Err(AdaptError::Busy { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Three other processes and two threads add classes to one file: none is lost.
#[test]
fn no_change_of_many_is_lost() {
    if let Some(target) = std::env::var_os(TARGET) {
        let id = std::process::id();
        (0..8).for_each(|i| insist(Path::new(&target), &format!("{id} {i}")));
        return;
    }
    let (_folder, path) = saved();
    let child = |_| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "edit::no_change_of_many_is_lost"])
            .env(TARGET, &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..3).map(child).collect();
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let path = &path;
            scope.spawn(move || {
                (0..8).for_each(|i| insist(path, &format!("thread {thread} {i}")));
            });
        }
    });
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(Job::load(&path).unwrap().classes().len(), 2 + 5 * 8);
}

#[derive(Debug)]
enum Mine {
    Adapt(AdaptError),
    ChangedMyMind,
}

impl From<AdaptError> for Mine {
    fn from(error: AdaptError) -> Self {
        Self::Adapt(error)
    }
}

#[test]
fn a_change_that_fails_leaves_the_file() {
    let (_folder, path) = saved();
    let before = fs::read(&path).unwrap();
    let failed = Job::edit(&path, |job| {
        job.add_class("x")?;
        Err::<(), _>(Mine::ChangedMyMind)
    });
    assert!(matches!(failed, Err(Mine::ChangedMyMind)));
    let failed = Job::edit(&path, |job| {
        job.add_class("x")?;
        Ok::<_, Mine>(job.add_class("x")?)
    });
    assert!(matches!(
        failed,
        Err(Mine::Adapt(AdaptError::DuplicateClass { .. }))
    ));
    assert_eq!(fs::read(&path).unwrap(), before);
    // A panic frees the lock too.
    let panicked = std::panic::catch_unwind(|| {
        Job::edit(&path, |_| -> Result<(), AdaptError> {
            panic!("in the middle")
        })
    });
    assert!(panicked.is_err() && fs::read(&path).unwrap() == before);
    let id = Job::edit(&path, |job| job.add_class("y")).unwrap();
    assert_eq!(Job::load(&path).unwrap().class(id).unwrap().name, "y");
}

#[test]
fn a_job_that_is_not_there_is_named() {
    let (folder, _path) = saved();
    let missing = folder.path().join("none.sslj");
    let error = Job::edit::<(), AdaptError>(&missing, |_| Ok(())).unwrap_err();
    assert!(error.to_string().contains("none.sslj"), "{error}");
    let nowhere = folder.path().join("no folder").join("a.sslj");
    let error = Job::edit::<(), AdaptError>(&nowhere, |_| Ok(())).unwrap_err();
    assert!(
        matches!(error, AdaptError::Io { action: "lock", .. }),
        "{error}"
    );
}

#[test]
fn undo_and_teaching_go_through_a_file() {
    let (_folder, path) = saved();
    Job::edit(&path, |job| {
        job.set_operator("Ada", 5);
        let class = job.classes()[0].id;
        job.add_sample(class, &[1.0, 2.0, 3.0], meta("a.png"))?;
        job.undo();
        Ok::<_, AdaptError>(())
    })
    .unwrap();
    let job = Job::load(&path).unwrap();
    assert_eq!((job.samples().len(), job.history().len()), (4, 8));
    assert_eq!(job.history()[7].by, "Ada");
    assert_eq!(job.encoder(), &encoder(3));
}
