//! The search for the coarsest mixture that keeps all gates, and what is told of it.

use std::path::Path;

use ssl_edge_bundle::{Bundle, QualityFigures, VariantFigures, WEIGHTS};
use ssl_edge_nn::infer::{EncoderWeights, Isa, PackedVit};

use super::blocks::BlockMixture;
use super::frames::{Frames, measured};
use super::graphs::Graph;
use super::measure::Bench;
use super::mixture::{LayerForms, Mixture, steps};
use super::model::IntMixture;
use super::report::{GateReport, LayerReport, QuantizeReport};
use super::yardstick::Yardstick;
use super::{Gate, QuantizeError, QuantizeOptions, Target};
use crate::onnx::{ActivationScales, OnnxForm, encoder_onnx_as};

/// Held-out frames that each layer is tried on alone.
const PROBES: usize = 8;

/// What the search needs.
pub(super) struct Work<'a> {
    pub(super) bench: Bench<'a>,
    target: Target,
    mixture: Box<dyn Mixture>,
    float: PackedVit,
    yardstick: Yardstick<'a>,
    /// Mean cosine that each layer costs alone in each precision that is not floating point, in the order of the mixture.
    losses: Vec<Vec<f64>>,
    calibration_frames: usize,
}

/// Where the search ended: with all gates kept, or with no more layers to give back.
pub(super) struct Found {
    /// Layers that went back to floating point.
    pub(super) float_layers: Vec<String>,
    pub(super) weights: EncoderWeights,
    /// The precision of each layer, in the order of the mixture.
    forms: Vec<usize>,
    quality: QualityFigures,
}

