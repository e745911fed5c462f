//! Weights of the resampling along one axis: antialiased Catmull-Rom (bicubic, a = -0.5, the BICUBIC of Pillow).

use crate::scale::integer::Fixed;

/// For each output sample the first input sample that it sees and the weights from there on.
#[derive(Default)]
pub(crate) struct Axis {
    input: u32,
    output: u32,
    taps: usize,
    starts: Vec<u32>,
    weights: Vec<f32>,
    fixed: Vec<[i16; 2]>,
    /// Bits after the point of a fixed weight; `None` where it would need too many.
    bits: Option<i32>,
}

/// Weights of one output sample.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub(crate) exact: &'a [f32],
    /// The same in fixed point, unless the input is so much larger than the output that it would be coarse.
    pub(crate) fixed: Option<Fixed<'a>>,
}

/// With more bits after the point a sum of 8-bit samples would not fit into 32 bit.
const MAX_BITS: i32 = 22;
/// Largest fixed weight: room for the difference that makes the weights sum to one.
const MAX_FIXED: f64 = 32_000.0;

impl Axis {
    /// Makes the weights from `input` to `output` samples, unless they are there already.
    pub(crate) fn set(&mut self, input: u32, output: u32) {
        if (self.input, self.output) == (input, output) {
            return;
        }
        (self.input, self.output) = (input, output);
        let mut windows: Vec<Window> = (0..output).map(|o| Window::new(o, input, output)).collect();
        // No window begins before the one above it, so that rows can be forgotten.
        for o in (1..windows.len()).rev() {
            windows[o - 1].start = windows[o - 1].start.min(windows[o].start);
        }
        let used = windows.iter().map(|window| window.end - window.start).max();
        self.taps = used.unwrap_or(1) as usize;
        self.starts.clear();
        self.weights.clear();
        self.weights.resize(output as usize * self.taps, 0.0);
        for (window, weights) in windows.iter().zip(self.weights.chunks_exact_mut(self.taps)) {
            let start = window.start.min(input - self.taps as u32);
            let norm: f64 = (window.start..window.end).map(|i| window.weight(i)).sum();
            for i in window.start..window.end {
                weights[(i - start) as usize] = (window.weight(i) / norm) as f32;
            }
            self.starts.push(start);
        }
        self.set_fixed();
    }

    fn set_fixed(&mut self) {
        let largest = self
            .weights
            .iter()
            .fold(0.0, |max: f32, w| max.max(w.abs()));
        let bits = (MAX_FIXED / f64::from(largest)).log2().floor() as i32;
        self.bits = (bits <= MAX_BITS).then_some(bits);
        self.fixed.clear();
        let one = 2f64.powi(bits);
        for weights in self.weights.chunks_exact(self.taps) {
            let mut fixed = vec![0i16; self.taps.next_multiple_of(2)];
            let mut missing = one as i64;
            for (fixed, weight) in fixed.iter_mut().zip(weights) {
                *fixed = (f64::from(*weight) * one).round() as i16;
                missing -= i64::from(*fixed);
            }
            if let Some(most) = fixed.iter_mut().max_by_key(|weight| **weight) {
                *most += missing as i16;
            }
            self.fixed.extend(fixed.as_chunks::<2>().0);
        }
    }

    /// Output samples.
    pub(crate) fn len(&self) -> usize {
        self.output as usize
    }

    /// Most input samples that an output sample sees.
    pub(crate) fn taps(&self) -> usize {
        self.taps
    }

    /// For each output sample its first input sample, which never goes back, and [`taps`](Self::taps) weights, of which the outer ones may be zero.
    pub(crate) fn windows(&self) -> impl Iterator<Item = (u32, Weights<'_>)> {
        let pairs = self.fixed.chunks_exact(self.taps.div_ceil(2).max(1));
        let weights = self.exact_windows().zip(pairs);
        weights.map(|((start, exact), pairs)| {
            let fixed = self.bits.map(|bits| Fixed {
                weights: pairs,
                taps: self.taps,
                unit: 2f32.powi(-bits),
            });
            (start, Weights { exact, fixed })
        })
    }

    /// The same without fixed point.
    #[inline(always)]
    pub(crate) fn exact_windows(&self) -> impl Iterator<Item = (u32, &[f32])> {
        let weights = self.weights.chunks_exact(self.taps.max(1));
        self.starts.iter().copied().zip(weights)
    }
}

/// Input samples from the first to the last whose weight is not zero.
struct Window {
    centre: f64,
    stretch: f64,
    start: u32,
    end: u32,
}

impl Window {
    fn new(output_idx: u32, input: u32, output: u32) -> Self {
        let scale = f64::from(input) / f64::from(output);
        let mut window = Self {
            centre: (f64::from(output_idx) + 0.5) * scale,
            stretch: scale.max(1.0),
            start: 0,
            end: input,
        };
        let reach = 2.0 * window.stretch;
        window.start = (window.centre - reach).floor().max(0.0) as u32;
        window.end = ((window.centre + reach).ceil() as u32).min(input);
        while window.weight(window.start) == 0.0 {
            window.start += 1;
        }
        while window.weight(window.end - 1) == 0.0 {
            window.end -= 1;
        }
        window
    }

    fn weight(&self, i: u32) -> f64 {
        let x = ((f64::from(i) + 0.5 - self.centre) / self.stretch).abs();
        match x {
            x if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            x if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            _ => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_sum_to_one_and_windows_go_forward_inside_the_input() {
        let mut axis = Axis::default();
        for input in 1..40 {
            for output in 1..60 {
                axis.set(input, output);
                assert_eq!(
                    (axis.len(), axis.windows().count()),
                    (output as usize, output as usize)
                );
                let mut last = 0;
                for (start, weights) in axis.windows() {
                    let exact = weights.exact;
                    assert!(start >= last && start as usize + exact.len() <= input as usize);
                    assert!((exact.iter().sum::<f32>() - 1.0).abs() < 1e-6);
                    let fixed = weights.fixed.expect("the scale is small");
                    let values = fixed.weights.as_flattened().iter();
                    let sum: i32 = values.clone().map(|w| i32::from(*w)).sum();
                    assert_eq!(sum as f32 * fixed.unit, 1.0);
                    for (fixed_weight, weight) in values.zip(exact) {
                        assert!((f32::from(*fixed_weight) * fixed.unit - weight).abs() < 2e-4);
                    }
                    last = start;
                }
            }
        }
        axis.set(60_000, 3);
        assert!(axis.windows().all(|(_, weights)| weights.fixed.is_none()));
        axis.set(9, 9);
        assert_eq!(axis.taps(), 1, "nothing is blurred at the same size");
    }
}
