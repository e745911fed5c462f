//! Runs the program and what it needs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;
use ssl_edge::vision::{Station, Surface};
use tempfile::TempDir;

/// How a call of the program ended.
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The program.
pub(crate) fn program() -> &'static str {
    env!("CARGO_BIN_EXE_ssl-edge")
}

/// Calls the program.
pub(crate) fn call(args: &[&str]) -> Outcome {
    Command::new(program())
        .args(args)
        .output()
        .expect("the program starts")
        .into()
}

/// Calls the program, which must succeed.
pub(crate) fn succeed(args: &[&str]) -> Outcome {
    let outcome = call(args);
    assert_eq!(outcome.code, 0, "{args:?}\n{}", outcome.stderr);
    outcome
}

/// Calls the program with `--json`, which must succeed and print one object.
pub(crate) fn json(args: &[&str]) -> Value {
    let outcome = succeed(&[args, &["--json"]].concat());
    serde_json::from_str(&outcome.stdout)
        .unwrap_or_else(|error| panic!("{args:?}: {error}: {}", outcome.stdout))
}

/// Calls the program, which must fail with status 1 and say all of `words` on stderr and nothing on stdout.
pub(crate) fn fail(args: &[&str], words: &[&str]) -> Outcome {
    let outcome = call(args);
    outcome.assert_failure(words);
    assert_eq!(outcome.stdout, "", "a failure prints no result");
    outcome
}

impl Outcome {
    /// Status 1, one chain of causes, all of `words` in it.
    pub(crate) fn assert_failure(&self, words: &[&str]) {
        assert_eq!(self.code, 1, "{}", self.stderr);
        assert!(
            self.stderr.lines().any(|line| line.starts_with("error: ")),
            "{}",
            self.stderr
        );
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        for word in words {
            assert!(
                self.stderr.contains(word),
                "`{word}` is not in:\n{}",
                self.stderr
            );
        }
    }
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
        }
    }
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

/// Class folders of small procedural surfaces.
pub(crate) fn surfaces(folder: &Path, kinds: &[Surface], n_per_class: usize, seed: u64) {
    Station::new(0)
        .write(folder, kinds, n_per_class, 48, seed)
        .expect("surfaces can be written");
}

/// Things that many tests read and none changes: two encoders, class folders, a fitted job.
pub(crate) struct Shared {
    folder: TempDir,
}

impl Shared {
    pub(crate) fn get() -> &'static Shared {
        static SHARED: OnceLock<Shared> = OnceLock::new();
        SHARED.get_or_init(|| {
            let shared = Shared {
                folder: tempfile::tempdir().expect("a temporary folder"),
            };
            surfaces(&shared.samples(), &Surface::ALL, 4, 1);
            for (seed, bundle) in [("1", shared.bundle()), ("2", shared.other_bundle())] {
                succeed(&[
                    "export",
                    "--random",
                    "vit_n16",
                    "--size",
                    "32",
                    "--seed",
                    seed,
                    "--out",
                    text(&bundle),
                ]);
            }
            succeed(&[
                "calibrate",
                "--bundle",
                text(&shared.bundle()),
                "--samples",
                text(&shared.samples()),
                "--out",
                text(&shared.job()),
            ]);
            shared
        })
    }

    /// An encoder with random weights.
    pub(crate) fn bundle(&self) -> PathBuf {
        self.folder.path().join("encoder.sslb")
    }

    /// Another encoder of the same shape.
    pub(crate) fn other_bundle(&self) -> PathBuf {
        self.folder.path().join("other.sslb")
    }

    /// Four frames of each surface.
    pub(crate) fn samples(&self) -> PathBuf {
        self.folder.path().join("samples")
    }

    /// A job taught from the samples with the first encoder.
    pub(crate) fn job(&self) -> PathBuf {
        self.folder.path().join("station.sslj")
    }
}
