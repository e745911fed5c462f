//! `bench soak`: frames through one encoder for minutes. Memory must stay flat, and the same frame must give the same bits to the end.

use crate::data::EncoderArgs;
use crate::output::{Format, note};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use ssl_edge::encoder::{CancelToken, Embedding, Encoder, Limit, RuntimeError, resident_memory};
use ssl_edge::vision::{Image, Station, Surface};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const MIB: f64 = (1 << 20) as f64;
/// Sides of the frames that take turns.
const SIDES: [u32; 4] = [160, 224, 320, 480];
/// Every so many frames a call is given up on purpose.
const GIVE_UP_EVERY: u64 = 16;

/// Embed frames for minutes, sample memory, and fail where it grows or an embedding changes.
#[derive(Args)]
pub(crate) struct SoakArgs {
    #[command(flatten)]
    encoder: EncoderArgs,
    /// Minutes to go on for
    #[arg(long, default_value_t = 10.0, value_name = "MIN")]
    minutes: f64,
    /// Threads that call the encoder at once
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    callers: u32,
    /// MiB that memory may grow by from the second quarter of the time to the last
    #[arg(long, default_value_t = 4.0, value_name = "MIB")]
    allow: f64,
}

#[derive(Serialize)]
struct Report {
    name: String,
    engine: &'static str,
    precision: &'static str,
    threads: Option<usize>,
    callers: u32,
    minutes: f64,
    /// Frames that were embedded, and calls that were given up on purpose.
    frames: u64,
    given_up: u64,
    frames_per_s: f64,
    /// Resident memory in MiB: median of the second and of the last quarter, and the most.
    early_mib: f64,
    late_mib: f64,
    peak_mib: f64,
    growth_mib: f64,
    allowed_mib: f64,
    flat: bool,
    samples: Vec<Sample>,
}

#[derive(Clone, Copy, Serialize)]
struct Sample {
    seconds: f64,
    mib: f64,
}

/// What all callers share.
struct Run<'a> {
    encoder: &'a Encoder,
    frames: &'a [Image],
    expected: &'a [Embedding],
    over: AtomicBool,
    embedded: AtomicU64,
    given_up: AtomicU64,
}

/// Runs to the end of the time and prints what was seen.
pub(super) fn run(args: &SoakArgs, format: Format) -> Result<()> {
    if !(args.minutes > 0.0 && args.minutes <= 1e5) {
        bail!("--minutes is {}; give a time up to 100000", args.minutes);
    }
    let encoder = args.encoder.open()?;
    let report = soak(args, &encoder)?;
    format.print(&report, human)?;
    if !report.flat {
        bail!(
            "memory grew by {:.1} MiB, allowed were {:.1}; run it longer to see whether it goes on",
            report.growth_mib,
            report.allowed_mib
        );
    }
    Ok(())
}

