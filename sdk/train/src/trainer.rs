//! The training loop.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::time::Instant;

use ssl_edge_vision::Skipped;

use crate::checkpoint::{Checkpoint, State, latest_checkpoint, write_safely};
use crate::config::TrainConfig;
use crate::data::Dataset;
use crate::error::{Result, TrainError};
use crate::learner::{Learner, Step};
use crate::loader::{Loader, pool};
use crate::methods::{Batch, StepContext};
use crate::metrics::{Metrics, ProbeLine, StepLine};
use crate::observer::{Observer, ProbeScore, Progress, RunInfo, RunSummary};
use crate::probe::Probe;
use crate::resolve::{changes, config_text, read_config};
use crate::run::{CONFIG, METRICS};

/// Share of the time spent waiting for images above which the user is told, and steps before it is judged.
const MAX_WAIT: f64 = 0.1;
const WAIT_STEPS: u64 = 30;

/// Weight of the newest step in smoothed figures.
const SMOOTHING: f64 = 0.05;

/// Where a run is written and whether it goes on.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Run folder; made if it is not there.
    pub folder: PathBuf,
    /// Go on from the newest checkpoint in the folder. Without it a folder that holds a run is an error.
    pub resume: bool,
}

/// Trains an encoder, or goes on with it, and returns when it is done or the observer stops it.
///
/// Writes `config.toml`, `metrics.jsonl` and `checkpoints/` into the run folder. The weights depend on the
/// configuration and the images alone: not on threads, and not on where a run was interrupted and resumed.
///
/// # Errors
/// A configuration that does not fit; images that cannot be used; a folder that holds a run already, or another one; a
/// loss that is not finite; a disk that is full. What was in the run folder before is still there.
pub fn pretrain(
    config: &TrainConfig,
    options: &RunOptions,
    observer: &dyn Observer,
) -> Result<RunSummary> {
    config.validate()?;
    let folder = &options.folder;
    let exists = [CONFIG, METRICS, "checkpoints"]
        .iter()
        .any(|name| folder.join(name).exists());
    match (exists, options.resume) {
        (true, false) => {
            return Err(TrainError::RunExists {
                path: folder.clone(),
            });
        }
        (_, true) => check_same(config, folder)?,
        (false, false) => {}
    }
    let started = Instant::now();
    pool(config.threads, "train")?.install(|| {
        let (dataset, skipped) = Dataset::open(&config.data, folder)?;
        let mut session = Session::open(config, folder, observer, &dataset, skipped)?;
        let mut summary = session.run()?;
        summary.seconds = started.elapsed().as_secs_f64();
        Ok(summary)
    })
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

struct Session<'a> {
    config: &'a TrainConfig,
    folder: &'a Path,
    observer: &'a dyn Observer,
    dataset: &'a Dataset,
    probe: Option<Probe>,
    learner: Learner,
    first_step: u64,
    steps_per_epoch: u64,
    checkpoint: Option<PathBuf>,
    skipped: Vec<Skipped>,
}

impl<'a> Session<'a> {
    fn open(
        config: &'a TrainConfig,
        folder: &'a Path,
        observer: &'a dyn Observer,
        dataset: &'a Dataset,
        mut skipped: Vec<Skipped>,
    ) -> Result<Self> {
        let steps_per_epoch = Loader::new(config, dataset)?.steps_per_epoch();
        let probe = match &config.probe {
            Some(settings) => {
                let (probe, more) = Probe::open(settings, &config.preprocess)?;
                skipped.extend(more);
                Some(probe)
            }
            None => None,
        };
        for file in &skipped {
            observer.skipped(&file.path, &file.reason);
        }
        let mut learner = Learner::new(config)?;
        let checkpoint = latest_checkpoint(folder)?;
        let first_step = match &checkpoint {
            Some(checkpoint) => learner.resume(checkpoint, dataset, folder)?,
            None => 0,
        };
        fs::create_dir_all(folder).map_err(TrainError::io("create", folder))?;
        if !folder.join(CONFIG).exists() {
            write_safely(&folder.join(CONFIG), config_text(config)?.as_bytes())?;
        }
        Ok(Self {
            config,
            folder,
            observer,
            dataset,
            probe,
            learner,
            first_step,
            steps_per_epoch,
            checkpoint,
            skipped,
        })
    }

    fn info(&self) -> RunInfo {
        RunInfo {
            method: self.config.method.as_str().into(),
            arch: self.config.arch.clone(),
            trained_parameters: self.learner.method.params().elem_count(),
            images: self.dataset.len(),
            cached: self.dataset.cached(),
            batch: self.config.schedule.batch,
            steps_per_epoch: self.steps_per_epoch,
            first_step: self.first_step,
            steps: self.config.steps(),
            peak_lr: self.config.peak_lr(),
            threads: rayon::current_num_threads(),
        }
    }

    fn run(&mut self) -> Result<RunSummary> {
        self.observer.started(&self.info());
        let mut metrics = Metrics::open(&self.folder.join(METRICS), self.first_step)?;
        let steps = self.first_step..self.config.steps();
        std::thread::scope(|scope| {
            let loader = Loader::new(self.config, self.dataset)?;
            let batches = loader.prefetch(steps, scope, rayon::current_num_threads())?;
            self.steps(&batches, &mut metrics)
        })
    }

