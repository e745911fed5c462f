//! Weights of the resampling along one axis: antialiased Catmull-Rom (bicubic, a = -0.5, the BICUBIC of Pillow).

/// For each output sample the first input sample that it sees and the weights from there on.
#[derive(Default)]
pub(crate) struct Axis {
    input: u32,
    output: u32,
    taps: usize,
    starts: Vec<u32>,
    weights: Vec<f32>,
}

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
    #[inline(always)]
    pub(crate) fn windows(&self) -> impl Iterator<Item = (u32, &[f32])> {
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
                    assert!(start >= last && start as usize + weights.len() <= input as usize);
                    assert!((weights.iter().sum::<f32>() - 1.0).abs() < 1e-6);
                    last = start;
                }
            }
        }
        axis.set(9, 9);
        assert_eq!(axis.taps(), 1, "nothing is blurred at the same size");
    }
}
