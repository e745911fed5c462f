//! The integer arithmetic: dot products, 2^-x, softmax.
//!
//! Everything is exact or rounds in one stated way, with fixed widths, so that a Cortex-M and a workstation give the same integers.

/// `log2(e)` in Q31.
const LOG2_E: u64 = 3_098_164_009;

/// Coefficients of `2^-f = 1 - f (a1 - f (a2 - f (a3 - f (a4 - f a5))))` for `f` in 0..1, in Q32: minimax, error below 6.1e-8.
const EXP2: [u32; 5] = [
    0xb171_e9b3,
    0x3d7c_e05b,
    0x0e29_3c23,
    0x025c_ca86,
    0x003e_860a,
];

/// Beyond this many natural-log units `exp(-x)` is 0 in Q31.
const EXP_ZERO: u32 = 22;

/// One in Q15, the unit of scores and similarities.
pub const ONE_Q15: u16 = 1 << 15;

/// Fraction bits of the argument of [`exp_neg`].
pub(crate) const EXP_BITS: u32 = 24;

/// `Σ a_d b_d` of two rows of `i8`, `b` as bytes. Exact: below 2^31 for up to 65,535 values.
pub(crate) fn dot(a: &[i8], b: &[u8]) -> i32 {
    let mut sum = 0;
    for (x, y) in a.iter().zip(b) {
        sum += i32::from(*x) * i32::from(*y as i8);
    }
    sum
}

/// `Σ a_d c_d` with `c` little-endian `i16`.
pub(crate) fn dot_wide(a: &[i8], c: &[u8]) -> i64 {
    let mut sum = 0;
    for (x, y) in a.iter().zip(c.as_chunks::<2>().0) {
        sum += i64::from(i32::from(*x) * i32::from(i16::from_le_bytes(*y)));
    }
    sum
}

/// `Σ a_d²`.
pub(crate) fn square(a: &[i8]) -> i32 {
    let mut sum = 0;
    for x in a {
        sum += i32::from(*x) * i32::from(*x);
    }
    sum
}

/// `exp(-x)` in Q31 for `x` in Q24; the error is below 2^-23 in units of one.
pub(crate) fn exp_neg(x: u32) -> u32 {
    if x >= EXP_ZERO << EXP_BITS {
        return 0;
    }
    let exponent = (u64::from(x) * LOG2_E) >> (EXP_BITS + 31 - 32);
    let (whole, fraction) = ((exponent >> 32) as u32, exponent as u32);
    let times = |a: u32| ((u64::from(fraction) * u64::from(a)) >> 32) as u32;
    let mut below = EXP2[4];
    for coefficient in EXP2[..4].iter().rev() {
        below = coefficient - times(below);
    }
    let mantissa = (1u64 << 32) - u64::from(times(below));
    (mantissa >> (1 + whole)) as u32
}

/// Share of the largest in `softmax(-distances)`, in Q15 rounded to nearest; `distances` below the largest logit in Q24, one of them 0.
pub(crate) fn softmax_share(exp: u32, sum: u64) -> u16 {
    // `sum` holds `exp`, so that the quotient is at most 2^15.
    (((u64::from(exp) << 15) + sum / 2) / sum) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_neg_follows_the_real_exponential() {
        let mut largest = 0.0f64;
        for x in (0..(23u32 << EXP_BITS)).step_by(997) {
            let exact = (-f64::from(x) / f64::from(1u32 << EXP_BITS)).exp();
            let error = (f64::from(exp_neg(x)) / f64::from(1u32 << 31) - exact).abs();
            largest = largest.max(error);
        }
        assert!(largest < 1.0 / f64::from(1 << 23), "error {largest:e}");
        assert!(largest > 1e-9, "the oracle is not the same function");
        assert_eq!((exp_neg(0), exp_neg(u32::MAX)), (1 << 31, 0));
    }

    #[test]
    fn exp_neg_never_rises() {
        let mut last = exp_neg(0);
        for x in (0..(23u32 << EXP_BITS)).step_by(4096) {
            let now = exp_neg(x);
            assert!(now <= last, "at {x}");
            last = now;
        }
    }

    #[test]
    fn sums_hold_the_extremes() {
        let (low, low_bytes) = ([i8::MIN; 4096], [0x80u8; 4096]);
        assert_eq!(dot(&low, &low_bytes), 4096 << 14);
        assert_eq!(square(&low), 4096 << 14);
        let centre = [0x00u8, 0x80].repeat(4096);
        assert_eq!(dot_wide(&low, &centre), 4096i64 << 22);
    }
}
