//! The report as one HTML page that needs nothing else: no scripts, no fonts, no pictures.

use std::fmt::Write;

use ssl_edge_bundle::{ClassFigures, QualityFigures, ScoreFigures, hex};

use super::{GateReport, LayerReport, QuantizeReport};

const STYLE: &str = include_str!("page.css");

/// A cell's text and the class that colours it.
struct Cell {
    text: String,
    class: &'static str,
}

/// A column of the first table: a variant and what is known of it.
struct Column<'a> {
    head: &'a str,
    bytes: u64,
    memory: Option<u64>,
    ms: Option<f64>,
    quality: Option<&'a QualityFigures>,
}

impl QuantizeReport {
    /// The page.
    pub fn html(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let name = escape(&name);
        let precision = self.precision;
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{name}: {precision} beside f32</title>\n<style>\n{STYLE}</style></head>\n<body><main>\n<h1>{name}: {precision} beside f32</h1>\n"
        );
        page += &self.summary();
        page += &section("Figures", &self.figures_table(), &self.figures_notes());
        page += &section(
            "Gates",
            &self.gates_table(),
            "Bounds on points count what is lost against f32.",
        );
        page += &self.classes();
        page += &section("Layers", &self.layers_table(), &self.layers_note());
        page += "</main></body></html>\n";
        page
    }

    fn summary(&self) -> String {
        let failed = self.gates.iter().find(|gate| gate.holds == Some(false));
        let mut text = match failed {
            None => "<p class=\"verdict good\">Written: every gate holds.</p>".to_owned(),
            Some(gate) => format!(
                "<p class=\"verdict bad\">Not written: {} does not hold for {}.{}</p>",
                escape(&gate.gate),
                escape(&gate.variant),
                self.worst()
                    .map(|name| format!(" Of the quantised layers, {} hurts most.", escape(name)))
                    .unwrap_or_default(),
            ),
        };
        let frames = self.figures.quality.frames;
        let _ = match self.calibration_frames {
            0 => write!(text, "<p>Measured on {frames} frames."),
            n => write!(
                text,
                "<p>Calibrated on {n} frames, measured on {frames} others."
            ),
        };
        if let Some(written) = &self.written {
            let hash = hex(&written.encoder_hash);
            let _ = write!(
                text,
                " The bundle has {}. Encoder in {}: <code>{hash}</code>.",
                mebibytes(written.bytes),
                self.precision
            );
        }
        text + "</p>\n"
    }

    fn worst(&self) -> Option<&str> {
        let quantised = self.layers.iter().filter(|layer| !is_float(layer));
        let worst = quantised.max_by(|a, b| a.cosine_loss.total_cmp(&b.cosine_loss));
        worst.map(|layer| layer.name.as_str())
    }

    fn columns(&self) -> Vec<Column<'_>> {
        let f = &self.figures;
        let own = Column {
            head: self.precision,
            bytes: f.bytes,
            memory: Some(f.memory),
            ms: Some(f.ms),
            quality: Some(&f.quality),
        };
        let graphs = f.graphs.iter().map(|graph| Column {
            head: &graph.member,
            bytes: graph.bytes,
            memory: None,
            ms: graph.run.as_ref().map(|run| run.ms),
            quality: graph.run.as_ref().map(|run| &run.quality),
        });
        std::iter::once(own).chain(graphs).collect()
    }

    fn figures_table(&self) -> String {
        let f = &self.figures;
        let columns = self.columns();
        let heads = ["", "f32"]
            .into_iter()
            .chain(columns.iter().map(|c| c.head));
        let row = |name: String, float: String, of: &dyn Fn(&Column<'_>) -> Option<String>| {
            let cells = columns
                .iter()
                .map(|c| plain(of(c).unwrap_or("–".to_owned())));
            [plain(name), plain(float)]
                .into_iter()
                .chain(cells)
                .collect()
        };
        let mut rows: Vec<Vec<Cell>> = vec![
            row("size".into(), mebibytes(f.f32_bytes), &|c| {
                Some(mebibytes(c.bytes))
            }),
            row("memory".into(), mebibytes(f.f32_memory), &|c| {
                c.memory.map(mebibytes)
            }),
            row(
                format!("a frame, {} threads", f.threads),
                format!("{:.1} ms", f.f32_ms),
                &|c| c.ms.map(|ms| format!("{ms:.1} ms")),
            ),
            row("cosine to f32, mean".into(), "1".into(), &|c| {
                c.quality.map(|q| format!("{:.5}", q.cosine_mean))
            }),
            row("cosine to f32, worst 1 %".into(), "1".into(), &|c| {
                c.quality.map(|q| format!("{:.5}", q.cosine_worst))
            }),
        ];
        for (index, score) in f.quality.scores.iter().enumerate() {
            rows.push(row(
                format!("{} accuracy", score_name(&score.name)),
                percent(score.f32_accuracy, score.f32_ci95),
                &|c| {
                    let score = c.quality?.scores.get(index)?;
                    Some(percent(score.accuracy, score.ci95))
                },
            ));
        }
        if let Some(area) = &f.quality.anomaly {
            rows.push(row(
                "AUROC from good parts".into(),
                percent(area.f32_auroc, area.f32_ci95),
                &|c| {
                    let area = c.quality?.anomaly?;
                    Some(percent(area.auroc, area.ci95))
                },
            ));
        }
        table(heads, rows)
    }

    fn figures_notes(&self) -> String {
        let f = &self.figures;
        let mut notes = format!(
            "f32 and {}: the native engine on {} with {} threads.",
            self.precision,
            escape(&f.isa),
            f.threads
        );
        if !f.quality.scores.is_empty() {
            notes +=
                " Few-shot accuracy is balanced, the mean of 30 draws with head <code>lda</code>.";
        }
        if !f.quality.scores.is_empty() || f.quality.anomaly.is_some() {
            notes += " ± is half of a 95 % interval.";
        }
        if let Some(a) = &f.quality.anomaly {
            let _ = write!(
                notes,
                " AUROC: {} good parts learned anew in each precision, {} other good and {} bad ones scored.",
                a.learned, a.good, a.bad
            );
        }
        if let Some(run) = f.graphs.iter().find_map(|graph| graph.run.as_ref()) {
            let _ = write!(
                notes,
                " Graphs were run by {} with {} threads, and neither by TensorRT nor by ONNX Runtime.",
                escape(&run.engine),
                f.threads
            );
        }
        for graph in &f.graphs {
            let member = escape(&graph.member);
            if graph.float_residuals {
                let _ = write!(
                    notes,
                    " In {member} the tokens that skip a branch stayed f32, since a gate did not hold otherwise."
                );
            }
            if let Some(reason) = &graph.not_run {
                let reason = escape(reason);
                let _ = write!(notes, " <b>{member} was not run</b>: {reason}.");
            }
        }
        notes
    }

    fn gates_table(&self) -> String {
        let mut variants: Vec<&str> = Vec::new();
        let mut rows: Vec<(&str, Vec<Cell>)> = Vec::new();
        for gate in &self.gates {
            if !variants.contains(&gate.variant.as_str()) {
                variants.push(&gate.variant);
            }
            if rows.last().is_none_or(|(name, _)| *name != gate.gate) {
                rows.push((&gate.gate, vec![plain(gate.gate.clone())]));
            }
            let cells = rows.last_mut().map(|(_, cells)| cells);
            cells
                .into_iter()
                .for_each(|cells| cells.push(gate_cell(gate)));
        }
        let heads = std::iter::once("gate").chain(variants);
        table(heads, rows.into_iter().map(|(_, cells)| cells))
    }

    /// Recall of every class: by 20-NN, and at the largest number of shots.
    fn classes(&self) -> String {
        let scores = &self.figures.quality.scores;
        let (Some(first), Some(last)) = (scores.first(), scores.last()) else {
            return String::new();
        };
        let shown: Vec<&ScoreFigures> = match first.name == last.name {
            true => vec![first],
            false => vec![first, last],
        };
        let titles: Vec<[String; 3]> = shown
            .iter()
            .map(|score| {
                let name = score_name(&score.name);
                [
                    format!("{name}, f32"),
                    self.precision.into(),
                    "change".into(),
                ]
            })
            .collect();
        let titles = titles.iter().flatten().map(String::as_str);
        let heads = ["class", "frames"].into_iter().chain(titles);
        let rows = (0..first.classes.len()).map(|class| {
            let name = self.class_names.get(class).cloned();
            let name = plain(name.unwrap_or_else(|| format!("class {class}")));
            let frames = plain(first.classes[class].frames.to_string());
            let cells = shown.iter().filter_map(|score| score.classes.get(class));
            [name, frames]
                .into_iter()
                .chain(cells.flat_map(recall_cells))
                .collect()
        });
        let note = "Share of each class's frames that are told right; changes in points. Frames are those that 20-NN judged.";
        section("Recall of every class", &table(heads, rows), note)
    }

    fn layers_note(&self) -> String {
        let loss = "Loss is the mean cosine of the features that the layer costs alone";
        let bar = "the bar is its share of the largest";
        match self.calibration_frames {
            0 => format!(
                "Error is that of the layer's weight in the coarsest precision, squared, relative. {loss}; {bar}. On a CPU the weights are made f32 when the bundle is opened, so that only the file is smaller."
            ),
            _ => format!(
                "Smoothing is SmoothQuant's α. Error is that of the layer's output, squared, relative, on the calibration frames. {loss} in int8; {bar}."
            ),
        }
    }

    fn layers_table(&self) -> String {
        let losses = self.layers.iter().map(|layer| layer.cosine_loss);
        let most = losses.fold(f64::MIN_POSITIVE, f64::max);
        let rows = self.layers.iter().map(|layer| layer_row(layer, most));
        let rows: String = rows.collect();
        let heads = ["layer", "runs in", "smoothing", "error", "loss", ""];
        wrap(&format!("<table>{}{rows}</table>", head_row(heads)))
    }
}