fn soak(args: &SoakArgs, encoder: &Encoder) -> Result<Report> {
    let station = Station::new(0);
    let frames: Vec<Image> = (0..)
        .zip(SIDES)
        .map(|(seed, side)| station.photo(Surface::Scratch, side, seed))
        .collect();
    let expected = frames.iter().map(|image| encoder.embed(&image.frame()));
    let expected: Vec<Embedding> = expected.collect::<Result<_, _>>()?;
    let run = Run {
        encoder,
        frames: &frames,
        expected: &expected,
        over: AtomicBool::new(false),
        embedded: AtomicU64::new(0),
        given_up: AtomicU64::new(0),
    };
    let (start, time) = (Instant::now(), Duration::from_secs_f64(60.0 * args.minutes));
    let samples = std::thread::scope(|scope| {
        let run = &run;
        let callers: Vec<_> = (0..args.callers)
            .map(|caller| {
                scope.spawn(move || run.call(u64::from(caller)).inspect_err(|_| run.end()))
            })
            .collect();
        let samples = run.sample(start, time);
        run.end();
        for caller in callers {
            let ended = caller.join();
            ended.map_err(|_| anyhow::anyhow!("a caller panicked; report this"))??;
        }
        samples
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let (early, late) = (quarter(&samples, 1), quarter(&samples, 3));
    let embedded = run.embedded.into_inner();
    Ok(Report {
        name: encoder.manifest().name().to_owned(),
        engine: encoder.engine().name(),
        precision: encoder.precision().name(),
        threads: encoder.threads(),
        callers: args.callers,
        minutes: seconds / 60.0,
        frames: embedded,
        given_up: run.given_up.into_inner(),
        frames_per_s: embedded as f64 / seconds,
        early_mib: early,
        late_mib: late,
        peak_mib: samples.iter().map(|sample| sample.mib).fold(0.0, f64::max),
        growth_mib: late - early,
        allowed_mib: args.allow,
        flat: late - early <= args.allow,
        samples,
    })
}

impl Run<'_> {
    fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Embeds until the time is over; every so often gives a call up, before it starts or in its midst.
    fn call(&self, caller: u64) -> Result<()> {
        let mut count = caller;
        while !self.over.load(Ordering::Relaxed) {
            let index = (count % self.frames.len() as u64) as usize;
            let frame = self.frames[index].frame();
            if count % GIVE_UP_EVERY == GIVE_UP_EVERY - 1 {
                match self
                    .encoder
                    .embed_within(&frame, &limit(count / GIVE_UP_EVERY))
                {
                    Err(RuntimeError::Interrupted { .. }) => {
                        self.given_up.fetch_add(1, Ordering::Relaxed);
                    }
                    // It was quick enough.
                    other => self.compare(&other?, index)?,
                }
            }
            self.compare(&self.encoder.embed(&frame)?, index)?;
            count += 1;
        }
        Ok(())
    }

    fn compare(&self, found: &Embedding, index: usize) -> Result<()> {
        let embedded = self.embedded.fetch_add(1, Ordering::Relaxed);
        if *found != self.expected[index] {
            bail!("frame {index} had another embedding after {embedded} frames; report this");
        }
        Ok(())
    }

    /// Memory from now on, twenty times and more.
    fn sample(&self, start: Instant, time: Duration) -> Result<Vec<Sample>> {
        let step = (time / 20).clamp(Duration::from_millis(10), Duration::from_secs(1));
        let mut samples = Vec::new();
        let mut told = Instant::now();
        loop {
            let bytes = resident_memory()
                .context("this system does not say how much memory a process has (/proc)")?;
            let seconds = start.elapsed().as_secs_f64();
            let mib = bytes as f64 / MIB;
            samples.push(Sample { seconds, mib });
            if start.elapsed() >= time || self.over.load(Ordering::Relaxed) {
                return Ok(samples);
            }
            if told.elapsed() >= Duration::from_secs(60) {
                told = Instant::now();
                let frames = self.embedded.load(Ordering::Relaxed);
                note(format_args!(
                    "{seconds:.0} s: {frames} frames, {mib:.1} MiB"
                ));
            }
            std::thread::sleep(step.min(time.saturating_sub(start.elapsed())));
        }
    }
}

/// Cancelled before it starts, or given a time from none to some milliseconds.
fn limit(count: u64) -> Limit {
    if count.is_multiple_of(4) {
        let token = CancelToken::default();
        token.cancel();
        return Limit::default().or_when(&token);
    }
    Limit::within(Duration::from_micros(count % 16 * 500))
}

/// Median memory of a quarter of the samples, counted from 0.
fn quarter(samples: &[Sample], index: usize) -> f64 {
    let (start, end) = (samples.len() * index / 4, samples.len() * (index + 1) / 4);
    let mut values: Vec<f64> = samples[start.min(samples.len() - 1)..end.max(start + 1)]
        .iter()
        .map(|sample| sample.mib)
        .collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn human(report: &Report) -> String {
    format!(
        "{} on engine {} in {}, {} callers: {} frames in {:.1} minutes ({:.1} a second), {} calls given up on purpose\n\
         every embedding had its bits\n\
         memory: {:.1} MiB early, {:.1} MiB late, at most {:.1} MiB: {}",
        report.name,
        report.engine,
        report.precision,
        report.callers,
        report.frames,
        report.minutes,
        report.frames_per_s,
        report.given_up,
        report.early_mib,
        report.late_mib,
        report.peak_mib,
        match report.flat {
            true => "flat",
            false => "it grows",
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quarters_are_medians_of_their_part() {
        let of = |values: &[f64]| -> Vec<Sample> {
            let samples = values.iter().map(|mib| Sample {
                seconds: 0.0,
                mib: *mib,
            });
            samples.collect()
        };
        let samples = of(&[1.0, 1.0, 2.0, 9.0, 3.0, 3.0, 5.0, 4.0]);
        assert_eq!((quarter(&samples, 1), quarter(&samples, 3)), (9.0, 5.0));
        assert_eq!(quarter(&of(&[7.0]), 3), 7.0);
    }
}
