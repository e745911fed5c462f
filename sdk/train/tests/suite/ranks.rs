use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ssl_edge_train::collective::{Collective, CollectiveError, Threads};
use ssl_edge_train::{
    Checkpoint, MethodName, Observer, Progress, RunOptions, RunSummary, TrainConfig, TrainError,
    pretrain_over,
};

use crate::common::{Recorder, Workbench, assert_equal_runs, newest, run, values, write_image};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Trains on ranks in threads, each with a configuration and an observer of its own.
fn run_each(
    configs: &[TrainConfig],
    options: &RunOptions,
    observers: &[&dyn Observer],
    ranks: &[Box<dyn Collective>],
) -> Vec<thread::Result<Result<RunSummary, TrainError>>> {
    thread::scope(|scope| {
        let mut handles = Vec::new();
        for ((ranks, config), observer) in ranks.iter().zip(configs).zip(observers) {
            let observer: &dyn Observer = *observer;
            let train = move || pretrain_over(config, options, observer, ranks.as_ref());
            handles.push(scope.spawn(train));
        }
        handles.into_iter().map(|handle| handle.join()).collect()
    })
}

fn threads(world: usize, timeout: Duration) -> Vec<Box<dyn Collective>> {
    let ranks = Threads::ranks(world, timeout).into_iter();
    ranks.map(|rank| Box::new(rank) as _).collect()
}

pub(crate) fn run_ranks(
    configs: &[TrainConfig],
    folder: &Path,
    resume: bool,
    observer: &dyn Observer,
) -> Vec<Result<RunSummary, TrainError>> {
    let options = RunOptions {
        folder: folder.to_path_buf(),
        resume,
    };
    let observers = vec![observer; configs.len()];
    let ranks = threads(configs.len(), TIMEOUT);
    let ends = run_each(configs, &options, &observers, &ranks);
    ends.into_iter().map(|end| end.unwrap()).collect()
}

/// Three steps; an epsilon that keeps Adam from making a step of full size of a gradient that is mathematically 0 and in f32 mere
/// rounding (that of the keys' bias is: softmax does not see it).
pub(crate) fn comparable(bench: &Workbench, method: MethodName) -> TrainConfig {
    let mut config = bench.config(method);
    config.schedule.images = 12;
    config.optimizer.adamw.eps = 1e-3;
    config
}

/// A figure of every step in the metrics.
fn figures(folder: &Path, key: &str) -> Vec<f64> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter_map(|line| line.get(key)?.as_f64())
        .collect()
}

/// Largest difference of two tensors of one name, relative to the largest value of the tensor.
pub(crate) fn difference(a: &Checkpoint, b: &Checkpoint) -> (f64, String) {
    let mut worst = (0.0, String::new());
    for (ours, theirs) in [(&a.model, &b.model), (&a.teacher, &b.teacher)] {
        assert_eq!(
            ours.keys().collect::<Vec<_>>(),
            theirs.keys().collect::<Vec<_>>()
        );
        for (name, tensor) in ours {
            let (x, y) = (values(tensor), values(&theirs[name]));
            let scale = y.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
            let apart = x
                .iter()
                .zip(&y)
                .fold(0f32, |m, (x, y)| m.max((x - y).abs()));
            if f64::from(apart / scale) > worst.0 {
                worst = (f64::from(apart / scale), name.clone());
            }
        }
    }
    worst
}

