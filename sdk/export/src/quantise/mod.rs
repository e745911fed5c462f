//! An int8 variant of a bundle's encoder: calibrated, measured beside f32, and written only if every gate holds.
//!
//! Linear layers get int8 weights with one scale for each output; activations are quantised by the engine, one scale for each token. Before that
//! SmoothQuant's factors are folded into norms and values, the ranges of the weights are chosen by the error they make, and biases take out the mean
//! error. Where a gate does not hold, the layers that hurt most go back to f32, one after another.

mod collect;
mod error;
mod frames;
mod gates;
mod measure;
mod model;
mod report;
mod search;

use std::path::{Path, PathBuf};

use ssl_edge_bundle::{Bundle, BundleWriter, Variant, VariantFigures, VariantSpec, WEIGHTS, save};
use ssl_edge_nn::infer::{EncoderWeights, Isa, PackedVit};
use ssl_edge_nn::{Gelu, VitConfig};
use ssl_edge_runtime::{Encoder, Options, Precision};

pub use error::QuantizeError;
pub use gates::{Gate, GateMetric};
pub use report::{GateReport, LayerReport, QuantizeReport};

use crate::onnx::{ActivationScales, OnnxForm, encoder_onnx_as};
use frames::Frames;
use measure::{Bench, Labelled, cosines};
use model::Mixture;

/// Largest difference of an int8 embedding from the golden one. Kernels differ in no bit where products are fused; where they are not, values on the
/// edge between two steps fall on either side, and the embedding of a trained encoder moves by up to 1e-3.
const TOLERANCE: f32 = 5e-3;
/// Held-out frames that each layer is tried on alone.
const PROBES: usize = 8;

/// How to quantise.
#[derive(Debug, Clone)]
pub struct QuantizeOptions {
    /// Folder of unlabelled frames, searched recursively.
    pub calibrate: PathBuf,
    /// Frames to calibrate with, chosen for variety.
    pub frames: usize,
    /// Folder of class folders to measure accuracy on.
    pub eval: Option<PathBuf>,
    /// Gates beside [`Gate::DEFAULT`], or instead of the one with the same figure.
    pub gates: Vec<Gate>,
    /// Linear layers that may go back to f32; `None` for a quarter of them.
    pub float_layers: Option<usize>,
    /// ONNX graphs to put beside it, as members of their own.
    pub onnx: Vec<OnnxForm>,
    /// Threads that embed and are timed; 0 for one for each CPU.
    pub threads: usize,
}

impl QuantizeOptions {
    /// 128 frames of a folder, the default gates, no labelled frames.
    pub fn new(calibrate: &Path) -> Self {
        Self {
            calibrate: calibrate.to_owned(),
            frames: 128,
            eval: None,
            gates: Vec::new(),
            float_layers: None,
            onnx: Vec::new(),
            threads: 0,
        }
    }
}

