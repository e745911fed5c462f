//! L-BFGS (Nocedal and Wright 2006, algorithm 7.5) with a backtracking line search, for smooth convex functions.

use std::collections::VecDeque;

/// Pairs of steps and gradient changes that approximate the curvature.
const MEMORY: usize = 10;
/// Sufficient decrease (Armijo).
const DECREASE: f64 = 1e-4;

/// When to stop.
pub(crate) struct Stop {
    /// Largest entry of the gradient, in absolute value.
    pub(crate) gradient: f64,
    /// The same as a share of what it is at first, if that is more.
    pub(crate) share: f64,
    /// Most steps.
    pub(crate) steps: usize,
}

/// What is known of the curvature, for a search that begins where another one ended.
#[derive(Clone, Default)]
pub(crate) struct Curvature(VecDeque<Pair>);

/// Minimises `f` from `x` on; `f` writes its gradient and returns its value. Returns the number of steps.
pub(crate) fn minimise(
    x: &mut Vec<f64>,
    stop: &Stop,
    Curvature(pairs): &mut Curvature,
    mut f: impl FnMut(&[f64], &mut [f64]) -> f64,
) -> usize {
    let mut gradient = vec![0.0; x.len()];
    let mut value = f(x, &mut gradient);
    let largest = gradient.iter().fold(0.0f64, |most, g| most.max(g.abs()));
    let bound = stop.gradient.max(stop.share * largest);
    let (mut next, mut next_gradient) = (x.clone(), gradient.clone());
    for step in 0..stop.steps {
        if gradient.iter().all(|g| g.abs() <= bound) {
            return step;
        }
        let mut direction = direction(&gradient, pairs);
        let mut slope = dot(&gradient, &direction);
        if slope >= 0.0 {
            pairs.clear();
            direction = gradient.iter().map(|g| -g).collect();
            slope = -dot(&gradient, &gradient);
        }
        let mut length = if pairs.is_empty() {
            1.0 / norm(&gradient).max(1.0)
        } else {
            1.0
        };
        let found = loop {
            for (n, (x, d)) in next.iter_mut().zip(x.iter().zip(&direction)) {
                *n = x + length * d;
            }
            let found = f(&next, &mut next_gradient);
            if found <= value + DECREASE * length * slope {
                break found;
            }
            // Near the minimum the decrease drowns in rounding; the slope still tells (Hager and Zhang 2005, approximate Wolfe condition).
            let flat = found <= value + 4.0 * f64::EPSILON * value.abs();
            if flat && dot(&next_gradient, &direction) <= (2.0 * DECREASE - 1.0) * slope {
                break found;
            }
            length *= 0.5;
            if length < 1e-20 {
                return step;
            }
        };
        let pair = Pair::new(
            next.iter().zip(x.iter()).map(|(n, x)| n - x).collect(),
            next_gradient
                .iter()
                .zip(&gradient)
                .map(|(n, g)| n - g)
                .collect(),
        );
        // Without positive curvature the approximation would lose its definiteness.
        if let Some(pair) = pair {
            if pairs.len() == MEMORY {
                pairs.pop_front();
            }
            pairs.push_back(pair);
        }
        std::mem::swap(x, &mut next);
        std::mem::swap(&mut gradient, &mut next_gradient);
        value = found;
    }
    stop.steps
}

#[derive(Clone)]
struct Pair {
    step: Vec<f64>,
    change: Vec<f64>,
    inverse: f64,
}

impl Pair {
    fn new(step: Vec<f64>, change: Vec<f64>) -> Option<Self> {
        let product = dot(&step, &change);
        (product > 1e-12 * norm(&step) * norm(&change)).then(|| Self {
            step,
            change,
            inverse: 1.0 / product,
        })
    }
}

/// Minus the approximate inverse Hessian times the gradient, by the two-loop recursion.
fn direction(gradient: &[f64], pairs: &VecDeque<Pair>) -> Vec<f64> {
    let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut factors = Vec::with_capacity(pairs.len());
    for pair in pairs.iter().rev() {
        let factor = pair.inverse * dot(&pair.step, &q);
        add(&mut q, &pair.change, -factor);
        factors.push(factor);
    }
    if let Some(last) = pairs.back() {
        let scale = 1.0 / (last.inverse * dot(&last.change, &last.change));
        q.iter_mut().for_each(|q| *q *= scale);
    }
    for (pair, factor) in pairs.iter().zip(factors.iter().rev()) {
        let back = pair.inverse * dot(&pair.change, &q);
        add(&mut q, &pair.step, factor - back);
    }
    q
}

fn add(out: &mut [f64], x: &[f64], factor: f64) {
    out.iter_mut().zip(x).for_each(|(o, x)| *o += factor * x);
}

/// In four interleaved partial sums.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 4];
    let (a4, b4) = (a.chunks_exact(4), b.chunks_exact(4));
    let tail: f64 = a4
        .remainder()
        .iter()
        .zip(b4.remainder())
        .map(|(x, y)| x * y)
        .sum();
    for (x, y) in a4.zip(b4) {
        for lane in 0..4 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + tail
}

fn norm(x: &[f64]) -> f64 {
    dot(x, x).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quadratic_is_solved_exactly() {
        let (a, b) = (
            [[4.0, 1.0, 0.0], [1.0, 3.0, 0.5], [0.0, 0.5, 50.0]],
            [1.0, -2.0, 3.0],
        );
        let mut x = vec![0.0; 3];
        let stop = Stop {
            gradient: 1e-10,
            share: 0.0,
            steps: 100,
        };
        minimise(&mut x, &stop, &mut Curvature::default(), |x, gradient| {
            let ax: Vec<f64> = a.iter().map(|row| dot(row, x)).collect();
            for i in 0..3 {
                gradient[i] = ax[i] - b[i];
            }
            0.5 * dot(&ax, x) - dot(&b, x)
        });
        for (row, b) in a.iter().zip(b) {
            assert!((dot(row, &x) - b).abs() < 1e-9, "{x:?}");
        }
    }

    #[test]
    fn rosenbrocks_valley_is_followed_to_its_end() {
        let mut x = vec![-1.2, 1.0];
        let stop = Stop {
            gradient: 1e-9,
            share: 0.0,
            steps: 500,
        };
        let steps = minimise(&mut x, &stop, &mut Curvature::default(), |x, gradient| {
            let (a, b) = (1.0 - x[0], x[1] - x[0] * x[0]);
            gradient[0] = -2.0 * a - 400.0 * x[0] * b;
            gradient[1] = 200.0 * b;
            a * a + 100.0 * b * b
        });
        assert!(
            steps < 100 && (x[0] - 1.0).abs() < 1e-8 && (x[1] - 1.0).abs() < 1e-8,
            "{steps} {x:?}"
        );
    }
}