#[test]
fn ranks_end_where_one_process_with_the_same_batch_ends() {
    for method in MethodName::ALL {
        let bench = Workbench::new(9);
        let config = comparable(&bench, method);
        run(&config, &bench.path("one"), false, &()).unwrap();
        let one = newest(&bench.path("one"));
        let mut shorter = config.clone();
        shorter.schedule.images = 8;
        run(&shorter, &bench.path("shorter"), false, &()).unwrap();
        let (moved, _) = difference(&newest(&bench.path("shorter")), &one);
        assert!(moved > 1e-3, "{method}: a step moves weights by {moved:e}");

        for world in [2, 4] {
            let folder = bench.path(&format!("{world}"));
            for summary in run_ranks(&vec![config.clone(); world], &folder, false, &()) {
                let summary = summary.unwrap();
                assert_eq!((summary.step, summary.images_seen), (3, 12));
                assert!(summary.checkpoint.is_dir());
            }
            // Sums over a batch of 4 are made in another order: some 1e-7 of each gradient, at most 1e-5 after three steps.
            let (apart, name) = difference(&newest(&folder), &one);
            assert!(apart < 1e-5, "{method}, {world} ranks: {name} {apart:e}");
            for key in ["loss", "grad_norm", "teacher_entropy"] {
                let ours = figures(&folder, key);
                let theirs = figures(&bench.path("one"), key);
                assert_eq!(ours.len(), theirs.len());
                for (x, y) in ours.iter().zip(&theirs) {
                    assert!((x / y - 1.0).abs() < 1e-5, "{method} {key}: {x} {y}");
                }
            }
        }
    }
}

#[test]
fn ranks_give_the_same_bits_in_every_run_and_when_resumed() {
    for method in MethodName::ALL {
        let bench = Workbench::new(9);
        let config = bench.config(method);
        let two = vec![config.clone(); 2];
        let mut other_threads = two.clone();
        other_threads[1].threads = 1;
        run_ranks(&two, &bench.path("a"), false, &())
            .into_iter()
            .for_each(|end| drop(end.unwrap()));
        run_ranks(&other_threads, &bench.path("b"), false, &())
            .into_iter()
            .for_each(|end| drop(end.unwrap()));
        assert_equal_runs(&bench.path("a"), &bench.path("b"));

        let folder = bench.path("interrupted");
        for (resume, stop_at, step) in [(false, Some(3), 3), (true, None, 10)] {
            let recorder = Recorder {
                stop_at,
                ..Recorder::default()
            };
            for end in run_ranks(&two, &folder, resume, &recorder) {
                assert_eq!(end.unwrap().step, step);
            }
        }
        assert_equal_runs(&bench.path("a"), &folder);
        for key in ["loss", "grad_norm"] {
            assert_eq!(figures(&bench.path("a"), key), figures(&folder, key));
        }
    }
}

#[test]
fn only_rank_0_reports_and_writes() {
    let bench = Workbench::new(6);
    fs::write(bench.images().join("broken.pgm"), "no image").unwrap();
    let config = comparable(&bench, MethodName::Mae);
    let options = RunOptions {
        folder: bench.path("run"),
        resume: false,
    };
    let (first, second) = (Recorder::default(), Recorder::stopping(0));
    let ranks = threads(2, TIMEOUT);
    let ends = run_each(
        &[config.clone(), config],
        &options,
        &[&first, &second],
        &ranks,
    );
    assert!(ends.into_iter().all(|end| end.unwrap().is_ok()));
    assert_eq!(first.losses.lock().unwrap().len(), 3);
    assert_eq!(first.skipped.lock().unwrap().len(), 1);
    assert!(second.losses.lock().unwrap().is_empty());
    assert!(second.skipped.lock().unwrap().is_empty());
    assert_eq!(figures(&options.folder, "loss").len(), 3);
}

#[test]
fn a_batch_that_the_ranks_cannot_share_is_refused() {
    let bench = Workbench::new(9);
    let config = bench.config(MethodName::Mae);
    for end in run_ranks(&vec![config; 3], &bench.path("run"), false, &()) {
        let error = end.unwrap_err();
        let is_batch = matches!(error, TrainError::BatchOverRanks { batch: 4, world: 3 });
        assert!(is_batch, "{error}");
        assert!(
            error.to_string().contains("--set schedule.batch=3"),
            "{error}"
        );
    }
    assert!(!bench.path("run").exists());
}

