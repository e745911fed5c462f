//! Graphs of others as encoders: what a graph takes and gives, and which outputs are class token and patch tokens.
//!
//! `checked` refuses files that cannot be run and says why, `wiring` is the rule that maps outputs to tokens.

#[cfg(feature = "onnx")]
pub(crate) mod checked;
mod error;
#[cfg_attr(
    not(feature = "onnx"),
    allow(dead_code, reason = "only the engine reads graphs")
)]
mod wiring;

pub use error::GraphError;
pub use wiring::GraphChoice;
#[cfg(feature = "onnx")]
use wiring::{Wired, wire};

use ssl_edge_bundle::GraphSpec;

use crate::Tokens;

/// An input or output of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphPort {
    /// Its name.
    pub name: String,
    /// Element type as ONNX writes it, such as `FLOAT`.
    pub element: String,
    /// Sizes of its axes; `None` where any will do.
    pub shape: Vec<Option<usize>>,
}

/// What was found in a graph, and how it is to be read.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadGraph {
    /// The entry for the manifest.
    pub spec: GraphSpec,
    /// Height and width of the image that it takes, in pixels.
    pub size: [usize; 2],
    /// The graph's input, as the graph declares it.
    pub input: GraphPort,
    /// All outputs, with the shapes that an image of [`ReadGraph::size`] gives.
    pub outputs: Vec<GraphPort>,
    /// What the rule decided that a user should know, one sentence each.
    pub notes: Vec<String>,
}

/// Reads an ONNX graph as an encoder: checks it, runs it once on a grey image, and decides which outputs are class token and patch tokens.
///
/// `size` is height and width in pixels; needed where the graph leaves them open, and otherwise what the graph says.
///
/// # Errors
/// [`GraphError`] with what the graph has that cannot be used, and the remedy; always in a build without feature `onnx`.
pub fn read_graph(
    graph: &[u8],
    name: &str,
    size: Option<[usize; 2]>,
    choice: &GraphChoice,
) -> Result<ReadGraph, GraphError> {
    #[cfg(feature = "onnx")]
    return read(graph, name, size, choice);
    #[cfg(not(feature = "onnx"))]
    {
        let _ = (graph, name, size, choice);
        Err(unavailable())
    }
}

/// Tokens of `input [B, 3, H, W]` by a graph that was read, to make golden vectors with. Runs on the caller's thread.
///
/// # Errors
/// [`GraphError::Engine`] where the graph cannot be run as `spec` says.
pub fn graph_tokens(
    graph: &[u8],
    spec: &GraphSpec,
    size: [usize; 2],
    input: &[f32],
) -> Result<Tokens, GraphError> {
    #[cfg(feature = "onnx")]
    {
        let checked = checked::Checked::read(graph)?;
        let engine = crate::engines::onnx::Onnx::of_graph(&checked, spec, size)?;
        let batch = input.len() / (3 * size[0] * size[1]).max(1);
        let tokens = crate::Engine::run(&engine, input, batch);
        tokens.map_err(|error| GraphError::Engine {
            reason: error.to_string(),
        })
    }
    #[cfg(not(feature = "onnx"))]
    {
        let _ = (graph, spec, size, input);
        Err(unavailable())
    }
}

#[cfg(feature = "onnx")]
fn read(
    graph: &[u8],
    name: &str,
    size: Option<[usize; 2]>,
    choice: &GraphChoice,
) -> Result<ReadGraph, GraphError> {
    let checked = checked::Checked::read(graph)?;
    let size = checked.size(size)?;
    let outputs = checked.outputs(size)?;
    let floats = outputs.iter().filter(|output| output.element == "FLOAT");
    let shapes: Vec<(&str, Vec<usize>)> = floats
        .map(|output| {
            let shape = output.shape.iter().flatten().copied();
            (output.name.as_str(), shape.collect())
        })
        .collect();
    let Wired {
        cls,
        patches,
        dim,
        grid,
        mut notes,
    } = wire(&shapes, size, choice)?;
    let others = outputs.iter().filter(|output| output.element != "FLOAT");
    notes.extend(others.map(|output| format!("output {} is no f32 and is ignored", output.name)));
    Ok(ReadGraph {
        spec: GraphSpec {
            name: name.to_owned(),
            dim,
            grid,
            input: checked.input().name.clone(),
            cls,
            patches,
            opset: checked.opset(),
            producer: checked.producer(),
        },
        size,
        input: checked.input().clone(),
        outputs,
        notes,
    })
}

#[cfg(not(feature = "onnx"))]
fn unavailable() -> GraphError {
    GraphError::Engine {
        reason: "this build is without feature `onnx`".to_owned(),
    }
}
