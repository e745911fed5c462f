//! Counter-based randomness: every draw is a function of what it is for, never of when it is made.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// First purpose used by this crate: crop `i` of a sample draws from `PURPOSE_VIEW + i`. Lower values are free for callers.
pub const PURPOSE_VIEW: u64 = 1 << 32;

/// The ChaCha8 generator whose 32-byte key is `seed ‖ step ‖ sample ‖ purpose`, each a little-endian u64.
///
/// Distinct arguments give independent streams, so a training run can be resumed at any step and split over any
/// number of threads without changing a draw.
pub fn stream(seed: u64, step: u64, sample: u64, purpose: u64) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    for (slot, word) in key.chunks_exact_mut(8).zip([seed, step, sample, purpose]) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// Uniform in [0, 1) with 53 random bits.
pub(crate) fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// Uniform in [low, high).
pub(crate) fn uniform(rng: &mut ChaCha8Rng, low: f64, high: f64) -> f64 {
    low + (high - low) * unit(rng)
}

/// Uniform in 0..n by multiply-shift; the bias is below n / 2^64.
pub(crate) fn below(rng: &mut ChaCha8Rng, n: u32) -> u32 {
    ((u128::from(rng.next_u64()) * u128::from(n)) >> 64) as u32
}

/// True with probability `p`. One draw is consumed whatever `p` is.
pub(crate) fn chance(rng: &mut ChaCha8Rng, p: f32) -> bool {
    unit(rng) < f64::from(p)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_four_words_little_endian() {
        let mut key = [0u8; 32];
        key[0] = 7;
        key[8] = 5;
        key[16] = 3;
        key[25] = 2;
        let mut expected = ChaCha8Rng::from_seed(key);
        let mut actual = stream(7, 5, 3, 512);
        for _ in 0..100 {
            assert_eq!(actual.next_u64(), expected.next_u64());
        }
    }

    #[test]
    fn every_word_of_the_key_changes_the_stream() {
        let first = |mut rng: ChaCha8Rng| rng.next_u64();
        let base = first(stream(1, 1, 1, 1));
        for other in [
            stream(2, 1, 1, 1),
            stream(1, 2, 1, 1),
            stream(1, 1, 2, 1),
            stream(1, 1, 1, 2),
        ] {
            assert_ne!(first(other), base);
        }
    }

    #[test]
    fn draws_cover_their_ranges_evenly() {
        let mut rng = stream(0, 0, 0, 0);
        let mut counts = [0u32; 6];
        let mut sum = 0.0;
        for _ in 0..60_000 {
            counts[below(&mut rng, 6) as usize] += 1;
            let x = uniform(&mut rng, -1.0, 3.0);
            assert!((-1.0..3.0).contains(&x));
            sum += x;
        }
        // 5 standard deviations: sqrt(60000 * 5/36) = 91.3
        assert!(counts.iter().all(|&c| c.abs_diff(10_000) < 457));
        assert!((sum / 60_000.0 - 1.0).abs() < 5.0 * (4.0 / 12f64.sqrt()) / 60_000f64.sqrt());
        assert!(!chance(&mut rng, 0.0));
        assert!(chance(&mut rng, 1.0));
    }
}
