//! A disk that fills while a file is saved: the command says so, the old file stays, nothing half-written is left.

use crate::support::{Outcome, Shared, program, succeed, text};
use std::fs;
use std::path::Path;
use std::process::Command;

const BEFORE: &str = "what was there before";

/// Runs `script` in a shell with the program as `$0`; `$1` is the folder to write to and the others are `args`.
fn shell(script: &str, folder: &Path, args: &[&str]) -> Outcome {
    let mut command = Command::new("sh");
    command
        .args(["-c", script, program(), text(folder)])
        .args(args);
    command.output().expect("sh starts").into()
}

/// A limit on the size of files stands in for the disk: writes beyond it fail, as the signal for it is ignored.
fn with_limit(folder: &Path, args: &[&str]) -> Outcome {
    shell(
        "trap '' XFSZ; shift; ulimit -f 8; exec \"$0\" \"$@\"",
        folder,
        args,
    )
}

/// What commands write when they save into `folder`, and what they are called.
fn savers(folder: &Path) -> Vec<(&'static str, Vec<String>)> {
    let shared = Shared::get();
    let (bundle, samples) = (shared.bundle(), shared.samples());
    let out = folder.join("out");
    let words = |args: &[&str]| args.iter().map(|word| word.to_string()).collect::<Vec<_>>();
    vec![
        (
            "export",
            words(&[
                "export",
                "--random",
                "vit_n16",
                "--size",
                "32",
                "--out",
                text(&out),
            ]),
        ),
        (
            "embed",
            words(&[
                "embed",
                "--bundle",
                text(&bundle),
                "--images",
                text(&samples),
                "--out",
                text(&out),
            ]),
        ),
        (
            "golden learn",
            words(&[
                "golden",
                "learn",
                "--good",
                text(&samples),
                "--out",
                text(&out),
            ]),
        ),
        (
            "calibrate",
            words(&[
                "calibrate",
                "--bundle",
                text(&bundle),
                "--samples",
                text(&samples),
                "--out",
                text(&out),
            ]),
        ),
    ]
}

fn assert_kept(folder: &Path, command: &str) {
    assert_eq!(
        fs::read_to_string(folder.join("out")).unwrap(),
        BEFORE,
        "{command} changed the old file"
    );
    let left: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["out"], "{command} left something behind");
}

#[test]
fn a_file_that_may_not_grow_leaves_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("out"), BEFORE).unwrap();
    for (command, args) in savers(folder.path()) {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        with_limit(folder.path(), &args).assert_failure(&["out", "too large"]);
        assert_kept(folder.path(), command);
    }
}

/// A private mount of a few kilobytes needs a privilege that not every machine gives; there the limit above stands alone.
#[test]
fn a_full_disk_leaves_the_old_file() {
    let mount = "mount -t tmpfs -o size=16k ssl-edge-test \"$1\"";
    let probe = tempfile::tempdir().unwrap();
    let can_mount = Command::new("unshare")
        .args(["-m", "sh", "-c", mount, "sh", text(probe.path())])
        .output()
        .is_ok_and(|output| output.status.success());
    let folder = tempfile::tempdir().unwrap();
    for (command, args) in savers(folder.path()) {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        if !can_mount {
            fs::write(folder.path().join("out"), BEFORE).unwrap();
            with_limit(folder.path(), &args).assert_failure(&["out"]);
            assert_kept(folder.path(), command);
            continue;
        }
        let script = format!(
            "exec unshare -m sh -c '{mount} || exit 71; folder=$1; shift; printf %s \"{BEFORE}\" > \"$folder/out\"; \
             \"$0\" \"$@\"; code=$?; \
             [ \"$(cat \"$folder/out\")\" = \"{BEFORE}\" ] || exit 72; [ \"$(ls -A \"$folder\")\" = out ] || exit 73; \
             exit $code' \"$0\" \"$@\""
        );
        let outcome = shell(&script, folder.path(), &args);
        assert_eq!(outcome.code, 1, "{command}: {}", outcome.stderr);
        outcome.assert_failure(&["out", "space"]);
    }
}

/// A run that cannot write its checkpoint says so, and goes on from the one before when there is room again.
#[test]
fn a_run_survives_a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let samples = Shared::get().samples();
    let args = [
        "pretrain",
        "--method",
        "mae",
        "--arch",
        "vit_n16",
        "--data",
        text(&samples),
        "--out",
        text(&run),
        "--set",
        "image_size=32",
        "--set",
        "schedule.batch=4",
        "--set",
        "schedule.images=8",
        "--set",
        "checkpoint.every_steps=1",
    ];
    let script = "trap '' XFSZ; shift; ulimit -f 64; exec \"$0\" \"$@\"";
    shell(script, folder.path(), &args).assert_failure(&["run", "too large"]);
    assert!(run.join("config.toml").is_file());
    let whole = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().parse::<u64>().is_ok();
    let n_whole = fs::read_dir(run.join("checkpoints")).map_or(0, |entries| {
        entries.filter_map(Result::ok).filter(whole).count()
    });
    assert_eq!(n_whole, 0, "half a checkpoint has the name of a whole one");
    let resumed = succeed(&[&args[..], &["--resume"]].concat());
    assert!(resumed.stdout.contains("2 steps"), "{}", resumed.stdout);
}