#[test]
fn ranks_with_other_settings_or_images_are_named() {
    let bench = Workbench::new(6);
    let mut configs = vec![bench.config(MethodName::Mae); 4];
    configs[2].optimizer.base_lr = 0.2;
    configs[3].seed = 6;
    let differ = |configs: &[TrainConfig], expected: &str, named: &[usize]| {
        for end in run_ranks(configs, &bench.path("run"), false, &()) {
            let error = end.unwrap_err();
            let TrainError::RanksDiffer { ranks, what, .. } = error else {
                panic!("{error}")
            };
            assert_eq!((what, ranks.as_slice()), (expected, named));
        }
        assert!(!bench.path("run").exists());
    };
    differ(&configs, "settings", &[2, 3]);

    let other = copy_of_images(&bench);
    write_image(&other.join("new.pgm"), 77);
    let mut configs = vec![bench.config(MethodName::Mae); 2];
    configs[1].data.folders = vec![other];
    differ(&configs, "images", &[1]);
}

fn copy_of_images(bench: &Workbench) -> PathBuf {
    let other = bench.path("copy");
    fs::create_dir(&other).unwrap();
    for entry in fs::read_dir(bench.images()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), other.join(entry.file_name())).unwrap();
    }
    other
}

/// Does something once, after a step of rank 0.
struct After<F: Fn() + Send + Sync> {
    step: u64,
    act: F,
}

impl<F: Fn() + Send + Sync> Observer for After<F> {
    fn step(&self, progress: &Progress) {
        if progress.step == self.step {
            (self.act)();
        }
    }
}

