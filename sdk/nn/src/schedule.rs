//! Schedules over training steps.

use std::f64::consts::PI;

/// Linear warm-up from `warmup_start` to `base` over `warmup_steps`, then a half cosine from `base` to `end` at step
/// `total`, which stays at `end` afterwards. Endpoints are exact: `base` at `warmup_steps`, `end` at `total`.
///
/// The schedule of MAE and DINO for learning rate, weight decay and teacher momentum, counted in steps.
pub fn cosine(
    base: f64,
    end: f64,
    warmup_steps: u64,
    total: u64,
    warmup_start: f64,
    step: u64,
) -> f64 {
    if step < warmup_steps {
        return linear(warmup_start, base, warmup_steps, step);
    }
    if step >= total {
        return end;
    }
    let progress = (step - warmup_steps) as f64 / (total - warmup_steps) as f64;
    let weight = 0.5 * (1.0 + (PI * progress).cos());
    base * weight + end * (1.0 - weight)
}

/// From `start` to `end` over `steps` in equal parts, then `end`: the warm-up of DINO's teacher temperature.
pub fn linear(start: f64, end: f64, steps: u64, step: u64) -> f64 {
    if step >= steps {
        return end;
    }
    start + (end - start) * (step as f64 / steps as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learning_rate_endpoints() {
        let lr = |step| cosine(2.5e-4, 1e-6, 10, 100, 0.0, step);
        assert_eq!(lr(0), 0.0);
        assert!((lr(5) - 1.25e-4).abs() < 1e-18);
        assert_eq!(lr(10), 2.5e-4);
        assert!((lr(55) - (1e-6 + 0.5 * (2.5e-4 - 1e-6))).abs() < 1e-12);
        assert_eq!(lr(100), 1e-6);
        assert_eq!(lr(1000), 1e-6);
        assert!((11..=100).all(|s| lr(s) < lr(s - 1)));
    }

    #[test]
    fn momentum_and_decay_endpoints() {
        assert_eq!(cosine(0.996, 1.0, 0, 50, 0.0, 0), 0.996);
        assert_eq!(cosine(0.996, 1.0, 0, 50, 0.0, 50), 1.0);
        assert_eq!(cosine(0.04, 0.4, 0, 50, 0.0, 0), 0.04);
        assert_eq!(cosine(0.04, 0.4, 0, 50, 0.0, 50), 0.4);
    }

    #[test]
    fn temperature_warms_up_linearly() {
        assert_eq!(linear(0.02, 0.04, 10, 0), 0.02);
        assert!((linear(0.02, 0.04, 10, 5) - 0.03).abs() < 1e-15);
        assert_eq!(linear(0.02, 0.04, 10, 10), 0.04);
        assert_eq!(linear(0.02, 0.04, 0, 0), 0.04);
    }
}
