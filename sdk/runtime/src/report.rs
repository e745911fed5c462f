//! What an open encoder is and does on this machine.

use std::time::{Duration, Instant};

use ssl_edge_nn::compute::Processor;

use crate::{Encoder, EngineKind, Precision, RuntimeError, SelfTest};

/// Runs before the clock starts.
const WARM: usize = 2;

/// An open encoder on this machine: what runs it, how near it is to its golden vectors, how long a frame takes, how much memory there is.
#[derive(Debug, Clone, PartialEq)]
pub struct RuntimeReport {
    /// Name of the encoder.
    pub name: String,
    /// Identity of the encoder in its precision.
    pub hash: [u8; 32],
    /// The engine that runs.
    pub engine: EngineKind,
    /// What its linear layers are computed with.
    pub precision: Precision,
    /// Where it computes.
    pub processor: Processor,
    /// Threads that work on a frame, where the engine has its own.
    pub threads: Option<usize>,
    /// Instruction set of the kernels; `None` where they are not ours and choose for themselves.
    pub isa: Option<&'static str>,
    /// Height and width of the input in pixels.
    pub input: [usize; 2],
    /// Values of a token.
    pub dim: usize,
    /// Rows and columns of the patch tokens.
    pub grid: [usize; 2],
    /// How near the engine came to the golden vectors.
    pub self_test: SelfTest,
    /// Bytes of packed weights and work memory, where the engine knows.
    pub memory: Option<usize>,
    /// Bytes of the whole process that are in memory, where the system says.
    pub resident: Option<usize>,
    /// How long a preprocessed frame takes.
    pub latency: Latency,
}

/// Times of single frames, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// Frames that were timed.
    pub frames: usize,
    /// The shortest.
    pub min: Duration,
    /// Half took no longer.
    pub p50: Duration,
    /// 99 % took no longer; the longest where there were fewer than 100.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

impl Latency {
    /// Of at least one time.
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        // The smallest time that a share of all does not exceed.
        let share = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1];
        Self {
            frames: times.len(),
            min: share(0),
            p50: share(50),
            p99: share(99),
            max: share(100),
        }
    }
}

impl Encoder {
    /// Embeds `frames` preprocessed grey images, at least one, and reports.
    ///
    /// # Errors
    /// As [`Encoder::tokens_into`].
    pub fn report(&self, frames: usize) -> Result<RuntimeReport, RuntimeError> {
        let [rows, columns] = self.grid();
        let input = vec![0.0; self.preprocess().len()];
        let mut cls = vec![0.0; self.dim()];
        let mut patches = vec![0.0; rows * columns * self.dim()];
        let mut times = Vec::with_capacity(frames.max(1));
        for run in 0..WARM + frames.max(1) {
            let start = Instant::now();
            self.tokens_into(&input, 1, &mut cls, &mut patches)?;
            if run >= WARM {
                times.push(start.elapsed());
            }
        }
        Ok(RuntimeReport {
            name: self.manifest().name().to_owned(),
            hash: self.hash(),
            engine: self.engine(),
            precision: self.precision(),
            processor: self.place().processor,
            threads: self.threads(),
            isa: self.isa(),
            input: self.manifest().input_size(),
            dim: self.dim(),
            grid: self.grid(),
            self_test: self.self_test(),
            memory: self.memory(),
            resident: resident_memory(),
            latency: Latency::of(times),
        })
    }
}

/// Bytes of this process that are in memory, where the system says.
pub fn resident_memory() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_taken() {
        let ms = Duration::from_millis;
        let latency = Latency::of((1..=200).rev().map(ms).collect());
        assert_eq!(
            (latency.frames, latency.min, latency.max),
            (200, ms(1), ms(200))
        );
        assert_eq!((latency.p50, latency.p99), (ms(100), ms(198)));
        let one = Latency::of(vec![ms(7)]);
        assert_eq!([one.min, one.p50, one.p99, one.max], [ms(7); 4]);
        let few = Latency::of([3, 1, 2].map(ms).to_vec());
        assert_eq!((few.p50, few.p99), (ms(2), ms(3)));
    }
}