    fn steps(
        &mut self,
        batches: &Receiver<Result<Batch>>,
        metrics: &mut Metrics,
    ) -> Result<RunSummary> {
        let steps = self.config.steps();
        let mut step = self.first_step;
        let mut loss = None;
        let mut probes = Vec::new();
        if step == 0 {
            self.probe(0, true, metrics, &mut probes)?;
        }
        let mut pace = Pace::default();
        let (mut stop, mut warned) = (false, Warned::default());
        while step < steps && !stop {
            let start = Instant::now();
            let batch = batches
                .recv()
                .expect("the loader sends every step's batch or an error")?;
            let waited = start.elapsed().as_secs_f64();
            let ctx = StepContext {
                seed: self.config.seed,
                step,
                steps,
                steps_per_epoch: self.steps_per_epoch,
            };
            let done = self
                .learner
                .step(&batch, &ctx)
                .map_err(|e| self.explain(e, &batch))?;
            step += 1;
            pace.add(start.elapsed().as_secs_f64(), waited);
            loss = Some(done.loss);
            self.report(metrics, &pace, step, &done)?;
            self.warn(&pace, &mut warned);
            stop = self.observer.stop();
            let last = step == steps || stop;
            self.probe(step, last, metrics, &mut probes)?;
            if last || step.is_multiple_of(self.config.checkpoint.every_steps) {
                self.save(step)?;
            }
        }
        Ok(RunSummary {
            run: self.folder.into(),
            checkpoint: self
                .checkpoint
                .clone()
                .expect("the last step writes a checkpoint"),
            step,
            steps,
            images_seen: step * self.config.schedule.batch as u64,
            loss,
            seconds: 0.0,
            probes,
            skipped: std::mem::take(&mut self.skipped),
        })
    }

    fn report(&self, metrics: &mut Metrics, pace: &Pace, step: u64, done: &Step) -> Result<()> {
        let batch = self.config.schedule.batch;
        let img_per_s = batch as f64 / pace.seconds;
        metrics.write(&StepLine {
            step,
            images: step * batch as u64,
            epoch: (step - 1) / self.steps_per_epoch,
            loss: done.loss,
            lr: done.lr,
            weight_decay: done.weight_decay,
            grad_norm: done.grad_norm,
            img_per_s,
            data_wait: pace.waited / pace.seconds,
            method: self.learner.method.figures(),
        })?;
        self.observer.step(&Progress {
            step,
            steps: self.config.steps(),
            loss: done.loss,
            lr: done.lr,
            grad_norm: done.grad_norm,
            img_per_s,
            data_wait: pace.waited / pace.seconds,
            eta_s: (self.config.steps() - step) as f64 * pace.seconds,
        });
        Ok(())
    }

    /// Says what looks wrong, each thing once.
    fn warn(&self, pace: &Pace, warned: &mut Warned) {
        if let Some(message) = self.learner.method.warning().filter(|_| !warned.method) {
            self.observer.warned(&message);
            warned.method = true;
        }
        let share = pace.waited / pace.seconds;
        if pace.steps >= WAIT_STEPS && share > MAX_WAIT && !warned.waiting {
            let (n, cached) = (self.dataset.len(), self.dataset.cached());
            self.observer.warned(&format!(
                "{:.0} % of the time is spent waiting for images; {}or lower data.shorter_side, or give more threads (data.threads={} now)",
                100.0 * share,
                if cached < n {
                    format!("{cached} of {n} images are in memory: raise data.cache_mib, ")
                } else {
                    "ask less of each image (fewer crops, no blur), ".into()
                },
                self.config.data.threads,
            ));
            warned.waiting = true;
        }
    }

    /// Scores the encoder where this is asked for and due.
    fn probe(
        &self,
        step: u64,
        due: bool,
        metrics: &mut Metrics,
        scores: &mut Vec<ProbeScore>,
    ) -> Result<()> {
        let (Some(probe), Some(settings)) = (&self.probe, &self.config.probe) else {
            return Ok(());
        };
        if !due && !step.is_multiple_of(settings.every_steps) {
            return Ok(());
        }
        let score = probe.score(&self.config.encoder, &self.learner.method.encoder(), step)?;
        self.observer.probed(&score);
        metrics.write(&ProbeLine {
            step,
            knn20: score.knn20,
        })?;
        scores.push(score);
        Ok(())
    }

    fn save(&mut self, step: u64) -> Result<()> {
        let checkpoint = Checkpoint {
            state: State {
                schema: 1,
                step,
                images_seen: step * self.config.schedule.batch as u64,
                dataset_images: self.dataset.len(),
                dataset_id: self.dataset.id(),
            },
            model: self.learner.method.params().to_map(),
            teacher: self.learner.method.state()?,
            optim: self.learner.optimizer.state()?,
        };
        let path = checkpoint.save(self.folder, self.config.checkpoint.keep)?;
        self.observer.saved(&path);
        self.checkpoint = Some(path);
        Ok(())
    }

    /// Adds images and checkpoint to an error about a number that is not finite.
    fn explain(&self, mut error: TrainError, batch: &Batch) -> TrainError {
        if let TrainError::NonFinite {
            samples,
            checkpoint,
            ..
        } = &mut error
        {
            *samples = batch
                .samples
                .iter()
                .map(|&i| self.dataset.path(i).display().to_string())
                .collect();
            *checkpoint = self.checkpoint.clone();
        }
        error
    }
}

/// What the observer was warned of.
#[derive(Default)]
struct Warned {
    method: bool,
    waiting: bool,
}

/// Smoothed seconds of a step and of its wait for images.
#[derive(Default)]
struct Pace {
    steps: u64,
    seconds: f64,
    waited: f64,
}

impl Pace {
    fn add(&mut self, seconds: f64, waited: f64) {
        self.steps += 1;
        let weight = SMOOTHING.max(1.0 / self.steps as f64);
        self.seconds += weight * (seconds - self.seconds);
        self.waited += weight * (waited - self.waited);
    }
}
