//! `metrics.jsonl`: one JSON object per step or probe, appended as the run goes on.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::checkpoint::write_safely;
use crate::error::{Result, TrainError};

/// One training step as a line of `metrics.jsonl`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StepLine {
    pub step: u64,
    pub images: u64,
    pub epoch: u64,
    pub loss: f64,
    pub lr: f64,
    pub weight_decay: f64,
    pub grad_norm: f64,
    pub img_per_s: f64,
    pub data_wait: f64,
    #[serde(flatten)]
    pub method: std::collections::BTreeMap<&'static str, f64>,
}

/// One score of the labelled folder as a line of `metrics.jsonl`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ProbeLine {
    pub step: u64,
    pub knn20: f64,
}

pub(crate) struct Metrics {
    path: PathBuf,
    file: File,
}

impl Metrics {
    /// Opens the file to append; what a run wrote after step `keep` is removed first, as that will be done again.
    pub(crate) fn open(path: &Path, keep: u64) -> Result<Self> {
        if path.exists() {
            truncate(path, keep)?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(TrainError::io("open", path))?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
        })
    }

    pub(crate) fn write(&mut self, line: &impl Serialize) -> Result<()> {
        let mut bytes = serde_json::to_vec(line)
            .map_err(std::io::Error::from)
            .map_err(TrainError::io("write", &self.path))?;
        bytes.push(b'\n');
        self.file
            .write_all(&bytes)
            .map_err(TrainError::io("write", &self.path))
    }
}

fn truncate(path: &Path, keep: u64) -> Result<()> {
    let text = fs::read_to_string(path).map_err(TrainError::io("read", path))?;
    let within = |line: &&str| {
        serde_json::from_str::<Value>(line)
            .ok()
            .and_then(|value| value.get("step")?.as_u64())
            .is_some_and(|step| step <= keep)
    };
    let kept: String = text
        .lines()
        .filter(within)
        .flat_map(|line| [line, "\n"])
        .collect();
    write_safely(path, kept.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reopening_drops_what_comes_after_the_step_and_a_cut_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut metrics = Metrics::open(&path, 0).unwrap();
        for step in 1..=4 {
            metrics.write(&ProbeLine { step, knn20: 0.5 }).unwrap();
        }
        drop(metrics);
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str("{\"step\":2,\"kn");
        fs::write(&path, text).unwrap();
        let mut metrics = Metrics::open(&path, 2).unwrap();
        metrics
            .write(&ProbeLine {
                step: 3,
                knn20: 0.25,
            })
            .unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let steps: Vec<&str> = text.lines().collect();
        assert_eq!(
            steps,
            [
                r#"{"step":1,"knn20":0.5}"#,
                r#"{"step":2,"knn20":0.5}"#,
                r#"{"step":3,"knn20":0.25}"#
            ]
        );
    }
}
