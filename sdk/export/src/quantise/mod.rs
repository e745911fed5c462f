//! A variant of a bundle's encoder in another precision: measured beside f32, and written only if every gate holds.
//!
//! **Blocks** ([`Target::Blocks`]): the weights of linear layers are rounded to GGML's block formats, without calibration.
//!
//! **int8**: linear layers get int8 weights with one scale for each output; activations are quantised by the engine, one scale for each token. Before that
//! SmoothQuant's factors are folded into norms and values, the ranges of the weights are chosen by the error they make, and biases take out the mean
//! error.
//!
//! Where a gate does not hold, the layers that hurt most go to a finer precision, one after another, in the end to floating point.

mod blocks;
mod collect;
mod error;
mod frames;
mod gates;
mod graphs;
mod labelled;
mod measure;
mod mixture;
mod model;
mod page;
mod parts;
mod report;
mod search;
mod target;
mod work;
mod yardstick;

use std::path::{Path, PathBuf};

use ssl_edge_bundle::{Bundle, BundleWriter, Variant, VariantFigures, VariantSpec, WEIGHTS, save};
use ssl_edge_nn::VitConfig;
use ssl_edge_nn::infer::EncoderWeights;
use ssl_edge_runtime::{Encoder, Options, vit_config};

pub use error::{GateFailure, QuantizeError};
pub use gates::{Gate, GateMetric};
pub use report::{GateReport, LayerReport, QuantizeReport, Written};
pub use target::Target;

use crate::onnx::{ActivationScales, OnnxForm, encoder_onnx_as};
use gates::Needs;
use measure::Bench;
use work::Work;

/// Largest difference of a quantised graph's embedding from the golden f32 one that can still be the same encoder; gates say what is good enough.
const TOLERANCE_OF_GRAPHS: f32 = 0.1;

/// How to quantise.
#[derive(Debug, Clone)]
pub struct QuantizeOptions {
    /// What to quantise to.
    pub target: Target,
    /// Folder of unlabelled frames, searched recursively: to calibrate with where the target wants that, and to measure on.
    pub calibrate: PathBuf,
    /// Frames to calibrate with, chosen for variety.
    pub frames: usize,
    /// Folder of class folders to measure accuracy on.
    pub eval: Option<PathBuf>,
    /// Folder of a folder `good` and others with bad parts, to measure detection from good parts alone on.
    pub parts: Option<PathBuf>,
    /// Gates beside [`Gate::DEFAULT`], or instead of the one with the same figure.
    pub gates: Vec<Gate>,
    /// Linear layers that may go back to floating point; `None` for a quarter of them.
    pub float_layers: Option<usize>,
    /// ONNX graphs to put beside it, as members of their own; with int8 only.
    pub onnx: Vec<OnnxForm>,
    /// Threads that embed and are timed; 0 for one for each CPU.
    pub threads: usize,
}

impl QuantizeOptions {
    /// 128 frames of a folder, the default gates, no labelled frames.
    pub fn new(target: Target, calibrate: &Path) -> Self {
        Self {
            target,
            calibrate: calibrate.to_owned(),
            frames: 128,
            eval: None,
            parts: None,
            gates: Vec::new(),
            float_layers: None,
            onnx: Vec::new(),
            threads: 0,
        }
    }
}

/// Adds a variant to `bundle` and writes the result to `out`; `progress` gets lines for people.
///
/// One of the same precision that was there is replaced, others stay. Features of the f32 encoder, and jobs taught on them, stay valid.
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
    check_needs(&gates, options)?;
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
    let weights = EncoderWeights::from_bytes(&bundle.member(WEIGHTS)?)?;
    let bench = Bench {
        manifest: bundle.manifest(),
        config: &config,
        preprocess: &preprocess,
        threads,
    };
    let work = Work::new(bench, &weights, options, progress)?;
    let found = work.search(&gates, options, progress)?;
    let graphs = work.graphs(bundle, &weights, &found, &gates, &options.onnx, progress)?;
    let mut figures = work.figures(&found)?;
    figures.graphs = graphs.iter().map(|graph| graph.figures.clone()).collect();
    let mut report = work.report(&gates, &found, figures.clone(), out);
    if let Some(failed) = report.gates.iter().find(|gate| gate.holds == Some(false)) {
        let (layer, precision, loss) = work.worst_layer(&found);
        return Err(QuantizeError::Gate(Box::new(GateFailure {
            path: out.to_owned(),
            target: options.target,
            variant: failed.variant.clone(),
            gate: failed.gate.clone(),
            value: failed.value.unwrap_or(f64::NAN),
            layer,
            precision,
            loss,
            float_layers: found.float_layers.len(),
            report,
        })));
    }
    let golden = work.bench.golden(bundle, &found.weights)?;
    let told = (found.float_layers, Some(figures));
    let members = graphs.into_iter().map(|g| (g.figures.member, g.bytes));
    let made = (options.target, &found.weights);
    let (finished, encoder) = assemble(bundle, made, golden, told, members.collect(), out)?;
    save(out, &finished.to_bytes()?)?;
    report.written = Some(Written {
        bytes: finished.size(),
        encoder_hash: encoder.hash(),
    });
    Ok(report)
}

