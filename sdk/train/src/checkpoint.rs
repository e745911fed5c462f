//! Checkpoints: one folder per step, complete or not there at all.
//!
//! `checkpoints/00000500/{model,teacher,optim}.safetensors + state.json`. A checkpoint is written into a temporary
//! folder beside the others, every file and then the folder is flushed to disk, and only then is it renamed to its
//! step and are older ones removed: whenever the process dies, the newest complete checkpoint is there.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::{Result, TrainError};

/// Tensors by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// What a checkpoint says about itself (`state.json`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Layout of the checkpoint folder; 1.
    pub schema: u32,
    /// Steps done.
    pub step: u64,
    /// Images seen.
    pub images_seen: u64,
    /// Images in the data set.
    pub dataset_images: usize,
    /// Fingerprint of the data set's file names and sizes.
    pub dataset_id: u64,
}

/// Everything that a run needs to go on.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Counters and identity of the data.
    pub state: State,
    /// Trained parameters.
    pub model: Tensors,
    /// What the method keeps beside them: teacher and centre of DINO; empty for MAE.
    pub teacher: Tensors,
    /// Moments and step counts of the optimiser.
    pub optim: Tensors,
}

const FOLDER: &str = "checkpoints";
const TEMPORARY: &str = ".unfinished";
const MODEL: &str = "model.safetensors";
const TEACHER: &str = "teacher.safetensors";
const OPTIM: &str = "optim.safetensors";
const STATE: &str = "state.json";

impl Checkpoint {
    /// Writes the checkpoint under `run`, then removes all but the newest `keep` (at least 1). Returns its folder.
    pub fn save(&self, run: &Path, keep: usize) -> Result<PathBuf> {
        let parent = run.join(FOLDER);
        fs::create_dir_all(&parent).map_err(TrainError::io("create", &parent))?;
        let temporary = parent.join(TEMPORARY);
        remove(&temporary)?;
        let target = checkpoint_folder(run, self.state.step);
        let written = self.write(&temporary).and_then(|()| {
            remove(&target)?;
            fs::rename(&temporary, &target).map_err(TrainError::io("rename to", &target))?;
            flush(&parent)
        });
        if let Err(error) = written {
            // The first error is the one to report; a leftover folder is never read and goes with the next save.
            let _ = fs::remove_dir_all(&temporary);
            return Err(error);
        }
        let mut all = list(run)?;
        all.truncate(all.len().saturating_sub(keep.max(1)));
        for (_, old) in all {
            remove(&old)?;
        }
        Ok(target)
    }

    fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir(folder).map_err(TrainError::io("create", folder))?;
        write_tensors(&folder.join(MODEL), &self.model)?;
        if !self.teacher.is_empty() {
            write_tensors(&folder.join(TEACHER), &self.teacher)?;
        }
        write_tensors(&folder.join(OPTIM), &self.optim)?;
        let state = serde_json::to_vec_pretty(&self.state).map_err(std::io::Error::from);
        let path = folder.join(STATE);
        write_synced(&path, &state.map_err(TrainError::io("write", &path))?)?;
        flush(folder)
    }

    /// Reads a checkpoint folder.
    pub fn load(folder: &Path) -> Result<Self> {
        let teacher = folder.join(TEACHER);
        Ok(Self {
            state: read_state(folder)?,
            model: read_tensors(&folder.join(MODEL))?,
            teacher: if teacher.exists() {
                read_tensors(&teacher)?
            } else {
                Tensors::new()
            },
            optim: read_tensors(&folder.join(OPTIM))?,
        })
    }
}

/// The counters of a checkpoint folder, without its tensors.
pub fn read_state(folder: &Path) -> Result<State> {
    let path = folder.join(STATE);
    let bytes = fs::read(&path).map_err(TrainError::io("read", &path))?;
    let state: State = serde_json::from_slice(&bytes).map_err(|e| damaged(&path, &e))?;
    if state.schema != 1 {
        let message = format!(
            "schema {} is newer than this program reads (1); update it",
            state.schema
        );
        return Err(TrainError::Damaged { path, message });
    }
    Ok(state)
}

/// The newest complete checkpoint of a run, if it has one.
pub fn latest_checkpoint(run: &Path) -> Result<Option<PathBuf>> {
    Ok(list(run)?.pop().map(|(_, path)| path))
}

/// The step of the newest complete checkpoint of a run, if it has one.
pub(crate) fn latest_step(run: &Path) -> Result<Option<u64>> {
    Ok(list(run)?.pop().map(|(step, _)| step))
}

/// The folder of a step's checkpoint.
pub(crate) fn checkpoint_folder(run: &Path, step: u64) -> PathBuf {
    run.join(FOLDER).join(format!("{step:08}"))
}

/// Tensors of which a method's encoder is made: the teacher's where there is a teacher, else the trained ones.
pub(crate) fn exported_tensors(folder: &Path) -> Result<Tensors> {
    let teacher = folder.join(TEACHER);
    if teacher.exists() {
        read_tensors(&teacher)
    } else {
        read_tensors(&folder.join(MODEL))
    }
}

/// Complete checkpoints in order of their steps.
fn list(run: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let folder = run.join(FOLDER);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(TrainError::io("read", &folder)(e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(TrainError::io("read", &folder))?.path();
        let step = path
            .file_name()
            .and_then(|n| n.to_str())
            .and_then(|n| n.parse().ok());
        if let (Some(step), true) = (step, path.join(STATE).is_file()) {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

fn write_tensors(path: &Path, tensors: &Tensors) -> Result<()> {
    let map: HashMap<&str, Tensor> = tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor.clone()))
        .collect();
    candle_core::safetensors::save(&map, path)
        .map_err(std::io::Error::other)
        .and_then(|()| File::open(path)?.sync_all())
        .map_err(TrainError::io("write", path))
}

fn read_tensors(path: &Path) -> Result<Tensors> {
    let bytes = fs::read(path).map_err(TrainError::io("read", path))?;
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
        .map_err(|e| damaged(path, &e))?;
    Ok(tensors.into_iter().collect())
}

fn damaged(path: &Path, reason: &dyn std::fmt::Display) -> TrainError {
    TrainError::Damaged {
        path: path.to_path_buf(),
        message: format!(
            "{reason}; the file is damaged, remove its checkpoint folder to go on from the one before"
        ),
    }
}

/// Writes a file whole or not at all: a temporary file beside it, flushed, then renamed.
pub(crate) fn write_safely(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("unfinished");
    let written = write_synced(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path).map_err(TrainError::io("rename to", path)));
    if let Err(error) = written {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    match path.parent() {
        Some(parent) => flush(parent),
        None => Ok(()),
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(TrainError::io("write", path))
}

/// Flushes a folder's entries to disk, where the system has that.
fn flush(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(folder)
            .and_then(|f| f.sync_all())
            .map_err(TrainError::io("flush", folder))?;
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(TrainError::io("remove", folder)(e))
        }
        _ => Ok(()),
    }
}