impl<'a> Work<'a> {
    /// Rounds every layer, after a calibration where the target wants one, and measures f32.
    pub(super) fn new(
        bench: Bench<'a>,
        weights: &EncoderWeights,
        options: &QuantizeOptions,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Self, QuantizeError> {
        let float = bench.pack(weights)?;
        let pooling = bench.manifest.pooling;
        let mut calibration_frames = 0;
        let (mixture, held_out): (Box<dyn Mixture>, Vec<f32>) = match options.target {
            Target::Int8 => {
                progress("choosing calibration frames");
                let frames = Frames::choose(
                    &options.calibrate,
                    options.frames.max(1),
                    bench.preprocess,
                    |input| Ok(bench.tokens(&float, input)?.feature(pooling)),
                )?;
                calibration_frames = frames.calibration.len() / bench.preprocess.len();
                progress(&format!("calibrating on {calibration_frames} frames"));
                let told = |block, of| progress(&format!("block {} of {of}", block + 1));
                let mixture = IntMixture::new(bench.config, weights, &frames.calibration, told)?;
                (Box::new(mixture), frames.held_out)
            }
            Target::Blocks(format) => {
                let mixture = BlockMixture::new(bench.config, weights, format)?;
                (
                    Box::new(mixture),
                    measured(&options.calibrate, bench.preprocess)?,
                )
            }
        };
        progress("measuring f32");
        let yardstick = Yardstick::new(
            (bench.preprocess, pooling),
            held_out,
            options.eval.as_deref(),
            options.parts.as_deref(),
            &|input| bench.tokens(&float, input),
        )?;
        progress("trying each layer alone");
        let mut work = Self {
            bench,
            target: options.target,
            mixture,
            float,
            yardstick,
            losses: Vec::new(),
            calibration_frames,
        };
        work.losses = work.losses()?;
        Ok(work)
    }

    fn losses(&self) -> Result<Vec<Vec<f64>>, QuantizeError> {
        let layers = self.mixture.layers();
        let float: Vec<usize> = layers.iter().map(LayerForms::float).collect();
        let alone = |layer: usize, form: usize| {
            let mut forms = float.clone();
            forms[layer] = form;
            let encoder = self.bench.pack(&self.mixture.weights(&forms))?;
            self.yardstick
                .loss(PROBES, &|input| self.bench.tokens(&encoder, input))
        };
        let all = float.iter().enumerate();
        all.map(|(layer, float)| (0..*float).map(|form| alone(layer, form)).collect())
            .collect()
    }

    /// What a layer costs alone in the precision that it has, or in the finest that is not floating point.
    fn loss(&self, layer: usize, form: usize) -> f64 {
        let losses = &self.losses[layer];
        losses[form.min(losses.len() - 1)]
    }

    /// The layer that costs most of those that are quantised, what it is in, and what it costs.
    pub(super) fn worst_layer(&self, found: &Found) -> (String, &'static str, f64) {
        let layers = self.mixture.layers().iter().zip(&found.forms).enumerate();
        let costs = layers.map(|(index, (layer, form))| {
            let is_quantised = *form < layer.float();
            (is_quantised, self.loss(index, *form), layer, *form)
        });
        let worst = costs.max_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        worst.map_or(
            ("none".to_owned(), "none", 0.0),
            |(_, loss, layer, form)| (layer.name.clone(), layer.precisions[form], loss),
        )
    }

    /// The coarsest mixture that keeps all gates, as layers take their steps one after another; the finest that is allowed where none does.
    pub(super) fn search(
        &self,
        gates: &[Gate],
        options: &QuantizeOptions,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Found, QuantizeError> {
        let layers = self.mixture.layers();
        let most = options.float_layers.unwrap_or(layers.len() / 4);
        let steps = steps(&self.losses, most);
        let mut forms = vec![0; layers.len()];
        let mut left = steps.iter();
        loop {
            let weights = self.mixture.weights(&forms);
            let encoder = self.bench.pack(&weights)?;
            let embed = |input: &[f32]| self.bench.tokens(&encoder, input);
            let mut quality = self.yardstick.nearness(&embed)?;
            let near = |gate: &&Gate| !gate.metric.is_loss() && !gate.holds(&quality);
            let mut failing = gates.iter().find(near);
            if failing.is_none() || left.len() == 0 {
                progress("scoring what verdicts become of it");
                self.yardstick.verdicts(&embed, &mut quality)?;
                failing = gates.iter().find(|gate| !gate.holds(&quality));
            }
            if let Some(gate) = failing
                && let Some(step) = left.next()
            {
                let layer = &layers[step.layer];
                let value = gate.metric.of(&quality).unwrap_or(f64::NAN);
                let (name, to) = (&layer.name, layer.precisions[step.to]);
                progress(&format!(
                    "{gate} is at {value:.6}; {name} goes back to {to}"
                ));
                forms[step.layer] = step.to;
                continue;
            }
            let float = layers.iter().zip(&forms);
            let float = float.filter(|(layer, form)| **form == layer.float());
            return Ok(Found {
                float_layers: float.map(|(layer, _)| layer.name.clone()).collect(),
                weights,
                forms,
                quality,
            });
        }
    }

    /// Everything that was measured of the mixture, but of no graph.
    pub(super) fn figures(&self, found: &Found) -> Result<VariantFigures, QuantizeError> {
        let encoder = self.bench.pack(&found.weights)?;
        let [ms, f32_ms] = self
            .bench
            .time([&encoder, &self.float], self.yardstick.frame())?;
        let memory = |encoder: &PackedVit| (encoder.weight_bytes() + encoder.work_bytes()) as u64;
        Ok(VariantFigures {
            quality: found.quality.clone(),
            bytes: self.target.encode(&found.weights)?.len() as u64,
            f32_bytes: self.bench.manifest.members[WEIGHTS].bytes,
            ms,
            f32_ms,
            threads: self.bench.threads as u64,
            isa: Isa::detect().name().to_owned(),
            memory: memory(&encoder),
            f32_memory: memory(&self.float),
            graphs: Vec::new(),
        })
    }

    /// The mixture as graphs, each measured beside f32. Where a graph with calibrated ranges keeps a gate only without ranges for the tokens that skip a
    /// branch, it has none.
    pub(super) fn graphs(
        &self,
        bundle: &Bundle,
        float: &EncoderWeights,
        found: &Found,
        gates: &[Gate],
        forms: &[OnnxForm],
        progress: &mut dyn FnMut(&str),
    ) -> Result<Vec<Graph>, QuantizeError> {
        let mut scales = self.mixture.scales(&found.forms);
        let mut graphs = Vec::new();
        for form in OnnxForm::ALL.iter().filter(|form| forms.contains(form)) {
            let weights = match form {
                OnnxForm::F16 => float,
                _ => &found.weights,
            };
            let measure = |scales: &ActivationScales| {
                let graph = encoder_onnx_as(self.bench.config, weights, scales, *form)?;
                Graph::measure(bundle, *form, graph, self.bench.threads, &self.yardstick)
            };
            progress(&format!("measuring {}", form.member()));
            let mut graph = measure(&scales)?;
            if *form == OnnxForm::Qdq && graph.fails(gates) {
                progress("a gate does not hold; tokens that skip a branch go back to f32");
                scales.retain(|name, _| !name.ends_with(".residual"));
                graph = measure(&scales)?;
                graph.figures.float_residuals = true;
            }
            graphs.push(graph);
        }
        Ok(graphs)
    }

    pub(super) fn report(
        &self,
        gates: &[Gate],
        found: &Found,
        figures: VariantFigures,
        out: &Path,
    ) -> QuantizeReport {
        let own = (self.target.name(), Some(&figures.quality));
        let graphs = figures.graphs.iter();
        let graphs = graphs.map(|graph| {
            let quality = graph.run.as_ref().map(|run| &run.quality);
            (graph.member.as_str(), quality)
        });
        let variants: Vec<_> = std::iter::once(own).chain(graphs).collect();
        let held = gates.iter().flat_map(|gate| {
            let of = |(name, quality): &(&str, Option<&QualityFigures>)| {
                GateReport::of(gate, name, *quality)
            };
            variants.iter().map(of).collect::<Vec<_>>()
        });
        QuantizeReport {
            path: out.to_owned(),
            precision: self.target.name(),
            written: None,
            calibration_frames: self.calibration_frames,
            gates: held.collect(),
            layers: self.layer_reports(&found.forms),
            class_names: self.yardstick.class_names(),
            figures,
        }
    }

    fn layer_reports(&self, forms: &[usize]) -> Vec<LayerReport> {
        let layers = self.mixture.layers().iter().zip(forms).enumerate();
        layers
            .map(|(index, (layer, form))| LayerReport {
                name: layer.name.clone(),
                precision: layer.precisions[*form],
                smoothing: layer.smoothing,
                error: layer.error,
                cosine_loss: self.loss(index, *form),
            })
            .collect()
    }
}