/// Whether every gate has the frames that it is measured on, and graphs the layers that they are made of.
fn check_needs(gates: &[Gate], options: &QuantizeOptions) -> Result<(), QuantizeError> {
    if options.target != Target::Int8 && !options.onnx.is_empty() {
        let precision = options.target.name();
        return Err(QuantizeError::Graphs { precision });
    }
    for gate in gates {
        let needs = match gate.metric.needs() {
            Needs::Labels if options.eval.is_none() => {
                "labelled frames; name a folder of class folders with --eval"
            }
            Needs::Parts if options.parts.is_none() => {
                "good and bad parts; name a folder with a folder good and others with --parts"
            }
            _ => continue,
        };
        let gate = gate.to_string();
        return Err(QuantizeError::Unmeasured { gate, needs });
    }
    Ok(())
}

/// A variant by rounding alone, without frames, figures or gates, with int8 also its graph in the dynamic integer form: enough to measure time, not to
/// be used.
///
/// # Errors
/// As [`quantize`].
pub fn round_to(target: Target, bundle: &Bundle, out: &Path) -> Result<(), QuantizeError> {
    let options = Options::default();
    let preprocess = Encoder::from_bundle(bundle, &options)?.preprocess().clone();
    let config = config(bundle)?;
    let bench = Bench {
        manifest: bundle.manifest(),
        config: &config,
        preprocess: &preprocess,
        threads: 1,
    };
    let weights = EncoderWeights::from_bytes(&bundle.member(WEIGHTS)?)?;
    let weights = target.round(&config, &weights)?;
    let golden = bench.golden(bundle, &weights)?;
    let mut graphs = Vec::new();
    if target == Target::Int8 {
        let form = OnnxForm::Dynamic;
        let graph = encoder_onnx_as(&config, &weights, &ActivationScales::new(), form)?;
        graphs.push((form.member().to_owned(), graph));
    }
    let (told, made) = ((Vec::new(), None), (target, &weights));
    let (finished, _) = assemble(bundle, made, golden, told, graphs, out)?;
    Ok(save(out, &finished.to_bytes()?)?)
}

/// The bundle with the variant, after it has reproduced its golden vectors.
fn assemble(
    bundle: &Bundle,
    (target, weights): (Target, &EncoderWeights),
    golden_vectors: Vec<u8>,
    (float_layers, figures): (Vec<String>, Option<VariantFigures>),
    graphs: Vec<(String, Vec<u8>)>,
    out: &Path,
) -> Result<(Bundle, Encoder), QuantizeError> {
    let mut writer = BundleWriter::of(bundle)?;
    writer
        .variants
        .retain(|variant| variant.name != target.name());
    if target == Target::Int8 {
        let stale = |name: &str| OnnxForm::ALL.iter().any(|form| form.member() == name);
        writer.extra.retain(|(name, _)| !stale(name));
        writer.extra.extend(graphs);
    }
    writer.variants.push(Variant {
        name: target.name().to_owned(),
        weights: target.encode(weights)?,
        golden_vectors,
        spec: VariantSpec {
            weights: String::new(),
            golden: String::new(),
            tolerance: target.tolerance(),
            float_layers,
            figures,
        },
    });
    let finished = Bundle::from_bytes(out, writer.to_bytes(out)?)?;
    let options = Options {
        precision: target.precision(),
        ..Options::default()
    };
    let encoder = Encoder::from_bundle(&finished, &options)?;
    Ok((finished, encoder))
}

fn config(bundle: &Bundle) -> Result<VitConfig, QuantizeError> {
    let Some(arch) = bundle.manifest().arch() else {
        return Err(QuantizeError::Manifest {
            path: bundle.path().to_owned(),
            reason: "it is an imported graph; quantise the graph before it is imported".to_owned(),
        });
    };
    Ok(vit_config(arch))
}
