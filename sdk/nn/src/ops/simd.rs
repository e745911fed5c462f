//! Vector code chosen at run time: a plain loop compiled for each instruction set that `pulp` knows, and scalar functions simple enough to vectorise.

use pulp::{Arch, Simd, WithSimd};

/// A loop to compile for several instruction sets.
pub(crate) trait Kernel<A> {
    type Output;

    /// Must be `#[inline(always)]`: only code that is inlined is compiled for the instruction set that was chosen. `FMA` says that it has [`fused`]
    /// products and sums.
    fn call<const FMA: bool>(args: A) -> Self::Output;
}

struct Call<K, A>(A, std::marker::PhantomData<K>);

impl<K: Kernel<A>, A> WithSimd for Call<K, A> {
    type Output = K::Output;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> K::Output {
        match S::IS_SCALAR {
            true => K::call::<false>(self.0),
            false => K::call::<true>(self.0),
        }
    }
}

/// Runs a kernel compiled for the widest instruction set of this CPU.
#[inline]
pub(crate) fn run<K: Kernel<A>, A>(args: A) -> K::Output {
    Arch::new().dispatch(Call::<K, A>(args, std::marker::PhantomData))
}

/// A function whose body is compiled for every instruction set that `pulp` knows, and chosen among them when it is called. The body may name the
/// constant `FMA` of [`Kernel::call`].
macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $type),*) $(-> $out)? {
            struct Body;

            impl $crate::ops::simd::Kernel<($($type,)*)> for Body {
                type Output = $crate::ops::simd::output!($($out)?);

                #[inline(always)]
                fn call<const FMA: bool>(($($arg,)*): ($($type,)*)) -> Self::Output $body
            }

            $crate::ops::simd::run::<Body, _>(($($arg,)*))
        }
    };
}

macro_rules! output {
    () => {
        ()
    };
    ($out:ty) => {
        $out
    };
}

pub(crate) use {output, vectorised};

/// `a b + c`, rounded once with `FMA`. Without the instruction a function would stand in for it that takes a hundred times as long.
#[inline(always)]
pub(crate) fn fused<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `e^x` by range reduction and a polynomial (Cephes `expf`); relative error below 2e-7 for |x| < 87, saturating outside.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer, left in the low bits
    let x = x.clamp(-87.0, 88.0);
    let rounded = fused::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = fused::<FMA>(n, -0.693_359_4, x);
    let r = fused::<FMA>(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4;
    for coefficient in [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
        1.0,
        1.0,
    ] {
        p = fused::<FMA>(p, r, coefficient);
    }
    // times 2^n: p is within [0.7, 1.42], where that is a sum of exponents
    f32::from_bits(p.to_bits().wrapping_add(rounded.to_bits() << 23))
}

/// `erf(x)` after Abramowitz and Stegun 7.1.26; absolute error below 2e-7. Returns `(erf(x), e^(-x^2))`, since its derivative needs the latter.
#[inline(always)]
pub(crate) fn erf<const FMA: bool>(x: f32) -> (f32, f32) {
    let a = x.abs();
    let gauss = exp::<FMA>(-a * a);
    let t = 1.0 / fused::<FMA>(0.327_591_1, a, 1.0);
    let mut poly = 1.061_405_4;
    for coefficient in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        poly = fused::<FMA>(poly, t, coefficient);
    }
    (fused::<FMA>(-poly * t, gauss, 1.0).copysign(x), gauss)
}

/// Sum of a slice in sixteen running sums, so that it vectorises and does not depend on the vector width.
#[inline(always)]
pub(crate) fn sum(values: &[f32]) -> f32 {
    dot_with(values, values, |a, _| a)
}

/// Largest value of a slice, or -∞.
#[inline(always)]
pub(crate) fn max(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for c in chunks {
        for i in 0..16 {
            lanes[i] = larger(lanes[i], c[i]);
        }
    }
    rest.iter()
        .chain(&lanes)
        .fold(f32::NEG_INFINITY, |m, v| larger(m, *v))
}

/// Dot product in sixteen running sums.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    dot_with(a, b, |a, b| a * b)
}

#[inline(always)]
fn dot_with(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0f32; 16];
    let (a_chunks, a_rest) = a.as_chunks::<16>();
    let (b_chunks, b_rest) = b.as_chunks::<16>();
    for (x, y) in a_chunks.iter().zip(b_chunks) {
        for i in 0..16 {
            lanes[i] += term(x[i], y[i]);
        }
    }
    for (i, (x, y)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[i] += term(*x, *y);
    }
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    #[test]
    fn exp_is_close_to_std() {
        for i in -8600..8800 {
            let x = i as f32 * 0.01;
            let want = (x as f64).exp();
            for got in [super::exp::<true>(x), super::exp::<false>(x)] {
                assert!((got as f64 / want - 1.0).abs() < 3e-7, "{x}");
            }
        }
    }

    #[test]
    fn exp_saturates_and_passes_nan_on() {
        for far in [88.5, 1e30, f32::INFINITY] {
            let (most, least) = (super::exp::<true>(far), super::exp::<true>(-far));
            assert_eq!(most, super::exp::<true>(88.0));
            assert!(least > 0.0 && least < 2e-38, "{least:e}");
        }
        assert!(super::exp::<true>(f32::NAN).is_nan() && super::exp::<false>(f32::NAN).is_nan());
    }

    #[test]
    fn erf_matches_its_series() {
        // erf(x) = 2/sqrt(pi) * sum (-1)^n x^(2n+1) / (n! (2n+1))
        for i in -300..=300 {
            let x = i as f64 * 0.01;
            let (mut term, mut total) = (x, x);
            for n in 1..60 {
                term *= -x * x / n as f64;
                total += term / (2 * n + 1) as f64;
            }
            let want = total * 2.0 / std::f64::consts::PI.sqrt();
            for (got, gauss) in [super::erf::<true>(x as f32), super::erf::<false>(x as f32)] {
                assert!((got as f64 - want).abs() < 4e-7, "{x}: {got} {want}");
                assert!((gauss as f64 - (-x * x).exp()).abs() < 4e-7);
            }
        }
    }

    #[test]
    fn sums_cover_every_length() {
        for n in 0..70i32 {
            let v: Vec<f32> = (0..n).map(|i| i as f32).collect();
            assert_eq!(super::sum(&v), (n * (n - 1)) as f32 / 2.0);
            let squares: f32 = v.iter().map(|x| x * x).sum();
            assert_eq!(super::dot(&v, &v), squares);
            assert_eq!(
                super::max(&v),
                if n == 0 {
                    f32::NEG_INFINITY
                } else {
                    (n - 1) as f32
                }
            );
        }
    }
}