/// Adds an int8 variant to `bundle` and writes the result to `out`; `progress` gets lines for people.
///
/// An int8 variant that was there is replaced. Features of the f32 encoder, and jobs taught on them, stay valid.
///
/// # Errors
/// [`QuantizeError`]; a file that was at `out` is then unchanged.
pub fn quantize(
    bundle: &Bundle,
    options: &QuantizeOptions,
    out: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<QuantizeReport, QuantizeError> {
    let gates = Gate::with_defaults(&options.gates);
    if let (Some(gate), None) = (
        gates.iter().find(|g| g.metric.needs_labels()),
        &options.eval,
    ) {
        return Err(QuantizeError::NoLabels {
            gate: gate.to_string(),
        });
    }
    let threads = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let config = config(bundle)?;
    // Opening runs the golden vectors, so a damaged encoder does not get here.
    let float_options = Options {
        threads,
        ..Options::default()
    };
    let preprocess = Encoder::from_bundle(bundle, &float_options)?
        .preprocess()
        .clone();
    let weights = EncoderWeights::from_bytes(bundle.member(WEIGHTS).unwrap_or_default())?;
    let bench = Bench {
        manifest: bundle.manifest(),
        config: &config,
        preprocess: &preprocess,
        threads,
    };
    let work = Work::new(bench, &weights, options, progress)?;
    let (float_layers, int8, figures) = work.search(&gates, options, out, progress)?;

    let figures = VariantFigures {
        bytes: int8.to_bytes()?.len() as u64,
        ..figures
    };
    let golden = work.bench.golden(bundle, &int8)?;
    let told = (float_layers.clone(), Some(figures.clone()));
    let graphs = work.graphs(&weights, &int8, &float_layers, &options.onnx)?;
    let (finished, encoder) = assemble(bundle, &int8, golden, told, graphs, out)?;
    save(out, finished.as_bytes())?;
    Ok(QuantizeReport {
        path: out.to_owned(),
        bytes: finished.as_bytes().len() as u64,
        encoder_hash: encoder.hash(),
        layers: work.layer_reports(&float_layers),
        calibration_frames: work.calibration_frames,
        gates: gates
            .iter()
            .map(|gate| GateReport::of(gate, &figures))
            .collect(),
        figures,
    })
}

/// An int8 variant by rounding alone, without frames, figures or gates, and its graph in the dynamic integer form: enough to measure time, not to be
/// used.
///
/// # Errors
/// As [`quantize`].
pub fn round_to_int8(bundle: &Bundle, out: &Path) -> Result<(), QuantizeError> {
    let options = Options::default();
    let preprocess = Encoder::from_bundle(bundle, &options)?.preprocess().clone();
    let config = config(bundle)?;
    let bench = Bench {
        manifest: bundle.manifest(),
        config: &config,
        preprocess: &preprocess,
        threads: 1,
    };
    let mut weights = EncoderWeights::from_bytes(bundle.member(WEIGHTS).unwrap_or_default())?;
    for layer in EncoderWeights::layer_names(&config) {
        if let Some(stored) = weights.0.get_mut(&format!("{layer}.weight")) {
            *stored = search::rounded(stored);
        }
    }
    let golden = bench.golden(bundle, &weights)?;
    let form = OnnxForm::Dynamic;
    let graph = encoder_onnx_as(&config, &weights, &ActivationScales::new(), form)?;
    let (finished, _) = assemble(
        bundle,
        &weights,
        golden,
        (Vec::new(), None),
        vec![(form.member().to_owned(), graph)],
        out,
    )?;
    Ok(save(out, finished.as_bytes())?)
}

/// The bundle with the variant, after it has reproduced its golden vectors.
fn assemble(
    bundle: &Bundle,
    int8: &EncoderWeights,
    golden_vectors: Vec<u8>,
    (float_layers, figures): (Vec<String>, Option<VariantFigures>),
    graphs: Vec<(String, Vec<u8>)>,
    out: &Path,
) -> Result<(Bundle, Encoder), QuantizeError> {
    let name = Precision::Int8.name();
    let mut writer = BundleWriter::of(bundle);
    writer.variants.retain(|variant| variant.name != name);
    let stale = |name: &str| OnnxForm::ALL.iter().any(|form| form.member() == name);
    writer.extra.retain(|(name, _)| !stale(name));
    writer.extra.extend(graphs);
    writer.variants.push(Variant {
        name: name.to_owned(),
        weights: int8.to_bytes()?,
        golden_vectors,
        spec: VariantSpec {
            weights: String::new(),
            golden: String::new(),
            tolerance: TOLERANCE,
            float_layers,
            figures,
        },
    });
    let finished = Bundle::from_bytes(out, writer.to_bytes(out)?)?;
    let options = Options {
        precision: Precision::Int8,
        ..Options::default()
    };
    let encoder = Encoder::from_bundle(&finished, &options)?;
    Ok((finished, encoder))
}

/// What the search for a mixture needs.
struct Work<'a> {
    bench: Bench<'a>,
    mixture: Mixture,
    float: PackedVit,
    held_out: Vec<f32>,
    /// Features of the held-out frames in f32.
    want: Vec<Vec<f32>>,
    float_labelled: Option<(PathBuf, Labelled)>,
    /// Mean cosine that each layer alone in int8 costs, in the order of the mixture.
    losses: Vec<f64>,
    float_bytes: u64,
    calibration_frames: usize,
}

