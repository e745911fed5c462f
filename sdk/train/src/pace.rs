//! Speed of a run, and what to do when it is lower than it could be.

use ssl_edge_nn::compute::{Precision, Processor};

use crate::config::ComputeConfig;

/// Weight of the newest step in smoothed figures.
const SMOOTHING: f64 = 0.05;

/// Share of the time spent waiting for images above which the user is told, and steps before it is judged.
const MAX_WAIT: f64 = 0.1;
const WAIT_STEPS: u64 = 30;

/// Smoothed seconds of a step and of its wait for images.
#[derive(Default)]
pub(crate) struct Pace {
    steps: u64,
    pub(crate) seconds: f64,
    pub(crate) waited: f64,
}

/// What the observer was warned of.
#[derive(Default)]
pub(crate) struct Warned {
    pub(crate) method: bool,
    pub(crate) waiting: bool,
}

impl Pace {
    pub(crate) fn add(&mut self, seconds: f64, waited: f64) {
        self.steps += 1;
        let weight = SMOOTHING.max(1.0 / self.steps as f64);
        self.seconds += weight * (seconds - self.seconds);
        self.waited += weight * (waited - self.waited);
    }

    /// The share of the time spent waiting for images, once it is known to be too much.
    pub(crate) fn long_wait(&self) -> Option<f64> {
        let share = self.waited / self.seconds;
        (self.steps >= WAIT_STEPS && share > MAX_WAIT).then_some(share)
    }
}

/// What a user can change when `cached` of `n` images are in memory.
pub(crate) fn advice_on_waiting(share: f64, n: usize, cached: usize) -> String {
    let first = if cached < n {
        format!("{cached} of {n} images are in memory: raise data.cache_mib")
    } else {
        "ask less of each image (fewer crops, no blur)".into()
    };
    let percent = 100.0 * share;
    format!(
        "{percent:.0} % of the time is spent waiting for images; {first}, lower data.shorter_side or raise data.threads"
    )
}

/// What to say of bf16 on a CPU, which has instructions for it or not.
pub(crate) fn slow_precision(
    compute: &ComputeConfig,
    multiplies_bf16: bool,
) -> Option<&'static str> {
    let in_bf16 = compute.device == Processor::Cpu && compute.precision() == Precision::Bf16;
    (in_bf16 && !multiplies_bf16).then_some(
        "this CPU has no instructions for products in bf16: they are rounded to it, but no faster; f32 is more exact",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_is_advised_against_where_it_gains_nothing() {
        let on = |device, precision| ComputeConfig {
            device,
            precision: Some(precision),
            recompute: false,
        };
        let (cpu, gpu) = (Processor::Cpu, Processor::Cuda(0));
        assert!(slow_precision(&on(cpu, Precision::Bf16), false).is_some());
        assert!(slow_precision(&on(cpu, Precision::Bf16), true).is_none());
        assert!(slow_precision(&on(cpu, Precision::F32), false).is_none());
        assert!(slow_precision(&on(gpu, Precision::Bf16), false).is_none());
    }

    #[test]
    fn a_wait_is_judged_after_thirty_steps_and_above_a_tenth() {
        let after = |steps: u64, waited: f64| {
            let mut pace = Pace::default();
            (0..steps).for_each(|_| pace.add(2.0, waited));
            pace.long_wait()
        };
        assert_eq!(after(29, 1.0), None);
        assert_eq!(after(30, 0.19), None);
        assert!((after(30, 1.0).unwrap() - 0.5).abs() < 1e-9);
    }

    #[test]
    fn advice_names_the_setting_that_helps() {
        assert!(
            advice_on_waiting(0.3, 10, 4)
                .contains("4 of 10 images are in memory: raise data.cache_mib")
        );
        let full = advice_on_waiting(0.3, 10, 10);
        assert!(
            full.starts_with("30 %") && full.contains("fewer crops"),
            "{full}"
        );
    }
}
