//! The search for the mixture with the fewest f32 layers that keeps all gates, and what is told of it.

use std::path::Path;

use ssl_edge_bundle::{Bundle, QualityFigures, VariantFigures, WEIGHTS};
use ssl_edge_nn::infer::{EncoderWeights, Isa, PackedVit};
use ssl_edge_runtime::Precision;

use super::frames::Frames;
use super::graphs::Graph;
use super::measure::Bench;
use super::model::Mixture;
use super::report::{GateReport, LayerReport, QuantizeReport};
use super::yardstick::Yardstick;
use super::{Gate, QuantizeError, QuantizeOptions};
use crate::onnx::{ActivationScales, OnnxForm, encoder_onnx_as};

/// Held-out frames that each layer is tried on alone.
const PROBES: usize = 8;

/// What the search needs.
pub(super) struct Work<'a> {
    pub(super) bench: Bench<'a>,
    mixture: Mixture,
    float: PackedVit,
    yardstick: Yardstick<'a>,
    /// Mean cosine that each layer alone in int8 costs, in the order of the mixture.
    losses: Vec<f64>,
    calibration_frames: usize,
}

/// Where the search ended: with all gates kept, or with no more layers to give back.
pub(super) struct Found {
    /// Layers that went back to f32, the worst first.
    pub(super) float_layers: Vec<String>,
    pub(super) weights: EncoderWeights,
    quality: QualityFigures,
}

impl<'a> Work<'a> {
    /// Calibrates every layer and measures f32.
    pub(super) fn new(
        bench: Bench<'a>,
        weights: &EncoderWeights,
        options: &QuantizeOptions,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Self, QuantizeError> {
        let float = bench.pack(weights)?;
        let pooling = bench.manifest.pooling;
        progress("choosing calibration frames");
        let frames = Frames::choose(
            &options.calibrate,
            options.frames.max(1),
            bench.preprocess,
            |input| Ok(bench.tokens(&float, input)?.feature(pooling)),
        )?;
        let calibration_frames = frames.calibration.len() / bench.preprocess.len();
        progress(&format!("calibrating on {calibration_frames} frames"));
        let mixture = Mixture::new(bench.config, weights, &frames.calibration, |block, of| {
            progress(&format!("block {} of {of}", block + 1));
        })?;
        progress("measuring f32");
        let yardstick = Yardstick::new(
            (bench.preprocess, pooling),
            frames.held_out,
            options.eval.as_deref(),
            options.parts.as_deref(),
            &|input| bench.tokens(&float, input),
        )?;
        progress("trying each layer alone");
        let mut work = Self {
            bench,
            mixture,
            float,
            yardstick,
            losses: Vec::new(),
            calibration_frames,
        };
        work.losses = work.losses()?;
        Ok(work)
    }

    fn losses(&self) -> Result<Vec<f64>, QuantizeError> {
        let layers = self.mixture.layers.iter();
        layers
            .map(|(alone, _)| {
                let weights = self.mixture.weights(|name| name == alone);
                let encoder = self.bench.pack(&weights)?;
                self.yardstick
                    .loss(PROBES, &|input| self.bench.tokens(&encoder, input))
            })
            .collect()
    }

    /// Layers, the one that costs most first.
    fn by_loss(&self) -> Vec<(&str, f64)> {
        let names = self.mixture.layers.iter().map(|(name, _)| name.as_str());
        let mut order: Vec<(&str, f64)> = names.zip(self.losses.iter().copied()).collect();
        order.sort_by(|a, b| b.1.total_cmp(&a.1));
        order
    }

    /// The layer that costs most of those that are int8, and what it costs.
    pub(super) fn worst_layer(&self, found: &Found) -> (String, f64) {
        let order = self.by_loss();
        let worst = order.get(found.float_layers.len()).or(order.last());
        worst.map_or(("none".to_owned(), 0.0), |(name, loss)| {
            ((*name).to_owned(), *loss)
        })
    }

    /// The mixture with the fewest f32 layers that keeps all gates; with the most that are allowed where none does.
    pub(super) fn search(
        &self,
        gates: &[Gate],
        options: &QuantizeOptions,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Found, QuantizeError> {
        let order = self.by_loss();
        let most = options.float_layers.unwrap_or(order.len() / 4);
        let most = most.min(order.len());
        for returned in 0..=most {
            let back: Vec<&str> = order[..returned].iter().map(|(name, _)| *name).collect();
            let weights = self.mixture.weights(|name| !back.contains(&name));
            let encoder = self.bench.pack(&weights)?;
            let embed = |input: &[f32]| self.bench.tokens(&encoder, input);
            let mut quality = self.yardstick.nearness(&embed)?;
            let near = |gate: &&Gate| !gate.metric.is_loss() && !gate.holds(&quality);
            let mut failing = gates.iter().find(near);
            if failing.is_none() || returned == most {
                progress("scoring what verdicts become of it");
                self.yardstick.verdicts(&embed, &mut quality)?;
                failing = gates.iter().find(|gate| !gate.holds(&quality));
            }
            if let (Some(gate), true) = (failing, returned < most) {
                let value = gate.metric.of(&quality).unwrap_or(f64::NAN);
                let name = order[returned].0;
                progress(&format!("{gate} is at {value:.6}; {name} goes back to f32"));
                continue;
            }
            return Ok(Found {
                float_layers: back.into_iter().map(str::to_owned).collect(),
                weights,
                quality,
            });
        }
        unreachable!("the last round returns")
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
            bytes: found.weights.to_bytes()?.len() as u64,
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
        let is_int8 = |name: &str| !found.float_layers.iter().any(|layer| layer == name);
        let mut scales = self.mixture.scales(is_int8);
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
        let own = (Precision::Int8.name(), Some(&figures.quality));
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
            written: None,
            calibration_frames: self.calibration_frames,
            gates: held.collect(),
            layers: self.layer_reports(&found.float_layers),
            class_names: self.yardstick.class_names(),
            figures,
        }
    }

    fn layer_reports(&self, float_layers: &[String]) -> Vec<LayerReport> {
        let layers = self.mixture.layers.iter().zip(&self.losses);
        layers
            .map(|((name, pair), loss)| LayerReport {
                name: name.clone(),
                precision: if float_layers.contains(name) {
                    Precision::F32.name()
                } else {
                    Precision::Int8.name()
                },
                smoothing: pair.alpha,
                error: pair.error(),
                cosine_loss: *loss,
            })
            .collect()
    }
}