fn gate_cell(gate: &GateReport) -> Cell {
    let value = gate
        .value
        .map_or("not measured".to_owned(), |v| format!("{v:.5}"));
    let (text, class) = match gate.holds {
        Some(true) => (format!("{value} holds"), "good"),
        Some(false) => (format!("{value} fails"), "bad"),
        None => ("not run".to_owned(), ""),
    };
    Cell { text, class }
}

fn recall_cells(class: &ClassFigures) -> [Cell; 3] {
    // Rounded, and never a negative zero.
    let change = (1000.0 * (class.recall - class.f32_recall)).round() / 10.0 + 0.0;
    let percent = |share: f64| plain(format!("{:.1} %", 100.0 * share));
    let coloured = Cell {
        text: format!("{change:+.1}"),
        class: match change {
            c if c <= -1.0 => "bad",
            c if c >= 1.0 => "good",
            _ => "",
        },
    };
    [percent(class.f32_recall), percent(class.recall), coloured]
}

fn is_float(layer: &LayerReport) -> bool {
    matches!(layer.precision, "f32" | "f16")
}

fn layer_row(layer: &LayerReport, most: f64) -> String {
    let smoothing = layer.smoothing.map_or("none".to_owned(), |a| a.to_string());
    let width = (100.0 * layer.cosine_loss.max(0.0) / most).round();
    let cells = [
        plain(layer.name.clone()),
        Cell {
            text: layer.precision.to_owned(),
            class: if is_float(layer) { "bad" } else { "" },
        },
        plain(smoothing),
        plain(format!("{:.2e}", layer.error)),
        plain(format!("{:.2e}", layer.cosine_loss)),
    ];
    format!(
        "<tr>{}<td class=\"bar\"><i style=\"width:{width}%\"></i></td></tr>\n",
        cells.iter().map(Cell::html).collect::<String>()
    )
}

