//! The training loop.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::time::Instant;

use ssl_edge_nn::compute::multiplies_bf16;
use ssl_edge_vision::Skipped;

use crate::checkpoint::{Checkpoint, State, checkpoint_folder, write_safely};
use crate::collective::{Collective, Share, Solo, same_on_all};
use crate::config::TrainConfig;
use crate::data::{Dataset, Sampler};
use crate::error::{Result, TrainError};
use crate::learner::{Learner, Step};
use crate::loader::{Loader, pool};
use crate::memory;
use crate::methods::{Batch, StepContext};
use crate::metrics::{Metrics, ProbeLine, StepLine};
use crate::observer::{Observer, ProbeScore, Progress, RunInfo, RunSummary};
use crate::pace::{Pace, Warned, advice_on_waiting, slow_precision};
use crate::probe::Probe;
use crate::resolve::{config_text, fingerprint};
use crate::run::{CONFIG, METRICS};
use crate::start::{check_folder, newest_checkpoint};

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
    pretrain_over(config, options, observer, &Solo)
}

/// As [`pretrain`], as one of several ranks that share every batch; all of them call this with the same configuration.
///
/// `schedule.batch` is the batch of all ranks together. The weights are those of one process up to the rounding of sums over
/// the batch, and the same on all ranks; engines that sum in a fixed order give the same bits in every run. Rank 0 writes the
/// run folder, calls `observer` and scores the probe; to resume, all ranks must be able to read the folder. When a rank
/// returns an error or panics, it tells the others, and they return an error with its name.
///
/// # Errors
/// Those of [`pretrain`]; a batch that is not a multiple of the number of ranks; ranks with other settings, images or weights
/// than rank 0; [`TrainError::Collective`] where another rank failed, ended or did not come in time.
pub fn pretrain_over(
    config: &TrainConfig,
    options: &RunOptions,
    observer: &dyn Observer,
    ranks: &dyn Collective,
) -> Result<RunSummary> {
    let _guard = PanicGuard(ranks);
    let observer = if ranks.rank() == 0 { observer } else { &() };
    let done = train(config, options, observer, ranks);
    match &done {
        Ok(_) | Err(TrainError::Collective(_)) => {}
        Err(error) => ranks.fail(&error.to_string()),
    }
    done
}

/// Tells the other ranks of a panic.
struct PanicGuard<'a>(&'a dyn Collective);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("it panicked; see its messages");
        }
    }
}

fn train(
    config: &TrainConfig,
    options: &RunOptions,
    observer: &dyn Observer,
    ranks: &dyn Collective,
) -> Result<RunSummary> {
    config.validate()?;
    let share = Share::new(config.schedule.batch, ranks.rank(), ranks.world())?;
    let remedy = "start all ranks with the same configuration";
    same_on_all(ranks, "settings", fingerprint(config)?, remedy)?;
    if ranks.rank() == 0 {
        check_folder(config, &options.folder, options.resume)?;
    }
    let started = Instant::now();
    pool(config.threads, "train")?.install(|| {
        let (dataset, skipped) = Dataset::open(&config.data, &options.folder)?;
        let remedy = "give all ranks folders with the same files, all readable";
        same_on_all(ranks, "images", dataset.id(), remedy)?;
        let world = World { ranks, share };
        let mut session =
            Session::open(config, &options.folder, observer, &dataset, skipped, world)?;
        let mut summary = session.run()?;
        summary.seconds = started.elapsed().as_secs_f64();
        Ok(summary)
    })
}

/// Adds the newest checkpoint to an error about memory or a device.
fn with_checkpoint(mut error: TrainError, newest: &Option<PathBuf>) -> TrainError {
    if let TrainError::OutOfMemory { checkpoint, .. } | TrainError::DeviceLost { checkpoint, .. } =
        &mut error
    {
        checkpoint.clone_from(newest);
    }
    error
}

/// The ranks and the part of each batch that is this one's.
#[derive(Clone, Copy)]
struct World<'a> {
    ranks: &'a dyn Collective,
    share: Share,
}

/// What rank 0 decides after a step.
#[derive(Clone, Copy)]
struct Decision {
    stop: bool,
    save: bool,
}

