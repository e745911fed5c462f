use std::fs;
use std::path::Path;

use ssl_edge_train::{MethodName, TrainError, encoder_of, latest_checkpoint};

use crate::common::{Recorder, Workbench, run, write_image};

fn listing(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                files.push((path.display().to_string(), fs::read(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

#[test]
fn an_existing_run_is_not_overwritten_and_a_missing_one_not_resumed() {
    let bench = Workbench::new(6);
    let config = bench.config(MethodName::Mae);
    let folder = bench.path("run");
    let error = run(&config, &folder, true, &()).unwrap_err();
    assert!(matches!(error, TrainError::NoRun { .. }), "{error}");
    assert!(!folder.exists());
    run(&config, &folder, false, &Recorder::stopping(2)).unwrap();
    let before = listing(&folder);
    let error = run(&config, &folder, false, &()).unwrap_err();
    assert!(matches!(error, TrainError::RunExists { .. }), "{error}");
    assert!(error.to_string().contains("--resume"), "{error}");
    assert_eq!(listing(&folder), before);
}

#[test]
fn resuming_with_other_settings_or_images_is_refused_by_name() {
    let bench = Workbench::new(6);
    let config = bench.config(MethodName::Dino);
    let folder = bench.path("run");
    run(&config, &folder, false, &Recorder::stopping(2)).unwrap();
    let before = listing(&folder);

    let mut other = config.clone();
    other.optimizer.base_lr = 0.2;
    other.dino.as_mut().unwrap().crops.globals[1].solarize = 0.5;
    let error = run(&other, &folder, true, &()).unwrap_err();
    let TrainError::ConfigChanged { changes, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(
        changes,
        [
            "dino.crops.globals.1.solarize: 0.2 -> 0.5",
            "optimizer.base_lr: 0.1 -> 0.2"
        ]
    );

    write_image(&bench.images().join("new.pgm"), 77);
    let error = run(&config, &folder, true, &()).unwrap_err();
    assert!(
        matches!(
            error,
            TrainError::DataChanged {
                then: 6,
                now: 7,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(listing(&folder), before);
}

#[test]
fn fewer_images_than_a_batch_leave_nothing_behind() {
    let bench = Workbench::new(3);
    let error = run(
        &bench.config(MethodName::Mae),
        &bench.path("run"),
        false,
        &(),
    )
    .unwrap_err();
    assert!(matches!(
        error,
        TrainError::FewerImagesThanBatch {
            images: 3,
            batch: 4
        }
    ));
    assert!(
        error.to_string().contains("--set schedule.batch=3"),
        "{error}"
    );
    assert!(!bench.path("run").exists());
}

#[test]
fn broken_images_are_reported_by_name_and_left_out() {
    let bench = Workbench::new(6);
    let good = fs::read(bench.images().join("000.pgm")).unwrap();
    let broken = bench.images().join("004.pgm");
    fs::write(&broken, &good[..good.len() / 2]).unwrap();
    let recorder = Recorder::default();
    let summary = run(
        &bench.config(MethodName::Mae),
        &bench.path("run"),
        false,
        &recorder,
    )
    .unwrap();
    assert_eq!(
        *recorder.skipped.lock().unwrap(),
        std::slice::from_ref(&broken)
    );
    assert_eq!(summary.skipped.len(), 1);
    assert_eq!(summary.skipped[0].path, broken);

    for entry in fs::read_dir(bench.images()).unwrap() {
        fs::write(entry.unwrap().path(), "no image").unwrap();
    }
    let error = run(
        &bench.config(MethodName::Mae),
        &bench.path("other"),
        false,
        &(),
    )
    .unwrap_err();
    assert!(
        matches!(error, TrainError::NoReadableImage { files: 6, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("000.pgm"), "{error}");
}

#[test]
fn a_loss_that_is_not_finite_names_step_rate_and_images_and_keeps_the_checkpoint() {
    let bench = Workbench::new(6);
    let mut config = bench.config(MethodName::Mae);
    config.optimizer.base_lr = 1e30;
    config.schedule.warmup = 0.0;
    config.checkpoint.every_steps = 1;
    let folder = bench.path("run");
    let error = run(&config, &folder, false, &()).unwrap_err();
    let text = error.to_string();
    let TrainError::NonFinite {
        step,
        lr,
        samples,
        checkpoint,
        ..
    } = error
    else {
        panic!("{text}")
    };
    assert!((1..=2).contains(&step), "{text}");
    assert!(lr > 1e25, "{text}");
    assert_eq!(samples.len(), 4);
    assert!(
        samples
            .iter()
            .all(|s| s.ends_with(".pgm") && text.contains(s.as_str())),
        "{text}"
    );
    assert_eq!(checkpoint, latest_checkpoint(&folder).unwrap());
    assert!(checkpoint.is_some_and(|c| c.ends_with(format!("checkpoints/{step:08}"))));
}

#[test]
fn a_failed_write_keeps_the_checkpoint_before() {
    let bench = Workbench::new(6);
    let mut config = bench.config(MethodName::Mae);
    config.checkpoint.every_steps = 2;
    let folder = bench.path("run");
    run(&config, &folder, false, &Recorder::stopping(2)).unwrap();
    // A file where the temporary folder should be.
    fs::write(folder.join("checkpoints/.unfinished"), "in the way").unwrap();
    let error = run(&config, &folder, true, &()).unwrap_err();
    assert!(
        matches!(&error, TrainError::Io { path, .. } if path.ends_with(".unfinished")),
        "{error}"
    );
    assert!(
        latest_checkpoint(&folder)
            .unwrap()
            .unwrap()
            .ends_with("00000002")
    );
    encoder_of(&folder).unwrap();
}

#[test]
fn a_damaged_checkpoint_is_named_at_every_cut() {
    let bench = Workbench::new(6);
    let config = bench.config(MethodName::Dino);
    let folder = bench.path("run");
    run(&config, &folder, false, &Recorder::stopping(2)).unwrap();
    let checkpoint = latest_checkpoint(&folder).unwrap().unwrap();
    for name in [
        "model.safetensors",
        "teacher.safetensors",
        "optim.safetensors",
        "state.json",
    ] {
        let path = checkpoint.join(name);
        let whole = fs::read(&path).unwrap();
        for cut in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..cut.min(whole.len() - 1)]).unwrap();
            let error = run(&config, &folder, true, &()).unwrap_err();
            assert!(
                matches!(&error, TrainError::Damaged { path: p, .. } if *p == path),
                "{error}"
            );
        }
        fs::write(&path, whole).unwrap();
    }
    fs::remove_file(checkpoint.join("teacher.safetensors")).unwrap();
    let error = run(&config, &folder, true, &()).unwrap_err();
    assert!(matches!(error, TrainError::Damaged { .. }), "{error}");
}

#[test]
fn a_folder_without_a_run_is_no_encoder() {
    let bench = Workbench::new(1);
    let error = encoder_of(&bench.images()).unwrap_err();
    assert!(matches!(error, TrainError::NoRun { .. }), "{error}");
}