impl Cell {
    fn html(&self) -> String {
        let class = match self.class {
            "" => String::new(),
            class => format!(" class=\"{class}\""),
        };
        format!("<td{class}>{}</td>", escape(&self.text))
    }
}

fn plain(text: String) -> Cell {
    Cell { text, class: "" }
}

fn section(title: &str, table: &str, note: &str) -> String {
    format!("<section><h2>{title}</h2>\n{table}<p class=\"note\">{note}</p></section>\n")
}

fn table<'a>(
    heads: impl IntoIterator<Item = &'a str>,
    rows: impl IntoIterator<Item = Vec<Cell>>,
) -> String {
    let rows: String = rows
        .into_iter()
        .map(|cells| {
            format!(
                "<tr>{}</tr>\n",
                cells.iter().map(Cell::html).collect::<String>()
            )
        })
        .collect();
    wrap(&format!("<table>{}{rows}</table>", head_row(heads)))
}

fn head_row<'a>(heads: impl IntoIterator<Item = &'a str>) -> String {
    let cells: String = heads
        .into_iter()
        .map(|head| format!("<th>{}</th>", escape(head)))
        .collect();
    format!("<tr>{cells}</tr>\n")
}

/// Wide tables scroll on narrow screens.
fn wrap(table: &str) -> String {
    format!("<div class=\"wide\">{table}</div>\n")
}

/// `20-NN`, or `5-shot` for `fewshot-5`.
fn score_name(name: &str) -> String {
    match name.strip_prefix("fewshot-") {
        Some(shots) => format!("{shots}-shot"),
        None => "20-NN".to_owned(),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1_048_576.0)
}

fn percent(share: f64, ci: f64) -> String {
    format!("{:.2} ± {:.2} %", 100.0 * share, 100.0 * ci)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
