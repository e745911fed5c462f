//! The ONNX graphs of a variant: written, and run through tract beside f32 where this build has it.

use std::path::Path;
use std::time::Instant;

use ssl_edge_bundle::{Bundle, BundleWriter, GoldenSpec, GraphFigures, GraphRun};
use ssl_edge_runtime::{Embedding, Encoder, EngineKind, Options};

use super::measure::median;
use super::yardstick::Yardstick;
use super::{Gate, QuantizeError, TOLERANCE_OF_GRAPHS};
use crate::onnx::OnnxForm;

const RUNS: usize = 5;

/// A member and what was measured of it.
pub(super) struct Graph {
    pub(super) bytes: Vec<u8>,
    pub(super) figures: GraphFigures,
}

impl Graph {
    /// Whether it was run and a gate does not hold.
    pub(super) fn fails(&self, gates: &[Gate]) -> bool {
        let run = self.figures.run.as_ref();
        run.is_some_and(|run| gates.iter().any(|gate| !gate.holds(&run.quality)))
    }

    /// Runs a graph of `form` on everything that the variant was measured on.
    ///
    /// # Errors
    /// Frames that cannot be read. A graph that does not run is a figure, not an error.
    pub(super) fn measure(
        bundle: &Bundle,
        form: OnnxForm,
        bytes: Vec<u8>,
        threads: usize,
        yardstick: &Yardstick<'_>,
    ) -> Result<Self, QuantizeError> {
        let mut figures = GraphFigures {
            member: form.member().to_owned(),
            bytes: bytes.len() as u64,
            float_residuals: false,
            run: None,
            not_run: None,
        };
        if !EngineKind::available().contains(&EngineKind::Onnx) {
            figures.not_run = Some("this build has no ONNX engine (feature onnx)".to_owned());
            return Ok(Self { bytes, figures });
        }
        match open(bundle, &bytes, threads) {
            Ok(encoder) => figures.run = Some(run(&encoder, yardstick)?),
            Err(error) => figures.not_run = Some(error.to_string()),
        }
        Ok(Self { bytes, figures })
    }
}

/// The bundle with this graph in the place of its own.
fn open(bundle: &Bundle, graph: &[u8], threads: usize) -> Result<Encoder, QuantizeError> {
    let path = Path::new("graph.sslb");
    let mut writer = BundleWriter::of(bundle)?;
    writer.onnx = graph.to_vec();
    writer.golden = GoldenSpec {
        tolerance: TOLERANCE_OF_GRAPHS,
        ..writer.golden
    };
    let bundle = Bundle::from_bytes(path, writer.to_bytes(path)?)?;
    let options = Options {
        engine: EngineKind::Onnx,
        threads,
        ..Options::default()
    };
    Ok(Encoder::from_bundle(&bundle, &options)?)
}

fn run(encoder: &Encoder, yardstick: &Yardstick<'_>) -> Result<GraphRun, QuantizeError> {
    let embed = |input: &[f32]| -> Result<Embedding, QuantizeError> {
        Ok(encoder.embed_preprocessed(input, 1)?.remove(0))
    };
    let mut quality = yardstick.nearness(&embed)?;
    yardstick.verdicts(&embed, &mut quality)?;
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let start = Instant::now();
        embed(yardstick.frame())?;
        times.push(1e3 * start.elapsed().as_secs_f64());
    }
    Ok(GraphRun {
        engine: "tract".to_owned(),
        quality,
        ms: median(times),
    })
}
