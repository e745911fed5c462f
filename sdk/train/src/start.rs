//! What is settled about the run folder before a run starts.

use std::path::{Path, PathBuf};

use crate::checkpoint::{checkpoint_folder, latest_step};
use crate::collective::Collective;
use crate::config::TrainConfig;
use crate::error::{Result, TrainError};
use crate::resolve::{changes, read_config};
use crate::run::{CONFIG, METRICS};

/// Whether the folder is free for a new run, or holds this one where it is resumed.
pub(crate) fn check_folder(config: &TrainConfig, folder: &Path, resume: bool) -> Result<()> {
    let exists = [CONFIG, METRICS, "checkpoints"]
        .iter()
        .any(|name| folder.join(name).exists());
    match (exists, resume) {
        (true, false) => Err(TrainError::RunExists {
            path: folder.into(),
        }),
        (_, true) => check_same(config, folder),
        (false, false) => Ok(()),
    }
}

fn check_same(config: &TrainConfig, folder: &Path) -> Result<()> {
    let path = folder.join(CONFIG);
    if !path.is_file() {
        return Err(TrainError::NoRun {
            path: folder.into(),
            what: "run to resume",
            remedy: "start it without --resume",
        });
    }
    let changes = changes(&read_config(&path)?, config)?;
    if changes.is_empty() {
        return Ok(());
    }
    Err(TrainError::ConfigChanged {
        path: folder.into(),
        changes,
    })
}

/// The checkpoint that rank 0 goes on from.
pub(crate) fn newest_checkpoint(folder: &Path, ranks: &dyn Collective) -> Result<Option<PathBuf>> {
    let found = match ranks.rank() {
        0 => latest_step(folder)?,
        _ => None,
    };
    // The step after it, so that 0 is none.
    let mut next = [found.map_or(0, |step| step + 1)];
    ranks.broadcast(0, &mut next)?;
    let Some(step) = next[0].checked_sub(1) else {
        return Ok(None);
    };
    let path = checkpoint_folder(folder, step);
    if !path.is_dir() {
        return Err(TrainError::NoRun {
            path: folder.into(),
            what: "checkpoint that rank 0 goes on from",
            remedy: "use a run folder that all ranks can read",
        });
    }
    Ok(Some(path))
}
