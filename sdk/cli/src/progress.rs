//! Progress of a training run on stderr: a bar on a terminal, plain lines elsewhere.

use crate::memory::end_with_words;
use crate::output::{describe_skipped, note, percent};
use indicatif::{ProgressBar, ProgressStyle};
use ssl_edge::train::{Observer, ProbeScore, Progress, RunInfo, TrainConfig};
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The observer of a run for this process's stderr.
pub(crate) fn observer(config: &TrainConfig) -> Box<dyn Observer> {
    let [height, width] = config.encoder.image_size;
    let words = format!(
        "it does not suffice for batches of {} images of {height}x{width} pixels. Lower schedule.batch, image_size or data.cache_mib; \
         the last checkpoint stands, and --resume goes on from it",
        config.schedule.batch
    );
    if std::io::stderr().is_terminal() {
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        Box::new(Bar {
            bar: ProgressBar::new(0).with_style(style),
            words,
        })
    } else {
        Box::new(Lines {
            last: Mutex::new(None),
            words,
        })
    }
}

struct Bar {
    bar: ProgressBar,
    /// For the case that memory ends during a step.
    words: String,
}

impl Observer for Bar {
    fn started(&self, info: &RunInfo) {
        end_with_words(self.words.clone());
        self.bar.println(describe_run(info));
        self.bar.set_length(info.steps);
        self.bar.set_position(info.first_step);
    }

    fn skipped(&self, path: &Path, reason: &str) {
        self.bar.println(describe_skipped(path, reason));
    }

    fn step(&self, progress: &Progress) {
        self.bar.set_message(describe_step(progress));
        self.bar.set_position(progress.step);
        if progress.step == progress.steps {
            self.bar.abandon();
        }
    }

    fn warned(&self, message: &str) {
        self.bar.println(describe_warning(message));
    }

    fn probed(&self, score: &ProbeScore) {
        self.bar.println(describe_probe(score));
    }
}

struct Lines {
    last: Mutex<Option<Instant>>,
    /// As those of [`Bar`].
    words: String,
}

impl Lines {
    const EVERY: Duration = Duration::from_secs(10);
}

impl Observer for Lines {
    fn started(&self, info: &RunInfo) {
        end_with_words(self.words.clone());
        note(describe_run(info));
    }

    fn skipped(&self, path: &Path, reason: &str) {
        note(describe_skipped(path, reason));
    }

    fn step(&self, progress: &Progress) {
        let mut last = self
            .last
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let is_due = last.is_none_or(|last| last.elapsed() >= Self::EVERY);
        if is_due || progress.step == progress.steps {
            *last = Some(Instant::now());
            note(format_args!(
                "step {}/{}  {}",
                progress.step,
                progress.steps,
                describe_step(progress)
            ));
        }
    }

    fn warned(&self, message: &str) {
        note(describe_warning(message));
    }

    fn probed(&self, score: &ProbeScore) {
        note(describe_probe(score));
    }

    fn saved(&self, checkpoint: &Path) {
        note(format_args!("saved {}", checkpoint.display()));
    }
}

fn describe_run(info: &RunInfo) -> String {
    let from = match info.first_step {
        0 => String::new(),
        step => format!(", going on from step {step}"),
    };
    let ranks = match info.ranks {
        1 => String::new(),
        ranks => format!(" on each of {ranks} ranks"),
    };
    format!(
        "{} of {}: {} parameters, {} images ({} in memory), {} steps of {} images{from}, peak learning rate {:.2e}, {} threads{ranks}, products in {}",
        info.method,
        info.arch,
        info.trained_parameters,
        info.images,
        info.cached,
        info.steps,
        info.batch,
        info.peak_lr,
        info.threads,
        info.precision
    )
}

fn describe_step(progress: &Progress) -> String {
    format!(
        "{:.1} img/s  loss {:.4}  lr {:.2e}  left {}  data wait {:.0} %",
        progress.img_per_s,
        progress.loss,
        progress.lr,
        clock(progress.eta_s),
        100.0 * progress.data_wait
    )
}

fn describe_warning(message: &str) -> String {
    format!("warning: {message}")
}

fn describe_probe(score: &ProbeScore) -> String {
    format!(
        "step {}: 20-NN accuracy {} ({} images scored by {})",
        score.step,
        percent(score.knn20),
        score.val,
        score.train
    )
}

fn clock(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_reads_like_a_clock() {
        assert_eq!(clock(65.4), "1:05");
        assert_eq!(clock(3.0 * 3600.0 + 62.0), "3:01:02");
    }

    #[test]
    fn a_step_names_its_figures() {
        let progress = Progress {
            step: 3,
            steps: 10,
            loss: 6.93,
            lr: 2.5e-4,
            grad_norm: 1.0,
            img_per_s: 41.27,
            data_wait: 0.021,
            eta_s: 130.0,
        };
        assert_eq!(
            describe_step(&progress),
            "41.3 img/s  loss 6.9300  lr 2.50e-4  left 2:10  data wait 2 %"
        );
    }
}
