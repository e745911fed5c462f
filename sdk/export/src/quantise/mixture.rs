//! An encoder whose linear layers each come in several precisions, and the steps by which layers go to finer ones.

use ssl_edge_nn::infer::EncoderWeights;

use crate::onnx::ActivationScales;

/// A linear layer and the precisions that it may have.
pub(super) struct LayerForms {
    /// Such as `blocks.0.attn.qkv`.
    pub(super) name: String,
    /// Coarsest first; the last is floating point, all before it are not.
    pub(super) precisions: Vec<&'static str>,
    /// Relative squared error in the coarsest: of its output on the calibration frames, or of its weight where there are none.
    pub(super) error: f64,
    /// α of the smoothing of its inputs.
    pub(super) smoothing: Option<f32>,
}

/// Every linear layer in every precision that it may have, and all other tensors.
pub(super) trait Mixture {
    /// The layers, first to last.
    fn layers(&self) -> &[LayerForms];

    /// The encoder in which each layer has the precision of that index.
    fn weights(&self, forms: &[usize]) -> EncoderWeights;

    /// Scales of all activations that a graph with calibrated ranges needs, where there was a calibration.
    fn scales(&self, _forms: &[usize]) -> ActivationScales {
        ActivationScales::new()
    }
}

/// A layer that goes to the next finer precision.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Step {
    pub(super) layer: usize,
    /// Index of the finer precision.
    pub(super) to: usize,
    /// Mean cosine that it is expected to give back.
    pub(super) gain: f64,
}

impl LayerForms {
    /// Index of floating point.
    pub(super) fn float(&self) -> usize {
        self.precisions.len() - 1
    }
}

/// All steps, the one that gives most first; `losses` are the mean cosines that each layer costs alone in each precision but the last. A layer takes its
/// steps in their order, and at most `most_float` layers go to floating point.
pub(super) fn steps(losses: &[Vec<f64>], most_float: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    for (layer, losses) in losses.iter().enumerate() {
        let mut limit = f64::INFINITY;
        for (form, loss) in losses.iter().enumerate() {
            let finer = losses.get(form + 1).copied().unwrap_or(0.0);
            // Measured on few frames, a later step can seem to give more than the one before it.
            limit = limit.min(loss - finer);
            steps.push(Step {
                layer,
                to: form + 1,
                gain: limit,
            });
        }
    }
    steps.sort_by(|a, b| b.gain.total_cmp(&a.gain));
    let mut float = 0;
    steps.retain(|step| {
        let goes_to_float = step.to == losses[step.layer].len();
        float += usize::from(goes_to_float);
        !goes_to_float || float <= most_float
    });
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_taken_in_order_of_what_they_give_and_few_end_in_floating_point() {
        let losses = vec![vec![0.5, 0.1], vec![0.3], vec![0.2, 0.15], vec![0.05]];
        let order = |most| -> Vec<(usize, usize)> {
            let steps = steps(&losses, most).into_iter();
            steps.map(|step| (step.layer, step.to)).collect()
        };
        let all = [(0, 1), (1, 1), (0, 2), (2, 1), (2, 2), (3, 1)];
        assert_eq!(order(9), all);
        assert_eq!(order(2), all[..4]);
        assert_eq!(order(0), [(0, 1), (2, 1)]);
        let noisy = steps(&[vec![1e-6, 3e-6], vec![2e-6]], 2);
        let order: Vec<_> = noisy.iter().map(|step| (step.layer, step.to)).collect();
        assert_eq!(
            order,
            [(1, 1), (0, 1), (0, 2)],
            "a layer's first step comes first"
        );
    }
}
