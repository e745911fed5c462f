//! What a bundle holds: a transformer of ours or an imported graph.

use serde::{Deserialize, Serialize};

use crate::{ArchSpec, GraphSpec};

/// Schema 1 knows transformers of ours only.
pub(crate) const SCHEMA_OF_GRAPHS: u32 = 2;

/// What runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EncoderSpec {
    /// A vision transformer of ours, in [`crate::WEIGHTS`] and as a graph in [`crate::ONNX`].
    Arch(ArchSpec),
    /// A graph that was imported, in [`crate::ONNX`] only.
    Graph(GraphSpec),
}

impl EncoderSpec {
    /// Oldest schema that can say it.
    pub(crate) fn schema(&self) -> u32 {
        match self {
            Self::Arch(_) => 1,
            Self::Graph(_) => SCHEMA_OF_GRAPHS,
        }
    }

    /// Members that a bundle of it always has; the first holds the weights.
    pub(crate) fn members(&self) -> &'static [&'static str] {
        match self {
            Self::Arch(_) => &[crate::WEIGHTS, crate::ONNX, crate::GOLDEN],
            Self::Graph(_) => &[crate::ONNX, crate::GOLDEN],
        }
    }
}
