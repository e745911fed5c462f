//! Memory that does not suffice: a run and an encoder say so before they begin, with what to lower, and nothing that was there is lost.

use std::fs;
use std::process::Command;

use ssl_edge::vision::Surface;

use crate::support::{Outcome, program, succeed, surfaces, text};

/// Calls the program with an address space of at most `kib` KiB.
fn within(kib: u64, args: &[&str]) -> Outcome {
    let script = format!("ulimit -v {kib}; exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, program()]).args(args);
    command.output().expect("sh starts").into()
}

#[test]
fn a_run_that_cannot_fit_names_batch_size_remedy_and_the_checkpoint_that_stands() {
    let folder = tempfile::tempdir().unwrap();
    let (images, run) = (folder.path().join("images"), folder.path().join("run"));
    surfaces(&images, &Surface::ALL[..2], 4, 1);
    // Batches prepared ahead are counted among what is needed, though so short a run never has so many.
    let args = [
        "pretrain",
        "--method",
        "mae",
        "--arch",
        "vit_n16",
        "--data",
        text(&images),
        "--out",
        text(&run),
        "--threads",
        "1",
        "--set",
        "image_size=32",
        "--set",
        "schedule.batch=4",
        "--set",
        "schedule.images=8",
        "--set",
        "data.prefetch=40000",
    ];
    let unbounded = succeed(&args);
    assert!(!unbounded.stderr.contains("not suffice for"));
    let checkpoint = run.join("checkpoints/00000002");
    let before = fs::read(checkpoint.join("model.safetensors")).unwrap();
    let outcome = within(2_000_000, &[&args[..], &["--resume"]].concat());
    outcome.assert_failure(&[
        "cpu",
        "4 images of 32x32 pixels",
        "schedule.batch",
        "GiB are needed",
        "the last checkpoint stands",
        text(&checkpoint),
    ]);
    assert_eq!(
        fs::read(checkpoint.join("model.safetensors")).unwrap(),
        before
    );
}

#[test]
fn a_benchmark_that_cannot_fit_says_so() {
    let args = ["bench", "step", "--method", "dino", "--arch", "vit_b16"];
    let outcome = within(2_000_000, &[&args[..], &["--batch", "64"]].concat());
    outcome.assert_failure(&["64 images of 224x224 pixels", "lower schedule.batch"]);
}
