//! An encoder of somebody else's: an ONNX graph, and which of its outputs are tokens.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::manifest::{MAX_DIM, MAX_TOKENS, Reason, within};

const MAX_NAME: usize = 1024;
const MAX_SKIPPED: usize = 1024;

/// An ONNX graph that this project did not write, read as an encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GraphSpec {
    /// Name for people, such as `dinov2_s14`.
    pub name: String,
    /// Width D of a token.
    pub dim: usize,
    /// Rows and columns of the patch tokens; `[1, 1]` where the graph has none.
    pub grid: [usize; 2],
    /// The graph's input, `[1, 3, H, W]` or with any batch.
    pub input: String,
    /// Where the class token comes from.
    pub cls: ClsSource,
    /// Where the patch tokens come from.
    pub patches: PatchSource,
    /// Version of ONNX's operators that the graph uses.
    pub opset: i64,
    /// Program that wrote the graph, as the graph says.
    pub producer: String,
}

/// Where a graph's class token comes from, `[D]` for an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum ClsSource {
    /// An output of D values, `[B, D]`.
    Vector {
        /// Its name.
        output: String,
    },
    /// The first token of an output `[B, T, D]`.
    First {
        /// Its name.
        output: String,
    },
    /// The graph has none: the mean of the patch tokens stands for it.
    Mean,
}

/// Where a graph's patch tokens come from, `[N, D]` for an image, row-major over the grid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum PatchSource {
    /// The tokens of an output `[B, T, D]` after the first `skip`, which are class token and registers.
    Tokens {
        /// Its name.
        output: String,
        /// Tokens before the patches.
        skip: usize,
    },
    /// A feature map, `[B, D, rows, columns]`.
    Map {
        /// Its name.
        output: String,
    },
    /// A feature map with channels last, `[B, rows, columns, D]`.
    MapLast {
        /// Its name.
        output: String,
    },
    /// The graph has none: the class token stands for the only one.
    Cls,
}

impl ClsSource {
    /// The output that is read.
    pub fn output(&self) -> Option<&str> {
        match self {
            Self::Vector { output } | Self::First { output } => Some(output),
            Self::Mean => None,
        }
    }
}

impl PatchSource {
    /// The output that is read.
    pub fn output(&self) -> Option<&str> {
        match self {
            Self::Tokens { output, .. } | Self::Map { output } | Self::MapLast { output } => {
                Some(output)
            }
            Self::Cls => None,
        }
    }
}

impl fmt::Display for ClsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vector { output } => write!(f, "output {output}"),
            Self::First { output } => write!(f, "first token of {output}"),
            Self::Mean => f.write_str("none, the mean of the patch tokens stands for it"),
        }
    }
}

impl fmt::Display for PatchSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokens { output, skip: 0 } => write!(f, "tokens of {output}"),
            Self::Tokens { output, skip } => write!(f, "tokens of {output} after the first {skip}"),
            Self::Map { output } => write!(f, "feature map {output}"),
            Self::MapLast { output } => write!(f, "feature map {output}, channels last"),
            Self::Cls => f.write_str("none, the class token stands for the only one"),
        }
    }
}

impl GraphSpec {
    pub(crate) fn validate(&self) -> Result<(), Reason> {
        within("graph.dim", self.dim, 1, MAX_DIM)?;
        for side in self.grid {
            within("graph.grid", side, 1, MAX_TOKENS)?;
        }
        within("graph.grid", self.grid[0] * self.grid[1], 1, MAX_TOKENS)?;
        let outputs = [self.cls.output(), self.patches.output()];
        for name in outputs.into_iter().flatten().chain([self.input.as_str()]) {
            if name.is_empty() || name.len() > MAX_NAME {
                let reason = format!("names {name:?}, which is empty or longer than {MAX_NAME}");
                return Err(("graph", reason));
            }
        }
        if let PatchSource::Tokens { skip, .. } = self.patches {
            within("graph.patches.skip", skip, 0, MAX_SKIPPED)?;
        }
        if self.patches == PatchSource::Cls {
            if self.cls == ClsSource::Mean {
                let reason = "takes class token and patches from each other".to_owned();
                return Err(("graph.cls", reason));
            }
            within("graph.grid", self.grid[0] * self.grid[1], 1, 1)?;
        }
        Ok(())
    }
}