struct Session<'a> {
    config: &'a TrainConfig,
    folder: &'a Path,
    observer: &'a dyn Observer,
    dataset: &'a Dataset,
    world: World<'a>,
    /// On rank 0 alone, as the next.
    probe: Option<Probe>,
    metrics: Option<Metrics>,
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
        world: World<'a>,
    ) -> Result<Self> {
        let is_first = world.ranks.rank() == 0;
        let steps_per_epoch = Loader::new(config, dataset, world.share)?.steps_per_epoch();
        let probe = match &config.probe {
            Some(settings) if is_first => {
                let (probe, more) = Probe::open(settings, &config.preprocess)?;
                skipped.extend(more);
                Some(probe)
            }
            _ => None,
        };
        for file in &skipped {
            observer.skipped(&file.path, &file.reason);
        }
        let checkpoint = newest_checkpoint(folder, world.ranks)?;
        let checked = memory::check(config, config.schedule.batch / world.ranks.world());
        if let Some(warning) = checked.map_err(|e| with_checkpoint(e, &checkpoint))? {
            observer.warned(&warning);
        }
        if let Some(warning) = slow_precision(&config.compute, multiplies_bf16()) {
            observer.warned(warning);
        }
        let mut learner = Learner::new(config)?;
        let first_step = match &checkpoint {
            Some(checkpoint) => learner.resume(checkpoint, dataset, folder)?,
            None => 0,
        };
        if is_first {
            fs::create_dir_all(folder).map_err(TrainError::io("create", folder))?;
            if !folder.join(CONFIG).exists() {
                write_safely(&folder.join(CONFIG), config_text(config)?.as_bytes())?;
            }
        }
        Ok(Self {
            config,
            folder,
            observer,
            dataset,
            world,
            probe,
            metrics: None,
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
            ranks: self.world.ranks.world(),
            precision: self.config.compute.precision(),
        }
    }

    fn run(&mut self) -> Result<RunSummary> {
        self.observer.started(&self.info());
        if self.world.ranks.rank() == 0 {
            let path = self.folder.join(METRICS);
            self.metrics = Some(Metrics::open(&path, self.first_step)?);
        }
        self.check_weights()?;
        let steps = self.first_step..self.config.steps();
        std::thread::scope(|scope| {
            let loader = Loader::new(self.config, self.dataset, self.world.share)?;
            let batches = loader.prefetch(steps, scope, rayon::current_num_threads())?;
            self.steps(&batches)
        })
    }

    fn steps(&mut self, batches: &Receiver<Result<Batch>>) -> Result<RunSummary> {
        let steps = self.config.steps();
        let mut step = self.first_step;
        let mut loss = None;
        let mut probes = Vec::new();
        if step == 0 {
            self.probe(0, true, &mut probes)?;
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
                ranks: self.world.ranks,
            };
            let done = self.learner.step(&batch, &ctx);
            let done = done.map_err(|e| self.explain(e))?;
            step += 1;
            pace.add(start.elapsed().as_secs_f64(), waited);
            loss = Some(done.loss);
            self.report(&pace, step, &done)?;
            self.warn(&pace, &mut warned);
            let decision = self.decide(step)?;
            stop = decision.stop;
            self.probe(step, stop || step == steps, &mut probes)?;
            if decision.save {
                self.save(step)?;
            }
        }
        // A run is done on every rank when it is safely on disk.
        self.world.ranks.barrier()?;
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

    /// Whether to stop and to save, as rank 0 says, whose observer and settings decide.
    fn decide(&self, step: u64) -> Result<Decision> {
        let stop = self.observer.stop();
        let is_due = step.is_multiple_of(self.config.checkpoint.every_steps);
        let save = stop || is_due || step == self.config.steps();
        let mut words = [u64::from(stop), u64::from(save)];
        self.world.ranks.broadcast(0, &mut words)?;
        let [stop, save] = words.map(|word| word == 1);
        Ok(Decision { stop, save })
    }

    /// Checks that the weights have the same bits on all ranks, as equal updates of equal weights must.
    fn check_weights(&self) -> Result<()> {
        let ranks = self.world.ranks;
        if ranks.world() == 1 {
            return Ok(());
        }
        let remedy = "run all ranks from the same build on machines of one kind, \
                      and go on with --resume from the last checkpoint";
        same_on_all(ranks, "weights", self.learner.fingerprint()?, remedy)
    }

    fn report(&mut self, pace: &Pace, step: u64, done: &Step) -> Result<()> {
        let Some(metrics) = &mut self.metrics else {
            return Ok(());
        };
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
        if let Some(share) = pace.long_wait().filter(|_| !warned.waiting) {
            let (n, cached) = (self.dataset.len(), self.dataset.cached());
            self.observer.warned(&advice_on_waiting(share, n, cached));
            warned.waiting = true;
        }
    }

    /// Scores the encoder where this is asked for and due.
    fn probe(&mut self, step: u64, due: bool, scores: &mut Vec<ProbeScore>) -> Result<()> {
        let (Some(probe), Some(settings), Some(metrics)) =
            (&self.probe, &self.config.probe, &mut self.metrics)
        else {
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
        self.check_weights()?;
        if self.world.ranks.rank() > 0 {
            self.checkpoint = Some(checkpoint_folder(self.folder, step));
            return Ok(());
        }
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

    /// Adds the checkpoint to an error of a step, and the images to one about a number that is not finite.
    fn explain(&self, mut error: TrainError) -> TrainError {
        error = with_checkpoint(error, &self.checkpoint);
        let TrainError::NonFinite {
            step,
            rank,
            samples,
            checkpoint,
            ..
        } = &mut error
        else {
            return error;
        };
        let batch = self.config.schedule.batch;
        let world = self.world.ranks.world();
        if let Ok(mut sampler) = Sampler::new(self.config.seed, self.dataset.len(), batch) {
            let all = sampler.batch(*step);
            let share = rank.and_then(|rank| Share::new(batch, rank, world).ok());
            *samples = share
                .map_or(all, |share| share.of(all))
                .iter()
                .map(|&i| self.dataset.path(i).display().to_string())
                .collect();
        }
        *checkpoint = self.checkpoint.clone();
        error
    }
}
