use std::fs;

use ssl_edge_train::{MethodName, TrainConfig, encoder_of};

use crate::common::{Recorder, Workbench, assert_equal_runs, newest, run, values};

fn losses_in_metrics(folder: &std::path::Path) -> Vec<(u64, f64)> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter_map(|v| Some((v["step"].as_u64()?, v.get("loss")?.as_f64()?)))
        .collect()
}

#[test]
fn a_run_stopped_anywhere_and_resumed_ends_with_the_same_bits() {
    for method in MethodName::ALL {
        let bench = Workbench::new(13);
        let config = bench.config(method);
        let straight = Recorder::default();
        let summary = run(&config, &bench.path("straight"), false, &straight).unwrap();
        assert_eq!(
            (summary.step, summary.steps, summary.images_seen),
            (10, 10, 40)
        );

        let folder = bench.path("interrupted");
        let first = Recorder::stopping(2);
        assert_eq!(run(&config, &folder, false, &first).unwrap().step, 2);
        let second = Recorder::stopping(5);
        assert_eq!(run(&config, &folder, true, &second).unwrap().step, 7);
        let third = Recorder::default();
        assert_eq!(run(&config, &folder, true, &third).unwrap().step, 10);

        assert_equal_runs(&bench.path("straight"), &folder);
        let parts = [first, second, third]
            .map(|r| r.losses.into_inner().unwrap())
            .concat();
        assert_eq!(straight.losses.into_inner().unwrap(), parts);
        assert_eq!(
            losses_in_metrics(&bench.path("straight")),
            losses_in_metrics(&folder)
        );
    }
}

#[test]
fn a_run_killed_between_checkpoints_goes_on_from_the_last_one() {
    let bench = Workbench::new(9);
    let mut config = bench.config(MethodName::Dino);
    config.checkpoint.every_steps = 3;
    run(&config, &bench.path("straight"), false, &()).unwrap();

    let folder = bench.path("killed");
    run(&config, &folder, false, &Recorder::stopping(8)).unwrap();
    // As if killed at step 8 while the checkpoint was being written.
    fs::rename(
        folder.join("checkpoints/00000008"),
        folder.join("checkpoints/.unfinished"),
    )
    .unwrap();
    fs::remove_file(folder.join("checkpoints/.unfinished/state.json")).unwrap();
    assert_eq!(newest(&folder).state.step, 6);
    let again = Recorder::default();
    run(&config, &folder, true, &again).unwrap();
    assert_eq!(again.losses.into_inner().unwrap().len(), 4);
    assert_equal_runs(&bench.path("straight"), &folder);
    assert_eq!(
        losses_in_metrics(&bench.path("straight")),
        losses_in_metrics(&folder)
    );
}

#[test]
fn threads_and_caching_change_no_bit() {
    for method in MethodName::ALL {
        let bench = Workbench::new(8);
        let mut config = bench.config(method);
        config.threads = 1;
        config.data.threads = 1;
        run(&config, &bench.path("one"), false, &()).unwrap();
        config.threads = 3;
        config.data.threads = 2;
        config.data.cache_mib = 0;
        config.data.prefetch = 5;
        run(&config, &bench.path("three"), false, &()).unwrap();
        assert_equal_runs(&bench.path("one"), &bench.path("three"));
    }
}

#[test]
fn only_the_newest_checkpoints_are_kept_and_a_finished_run_stays_as_it_is() {
    let bench = Workbench::new(8);
    let mut config = bench.config(MethodName::Mae);
    config.checkpoint.every_steps = 2;
    let folder = bench.path("run");
    run(&config, &folder, false, &()).unwrap();
    let mut names: Vec<_> = fs::read_dir(folder.join("checkpoints"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["00000008", "00000010"]);
    let before = fs::read(folder.join("checkpoints/00000010/model.safetensors")).unwrap();
    let summary = run(&config, &folder, true, &()).unwrap();
    assert_eq!((summary.step, summary.loss), (10, None));
    assert_eq!(
        fs::read(folder.join("checkpoints/00000010/model.safetensors")).unwrap(),
        before
    );
}

#[test]
fn the_exported_encoder_is_the_teacher_and_knows_where_it_comes_from() {
    let bench = Workbench::new(8);
    let config = bench.config(MethodName::Dino);
    let folder = bench.path("run");
    run(&config, &folder, false, &()).unwrap();
    let encoder = encoder_of(&folder).unwrap();
    let checkpoint = newest(&folder);
    let (teacher, student) = (&checkpoint.teacher, &checkpoint.model);
    let name = "blocks.0.attn.qkv.weight";
    let full = format!("encoder.{name}");
    assert_eq!(values(&encoder.tensors[name]), values(&teacher[&full]));
    assert_ne!(values(&encoder.tensors[name]), values(&student[&full]));
    assert!(encoder.tensors.keys().all(|k| !k.starts_with("head")));
    assert_eq!(encoder.config, config.encoder);
    assert_eq!(encoder.preprocess, config.preprocess);
    assert_eq!(encoder.provenance.images_seen, 40);
    assert_eq!(
        (encoder.provenance.dataset_images, encoder.provenance.seed),
        (8, 5)
    );
    let saved: TrainConfig = toml::from_str(&encoder.provenance.config).unwrap();
    let mut unnamed = config.clone();
    unnamed.data.folders.clear();
    assert_eq!(
        saved, unnamed,
        "a bundle counts its data and does not name it"
    );
    ssl_edge_nn::Vit::load(&encoder.config, &encoder.tensors).unwrap();
}

#[test]
fn a_labelled_folder_is_scored_during_training() {
    let bench = Workbench::new(8);
    let labelled = bench.path("labelled");
    for (class, seed) in [("fine", 3), ("coarse", 20)] {
        fs::create_dir_all(labelled.join(class)).unwrap();
        for i in 0..6 {
            crate::common::write_image(&labelled.join(class).join(format!("{i}.pgm")), seed);
        }
    }
    let mut config = bench.config(MethodName::Dino);
    config.probe = Some(ssl_edge_train::ProbeConfig {
        folder: labelled,
        every_steps: 4,
        max_per_class: 2,
    });
    let summary = run(&config, &bench.path("run"), false, &()).unwrap();
    let steps: Vec<u64> = summary.probes.iter().map(|p| p.step).collect();
    assert_eq!(steps, [0, 4, 8, 10]);
    let last = summary.probes.last().unwrap();
    // Every image of a class is the same, so that its nearest neighbours are of its class.
    assert_eq!((last.knn20, last.train, last.val), (1.0, 4, 4));
    let metrics = fs::read_to_string(bench.path("run").join("metrics.jsonl")).unwrap();
    assert_eq!(metrics.matches("\"knn20\":1.0").count(), 4);
}
