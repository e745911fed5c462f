//! What was measured, as JSON for programs and one HTML page for people.

use std::path::{Path, PathBuf};

use serde::Serialize;
use ssl_edge_bundle::{QualityFigures, VariantFigures};

use super::{Gate, QuantizeError};

/// A variant beside f32.
#[derive(Debug, Clone, Serialize)]
pub struct QuantizeReport {
    /// The bundle.
    pub path: PathBuf,
    /// The variant's name, `int8`, `q8_0` or `q4_0`.
    pub precision: &'static str,
    /// What was written; nothing where a gate does not hold.
    #[serde(flatten)]
    pub written: Option<Written>,
    /// Frames that it was calibrated on; none for blocks.
    pub calibration_frames: usize,
    /// Beside f32.
    pub figures: VariantFigures,
    /// Every gate for the variant and for each graph.
    pub gates: Vec<GateReport>,
    /// Every linear layer, first to last.
    pub layers: Vec<LayerReport>,
    /// Names of the labelled frames' classes, which the bundle does not hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub class_names: Vec<String>,
}

/// A bundle that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Written {
    /// Its size.
    pub bytes: u64,
    /// Identity of the encoder in the precision.
    #[serde(serialize_with = "hex")]
    pub encoder_hash: [u8; 32],
}

/// A gate and what it saw.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GateReport {
    /// As it was written.
    pub gate: String,
    /// The variant's name, or the member with a graph.
    pub variant: String,
    /// What was measured.
    pub value: Option<f64>,
    /// Whether it holds; `None` for a graph that could not be run.
    pub holds: Option<bool>,
}

/// A linear layer.
#[derive(Debug, Clone, Serialize)]
pub struct LayerReport {
    /// Such as `blocks.0.attn.qkv`.
    pub name: String,
    /// `int8` or `f32`; beside blocks `q8_0`, `q4_0` or `f16`.
    pub precision: &'static str,
    /// SmoothQuant's α, where smoothing helped.
    pub smoothing: Option<f32>,
    /// Relative squared error in the coarsest precision: of its output on the calibration frames, of its weight where there are none.
    pub error: f64,
    /// Mean cosine of the features that it costs alone in its precision, or in the finest before it where that is floating point.
    pub cosine_loss: f64,
}

impl GateReport {
    pub(super) fn of(gate: &Gate, variant: &str, figures: Option<&QualityFigures>) -> Self {
        Self {
            gate: gate.to_string(),
            variant: variant.to_owned(),
            value: figures.and_then(|figures| gate.metric.of(figures)),
            holds: figures.map(|figures| gate.holds(figures)),
        }
    }
}

fn hex<S: serde::Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&ssl_edge_bundle::hex(bytes))
}

impl QuantizeReport {
    /// Writes `report.json` and `report.html` into `folder`, which is made if it is missing.
    ///
    /// # Errors
    /// [`QuantizeError::Report`] with the file.
    pub fn write(&self, folder: &Path) -> Result<(), QuantizeError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            |source| QuantizeError::Report { path, source }
        };
        std::fs::create_dir_all(folder).map_err(failed(folder))?;
        let json = serde_json::to_string_pretty(self).expect("plain structs always serialise");
        for (name, text) in [("report.json", json), ("report.html", self.html())] {
            let path = folder.join(name);
            std::fs::write(&path, text).map_err(failed(&path))?;
        }
        Ok(())
    }
}