fn collective(error: TrainError) -> CollectiveError {
    match error {
        TrainError::Collective(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn a_rank_that_fails_stops_the_others_with_its_name_and_reason() {
    let bench = Workbench::new(6);
    let other = copy_of_images(&bench);
    let mut configs = vec![bench.config(MethodName::Mae); 4];
    configs[1].data.folders = vec![other.clone()];
    fs::remove_dir_all(&other).unwrap();
    let mut ends = run_ranks(&configs, &bench.path("run"), false, &());
    let source = ends.remove(1).unwrap_err();
    assert!(matches!(source, TrainError::Dataset(_)), "{source}");
    let failed = CollectiveError::Failed {
        rank: 1,
        message: source.to_string(),
    };
    for end in ends {
        assert_eq!(collective(end.unwrap_err()), failed);
    }

    // What rank 0 alone does, too: a file where the checkpoints should be.
    let configs = vec![bench.config(MethodName::Mae); 2];
    let block = After {
        step: 1,
        act: || fs::write(bench.path("blocked/checkpoints"), "in the way").unwrap(),
    };
    let mut ends = run_ranks(&configs, &bench.path("blocked"), false, &block);
    let second = collective(ends.remove(1).unwrap_err());
    let first = ends.remove(0).unwrap_err();
    assert!(matches!(first, TrainError::Io { .. }), "{first}");
    assert!(
        matches!(&second, CollectiveError::Failed { rank: 0, message } if *message == first.to_string()),
        "{second}"
    );
}

#[test]
fn a_rank_that_panics_stops_the_others() {
    let bench = Workbench::new(6);
    let config = bench.config(MethodName::Mae);
    let options = RunOptions {
        folder: bench.path("run"),
        resume: false,
    };
    let panic = After {
        step: 2,
        act: || panic!("an observer that panics"),
    };
    let ranks = threads(2, TIMEOUT);
    let mut ends = run_each(&[config.clone(), config], &options, &[&panic, &()], &ranks);
    let second = collective(ends.remove(1).unwrap().unwrap_err());
    assert!(
        matches!(second, CollectiveError::Failed { rank: 0, .. }),
        "{second}"
    );
    assert!(ends.remove(0).is_err());
}

#[test]
fn a_rank_that_hangs_is_given_up_after_the_timeout() {
    let bench = Workbench::new(6);
    let config = bench.config(MethodName::Mae);
    let options = RunOptions {
        folder: bench.path("run"),
        resume: false,
    };
    let waited = Duration::from_secs(3);
    let hang = After {
        step: 2,
        act: || thread::sleep(2 * waited),
    };
    let start = Instant::now();
    let ranks = threads(2, waited);
    let ends = run_each(&vec![config; 2], &options, &[&hang, &()], &ranks);
    let missing = CollectiveError::Missing {
        ranks: vec![0],
        waited,
    };
    for end in ends {
        assert_eq!(collective(end.unwrap().unwrap_err()), missing);
    }
    assert!(start.elapsed() < TIMEOUT);
}

/// A rank that gathers `value` in place of its own in the given call.
#[derive(Debug)]
struct Meddler {
    inner: Threads,
    call: usize,
    value: u64,
    calls: AtomicUsize,
}

impl Collective for Meddler {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn world(&self) -> usize {
        self.inner.world()
    }

    fn all_reduce_sum(&self, values: &mut [f32]) -> Result<(), CollectiveError> {
        self.inner.all_reduce_sum(values)
    }

    fn all_reduce_sum_f64(&self, values: &mut [f64]) -> Result<(), CollectiveError> {
        self.inner.all_reduce_sum_f64(values)
    }

    fn broadcast(&self, root: usize, values: &mut [u64]) -> Result<(), CollectiveError> {
        self.inner.broadcast(root, values)
    }

    fn all_gather(&self, value: u64) -> Result<Vec<u64>, CollectiveError> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        self.inner
            .all_gather(if call == self.call { self.value } else { value })
    }

    fn barrier(&self) -> Result<(), CollectiveError> {
        self.inner.barrier()
    }

    fn fail(&self, message: &str) {
        self.inner.fail(message);
    }
}

/// Errors of two ranks, the second of which gathers `value` in its call number `call`: settings, images and weights, then for
/// every step loss and gradient norm.
fn errors_with(call: usize, value: u64, bench: &Workbench, name: &str) -> Vec<TrainError> {
    let config = bench.config(MethodName::Mae);
    let options = RunOptions {
        folder: bench.path(name),
        resume: false,
    };
    let mut ranks = Threads::ranks(2, TIMEOUT);
    let meddler = Meddler {
        inner: ranks.remove(1),
        call,
        value,
        calls: AtomicUsize::new(0),
    };
    let ranks: Vec<Box<dyn Collective>> = vec![Box::new(ranks.remove(0)), Box::new(meddler)];
    let ends = run_each(&[config.clone(), config], &options, &[&(), &()], &ranks);
    ends.into_iter()
        .map(|end| end.unwrap().unwrap_err())
        .collect()
}

#[test]
fn a_loss_or_gradient_that_is_not_finite_names_its_rank_and_images_on_all_ranks() {
    let bench = Workbench::new(6);
    for (call, expected) in [(5, "loss"), (6, "gradient norm")] {
        let errors = errors_with(call, f64::NAN.to_bits(), &bench, expected);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts[0], texts[1]);
        let TrainError::NonFinite {
            what,
            rank,
            step,
            samples,
            ..
        } = &errors[0]
        else {
            panic!("{}", texts[0])
        };
        assert_eq!((*what, *rank, *step), (expected, Some(1), 1));
        assert_eq!(samples.len(), 2);
        assert!(texts[0].contains("on rank 1 at step 1"), "{}", texts[0]);
    }
}

#[test]
fn weights_that_drift_apart_are_found() {
    let bench = Workbench::new(6);
    for error in errors_with(2, 0, &bench, "run") {
        let text = error.to_string();
        let TrainError::RanksDiffer { ranks, what, .. } = error else {
            panic!("{text}")
        };
        assert_eq!((what, ranks), ("weights", vec![1]));
    }
}