impl<'a> Work<'a> {
    fn new(
        bench: Bench<'a>,
        weights: &EncoderWeights,
        options: &QuantizeOptions,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Self, QuantizeError> {
        let float = bench.pack(weights)?;
        progress("choosing calibration frames");
        let frames = Frames::choose(
            &options.calibrate,
            options.frames.max(1),
            bench.preprocess,
            |input| bench.feature(&float, input),
        )?;
        let calibration_frames = frames.calibration.len() / bench.preprocess.len();
        progress(&format!("calibrating on {calibration_frames} frames"));
        let mixture = Mixture::new(bench.config, weights, &frames.calibration, |block, of| {
            progress(&format!("block {} of {of}", block + 1));
        })?;
        let want = bench.features(&float, &frames.held_out)?;
        let float_labelled = options
            .eval
            .as_ref()
            .map(|folder| Ok::<_, QuantizeError>((folder.clone(), bench.labelled(&float, folder)?)))
            .transpose()?;
        progress("trying each layer alone");
        let mut work = Self {
            float_bytes: bench.manifest.members[WEIGHTS].bytes,
            bench,
            mixture,
            float,
            held_out: frames.held_out,
            want,
            float_labelled,
            losses: Vec::new(),
            calibration_frames,
        };
        work.losses = work.losses()?;
        Ok(work)
    }

    fn losses(&self) -> Result<Vec<f64>, QuantizeError> {
        let probes = PROBES.min(self.want.len());
        let inputs = &self.held_out[..probes * self.bench.preprocess.len()];
        let layers = self.mixture.layers.iter();
        layers
            .map(|(alone, _)| {
                let encoder = self
                    .bench
                    .pack(&self.mixture.weights(|name| name == alone))?;
                let found = self.bench.features(&encoder, inputs)?;
                Ok(1.0 - cosines(&found, &self.want[..probes]).0)
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

    /// The mixture with the fewest f32 layers that keeps all gates.
    fn search(
        &self,
        gates: &[Gate],
        options: &QuantizeOptions,
        out: &Path,
        progress: &mut dyn FnMut(&str),
    ) -> Result<(Vec<String>, EncoderWeights, VariantFigures), QuantizeError> {
        let order = self.by_loss();
        let most = options
            .float_layers
            .unwrap_or(order.len() / 4)
            .min(order.len());
        for returned in 0..=most {
            let back: Vec<&str> = order[..returned].iter().map(|(name, _)| *name).collect();
            let weights = self.mixture.weights(|name| !back.contains(&name));
            let encoder = self.bench.pack(&weights)?;
            let mut figures = self.figures(&encoder)?;
            let cheap = |gate: &&Gate| !gate.metric.needs_labels() && !gate.holds(&figures);
            let mut failing = gates.iter().find(cheap);
            if let (None, Some((folder, float))) = (failing, &self.float_labelled) {
                progress("scoring the labelled frames");
                figures.scores = self.bench.labelled(&encoder, folder)?.beside(float)?;
                failing = gates.iter().find(|gate| !gate.holds(&figures));
            }
            let Some(gate) = failing else {
                let back = back.into_iter().map(str::to_owned).collect();
                return Ok((back, weights, figures));
            };
            let value = gate.metric.of(&figures).unwrap_or(f64::NAN);
            let worst = order.get(returned).or(order.last());
            if returned == most {
                return Err(QuantizeError::Gate {
                    path: out.to_owned(),
                    gate: gate.to_string(),
                    value,
                    layer: worst.map_or("none", |(name, _)| name).to_owned(),
                    loss: worst.map_or(0.0, |(_, loss)| *loss),
                    float_layers: returned,
                });
            }
            let (name, _) = order[returned];
            progress(&format!("{gate} is at {value:.6}; {name} goes back to f32"));
        }
        unreachable!("the last round returns")
    }

    fn figures(&self, encoder: &PackedVit) -> Result<VariantFigures, QuantizeError> {
        let found = self.bench.features(encoder, &self.held_out)?;
        let (cosine_mean, cosine_worst) = cosines(&found, &self.want);
        let input = &self.held_out[..self.bench.preprocess.len()];
        let [ms, f32_ms] = self.bench.time([encoder, &self.float], input)?;
        let memory = |encoder: &PackedVit| (encoder.weight_bytes() + encoder.work_bytes()) as u64;
        Ok(VariantFigures {
            frames: self.want.len() as u64,
            cosine_mean,
            cosine_worst,
            scores: Vec::new(),
            bytes: 0,
            f32_bytes: self.float_bytes,
            ms,
            f32_ms,
            threads: self.bench.threads as u64,
            isa: Isa::detect().name().to_owned(),
            memory: memory(encoder),
            f32_memory: memory(&self.float),
        })
    }

    fn graphs(
        &self,
        float: &EncoderWeights,
        int8: &EncoderWeights,
        float_layers: &[String],
        forms: &[OnnxForm],
    ) -> Result<Vec<(String, Vec<u8>)>, QuantizeError> {
        let is_int8 = |name: &str| !float_layers.iter().any(|layer| layer == name);
        let scales = self.mixture.scales(is_int8);
        let all = OnnxForm::ALL.iter().filter(|form| forms.contains(form));
        all.map(|form| {
            let weights = match form {
                OnnxForm::F16 => float,
                _ => int8,
            };
            let graph = encoder_onnx_as(self.bench.config, weights, &scales, *form)?;
            Ok((form.member().to_owned(), graph))
        })
        .collect()
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

fn config(bundle: &Bundle) -> Result<VitConfig, QuantizeError> {
    let Some(arch) = bundle.manifest().arch() else {
        return Err(QuantizeError::Manifest {
            path: bundle.path().to_owned(),
            reason: "it is an imported graph; quantise the graph before it is imported".to_owned(),
        });
    };
    Ok(VitConfig {
        dim: arch.dim,
        depth: arch.depth,
        heads: arch.heads,
        patch: arch.patch,
        registers: arch.registers,
        mlp_ratio: arch.mlp_ratio,
        image_size: arch.image_size,
        gelu: if arch.gelu == "erf" {
            Gelu::Erf
        } else {
            Gelu::Tanh
        },
        eps: arch.eps,
    })
}
