//! From an ONNX graph of somebody else's to a bundle.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ssl_edge_bundle::{BundleWriter, ClsSource, EncoderSpec, GoldenSpec, Pooling, Provenance};
use ssl_edge_runtime::{EngineKind, GraphChoice, GraphError, ReadGraph, graph_tokens, read_graph};
use ssl_edge_vision::{Fit, Preprocess};

use crate::export::{TOLERANCE, preprocess_spec, save_checked};
use crate::golden::{COUNT, golden_input, golden_of_tokens};
use crate::{ExportError, ExportReport};

/// Protocol buffers end there.
const MAX_BYTES: u64 = i32::MAX as u64;
const GOLDEN_SEED: u64 = 0;

/// How to read a graph as an encoder.
#[derive(Debug, Clone)]
pub struct GraphImport {
    /// Name of the encoder, for people.
    pub name: String,
    /// Height and width of the input in pixels, where the graph leaves them open.
    pub size: Option<[usize; 2]>,
    /// Which outputs are class token and patch tokens, where the rule is not to decide.
    pub choice: GraphChoice,
    /// How a frame of another shape is brought to the input's.
    pub fit: Fit,
    /// Mean of each channel that the encoder was trained with, of pixels in `0..=1`.
    pub mean: [f32; 3],
    /// Standard deviation of each channel.
    pub std: [f32; 3],
    /// The feature that heads will see; `None` for the class token where there is one, and the mean of the patch tokens where not.
    pub pooling: Option<Pooling>,
    /// Licence of the weights, an SPDX expression.
    pub licence: Option<String>,
}

/// What was written, and what was found in the graph.
#[derive(Debug, Clone)]
pub struct ImportReport {
    /// The bundle.
    pub bundle: ExportReport,
    /// The graph's input and outputs, and how they are read.
    pub graph: ReadGraph,
    /// The feature that heads will see.
    pub pooling: Pooling,
}

/// Why a graph was not imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file could not be read.
    #[error("cannot read the graph {path}: {source}; check the path and the permissions")]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The graph cannot be an encoder.
    #[error("cannot import {path}: {source}")]
    Graph {
        /// The file.
        path: PathBuf,
        /// What it has that cannot be used, and the remedy.
        source: GraphError,
    },
    /// The graph gives values that are no numbers.
    #[error(
        "cannot import {path}: it makes NaN or infinity of an image; check mean and std, and export it again from sound weights"
    )]
    NonFinite {
        /// The file.
        path: PathBuf,
    },
    /// The feature needs a class token.
    #[error(
        "cannot import {path} with the class token in its feature: the graph has none; choose the mean of the patch tokens, or name an output that is one"
    )]
    NoClassToken {
        /// The file.
        path: PathBuf,
    },
    /// The bundle could not be made.
    #[error(transparent)]
    Export(#[from] ExportError),
}

/// Makes a bundle of the ONNX graph in `file`, run by tract. Its golden vectors are what tract makes of them here and now.
///
/// # Errors
/// [`ImportError`]; a file that was at `out` before is then unchanged.
pub fn import_graph(
    file: &Path,
    import: &GraphImport,
    out: &Path,
) -> Result<ImportReport, ImportError> {
    let refuse = |source| ImportError::Graph {
        path: file.to_owned(),
        source,
    };
    let bytes = read_file(file).map_err(|source| ImportError::Read {
        path: file.to_owned(),
        source,
    })?;
    let graph = read_graph(&bytes, &import.name, import.size, &import.choice).map_err(refuse)?;
    let pooling = pooling(file, import, &graph)?;
    let preprocess = preprocess(import, graph.size)?;
    let mut writer = BundleWriter {
        encoder: EncoderSpec::Graph(graph.spec.clone()),
        preprocess: preprocess_spec(&preprocess),
        pooling,
        provenance: Provenance {
            method: "imported".to_owned(),
            ..Provenance::default()
        },
        licence: import.licence.clone(),
        golden: GoldenSpec {
            count: COUNT,
            tolerance: TOLERANCE,
        },
        weights: Vec::new(),
        onnx: bytes,
        golden_vectors: Vec::new(),
        variants: Vec::new(),
        extra: Vec::new(),
    };
    let valid = writer.manifest();
    valid
        .validate()
        .map_err(|(field, reason)| ExportError::Unsupported { field, reason })?;
    let input = golden_input(&preprocess, GOLDEN_SEED)?;
    let tokens = graph_tokens(&writer.onnx, &graph.spec, graph.size, &input).map_err(refuse)?;
    let mut values = tokens.cls.iter().chain(&tokens.patches);
    if !values.all(|value| value.is_finite()) {
        return Err(ImportError::NonFinite {
            path: file.to_owned(),
        });
    }
    writer.golden_vectors = golden_of_tokens(input, tokens, &preprocess)?;
    Ok(ImportReport {
        bundle: save_checked(writer, &[EngineKind::Onnx], out)?,
        graph,
        pooling,
    })
}

fn pooling(file: &Path, import: &GraphImport, graph: &ReadGraph) -> Result<Pooling, ImportError> {
    let has_cls = graph.spec.cls != ClsSource::Mean;
    match import.pooling {
        Some(Pooling::Cls | Pooling::ClsMean) if !has_cls => Err(ImportError::NoClassToken {
            path: file.to_owned(),
        }),
        Some(pooling) => Ok(pooling),
        None if has_cls => Ok(Pooling::Cls),
        None => Ok(Pooling::Mean),
    }
}

fn preprocess(import: &GraphImport, size: [usize; 2]) -> Result<Preprocess, ExportError> {
    // A size that does not fit is refused below.
    let [height, width] = size.map(|side| u32::try_from(side).unwrap_or(u32::MAX));
    let preprocess = Preprocess {
        height,
        width,
        fit: import.fit,
        mean: import.mean,
        std: import.std,
    };
    preprocess.validate()?;
    Ok(preprocess)
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    let refuse = |reason: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    if !metadata.is_file() {
        return refuse("it is not a regular file");
    }
    if metadata.len() > MAX_BYTES {
        return refuse("it is larger than 2 GiB, where ONNX files end");
    }
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(metadata.len() as usize)
        .map_err(io::Error::other)?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
