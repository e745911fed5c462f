//! What was measured, as JSON for programs and one HTML page for people.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use ssl_edge_bundle::VariantFigures;

use super::{Gate, QuantizeError};

/// An int8 variant that was written.
#[derive(Debug, Clone, Serialize)]
pub struct QuantizeReport {
    /// The bundle.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Identity of the encoder in int8.
    #[serde(serialize_with = "hex")]
    pub encoder_hash: [u8; 32],
    /// Frames that it was calibrated on.
    pub calibration_frames: usize,
    /// Beside f32.
    pub figures: VariantFigures,
    /// Every gate, all kept.
    pub gates: Vec<GateReport>,
    /// Every linear layer, first to last.
    pub layers: Vec<LayerReport>,
}

/// A gate and what it saw.
#[derive(Debug, Clone, Serialize)]
pub struct GateReport {
    /// As it was written.
    pub gate: String,
    /// What was measured.
    pub value: Option<f64>,
    /// Whether it holds.
    pub holds: bool,
}

/// A linear layer.
#[derive(Debug, Clone, Serialize)]
pub struct LayerReport {
    /// Such as `blocks.0.attn.qkv`.
    pub name: String,
    /// `int8` or `f32`.
    pub precision: &'static str,
    /// SmoothQuant's α, where smoothing helped.
    pub smoothing: Option<f32>,
    /// Relative squared error of its output in int8 on the calibration frames.
    pub error: f64,
    /// Mean cosine of the features that it costs alone in int8.
    pub cosine_loss: f64,
}

impl GateReport {
    pub(super) fn of(gate: &Gate, figures: &VariantFigures) -> Self {
        Self {
            gate: gate.to_string(),
            value: gate.metric.of(figures),
            holds: gate.holds(figures),
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

    /// The page.
    pub fn html(&self) -> String {
        let f = &self.figures;
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / 1_048_576.0);
        let percent = |share: f64, ci: f64| format!("{:.2} ± {:.2} %", 100.0 * share, 100.0 * ci);
        let mut rows = vec![
            row(["weights", &mib(f.f32_bytes), &mib(f.bytes)]),
            row(["memory", &mib(f.f32_memory), &mib(f.memory)]),
            row([
                &format!("a frame, {} threads, {}", f.threads, f.isa),
                &format!("{:.2} ms", f.f32_ms),
                &format!("{:.2} ms", f.ms),
            ]),
            row(["mean cosine to f32", "1", &format!("{:.5}", f.cosine_mean)]),
            row(["cosine, worst 1 %", "1", &format!("{:.5}", f.cosine_worst)]),
        ];
        rows.extend(f.scores.iter().map(|s| {
            row([
                &format!("{} accuracy", s.name),
                &percent(s.f32_accuracy, s.f32_ci95),
                &percent(s.accuracy, s.ci95),
            ])
        }));
        let gates = self.gates.iter().map(|gate| {
            let value = gate
                .value
                .map_or("not measured".to_owned(), |v| format!("{v:.4}"));
            row([
                &gate.gate,
                &value,
                if gate.holds { "holds" } else { "fails" },
            ])
        });
        let layers = self.layers.iter().map(|layer| {
            let smoothing = layer.smoothing.map_or("none".to_owned(), |a| a.to_string());
            row([
                &layer.name,
                layer.precision,
                &smoothing,
                &format!("{:.2e}", layer.error),
                &format!("{:.2e}", layer.cosine_loss),
            ])
        });
        let mut page = String::from(HEAD);
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let _ = write!(
            page,
            "<h1>{} in int8</h1><p>Calibrated on {} frames, measured on {} others. Encoder {}.</p>",
            escape(&name),
            self.calibration_frames,
            f.frames,
            ssl_edge_bundle::hex(&self.encoder_hash),
        );
        page += &table(["", "f32", "int8"], rows);
        page += "<h2>Gates</h2>";
        page += &table(["gate", "measured", ""], gates);
        page += "<h2>Layers</h2><p>Smoothing is SmoothQuant's α; the error is of the layer's output, squared, relative; the loss is of the features' mean cosine with that layer alone in int8.</p>";
        page += &table(["layer", "runs in", "smoothing", "error", "loss"], layers);
        page
    }
}

const HEAD: &str = "<!doctype html><meta charset=\"utf-8\"><title>int8 variant</title><style>\
body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em}\
table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .8em;border-bottom:1px solid #ccc;text-align:right}\
td:first-child,th:first-child{text-align:left}</style>\n";

fn row<const N: usize>(cells: [&str; N]) -> String {
    let cells = cells.map(|cell| format!("<td>{}</td>", escape(cell)));
    format!("<tr>{}</tr>\n", cells.concat())
}

fn table<const N: usize>(heads: [&str; N], rows: impl IntoIterator<Item = String>) -> String {
    let heads = heads.map(|head| format!("<th>{head}</th>")).concat();
    let rows: String = rows.into_iter().collect();
    format!("<table><tr>{heads}</tr>\n{rows}</table>\n")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
