//! The member `manifest.json`: its types, its checks and the identity of the encoder it describes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::encoder::SCHEMA_OF_GRAPHS;
use crate::{EncoderSpec, GraphSpec, VariantFigures};

/// Newest manifest schema that this version reads. A bundle is written with the oldest schema that can say what it is.
pub const SCHEMA: u32 = 2;

pub(crate) const MAX_DIM: usize = 8192;
const MAX_DEPTH: usize = 256;
const MAX_SIDE: usize = 4096;
pub(crate) const MAX_TOKENS: usize = 1 << 14;
const MAX_GOLDEN: usize = 64;

/// The member `manifest.json`.
///
/// Fields that a reader does not know are ignored; a change that an older reader must not ignore raises the schema.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Schema of the manifest, at most [`SCHEMA`].
    pub schema: u32,
    /// Oldest ssl-edge version that reads this schema.
    pub requires: String,
    /// Program and version that wrote the file.
    pub created_by: String,
    /// What the encoder is; under the key `arch` or `graph`.
    #[serde(flatten)]
    pub encoder: EncoderSpec,
    /// From a frame to the encoder's input.
    pub preprocess: PreprocessSpec,
    /// From the encoder's tokens to the feature that heads see.
    pub pooling: Pooling,
    /// Where the weights come from.
    pub provenance: Provenance,
    /// Licence of the weights (an SPDX expression), where the maker gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// How to check an engine.
    pub golden: GoldenSpec,
    /// Size and hash of every member but the manifest.
    pub members: BTreeMap<String, MemberSpec>,
    /// The same encoder in other precisions by name, such as `int8` or `q8_0`; f32 is always there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variants: BTreeMap<String, VariantSpec>,
}

/// Shape of a vision transformer; the fields of the training configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArchSpec {
    /// Name of the preset, such as `vit_n16`, or a free text.
    pub name: String,
    /// Width D of a token.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads of D / heads channels each.
    pub heads: usize,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Register tokens.
    pub registers: usize,
    /// Hidden width of the MLP in units of D.
    pub mlp_ratio: usize,
    /// Height and width in pixels of the image that the stored position embedding covers: those of the preprocessing, since
    /// positions are resampled when a bundle is made.
    pub image_size: [usize; 2],
    /// `tanh` or `erf`.
    pub gelu: String,
    /// Epsilon of every LayerNorm.
    pub eps: f64,
}

/// From a frame to the encoder's input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PreprocessSpec {
    /// Height of the input in pixels.
    pub height: u32,
    /// Width of the input in pixels.
    pub width: u32,
    /// `squash` or `center_crop`.
    pub fit: String,
    /// Mean of each channel, of pixels in `0..=1`.
    pub mean: [f32; 3],
    /// Standard deviation of each channel, of pixels in `0..=1`.
    pub std: [f32; 3],
}

/// Which tokens make the feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The CLS token, L2-normalised, `[D]`.
    Cls,
    /// The mean of the patch tokens, L2-normalised, `[D]`.
    Mean,
    /// Both, each L2-normalised, then as one vector of norm 1, `[2 D]`.
    ClsMean,
}

/// Where the weights come from. Data is counted, not named.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// `dino`, `mae`, `random` and so on.
    pub method: String,
    /// Images drawn during training, repeats counted.
    pub images_seen: u64,
    /// Distinct images of the data set.
    pub dataset_images: u64,
    /// Seed of the run.
    pub seed: u64,
    /// Resolved training configuration as TOML; empty where there was none.
    pub config: String,
}

/// How to check an engine against the golden vectors.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GoldenSpec {
    /// Number G of inputs.
    pub count: usize,
    /// Largest absolute difference allowed in an L2-normalised embedding.
    pub tolerance: f32,
}

/// Size and hash of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberSpec {
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// The encoder in another precision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VariantSpec {
    /// Member with the weights.
    pub weights: String,
    /// Member with what this variant makes of the golden inputs: `cls [G, D]`, `patch_mean [G, D]`.
    pub golden: String,
    /// Largest absolute difference allowed in an L2-normalised embedding.
    pub tolerance: f32,
    /// Linear layers that stayed in floating point: f32, or f16 beside blocks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub float_layers: Vec<String>,
    /// What was measured of it beside f32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<VariantFigures>,
}

/// The path of a field, and why it cannot be.
pub(crate) type Reason = (&'static str, String);

/// The part of any manifest, of whatever schema, that never changes.
#[derive(Deserialize)]
pub(crate) struct Versions {
    pub(crate) schema: u32,
    pub(crate) requires: String,
}

impl ArchSpec {
    /// Grid of patches, `[rows, columns]`, of an input of `height` × `width` pixels.
    pub fn grid(&self, height: usize, width: usize) -> [usize; 2] {
        [height / self.patch, width / self.patch]
    }
}

impl Manifest {
    /// The transformer's shape, or `None` where the encoder is an imported graph.
    pub fn arch(&self) -> Option<&ArchSpec> {
        match &self.encoder {
            EncoderSpec::Arch(arch) => Some(arch),
            EncoderSpec::Graph(_) => None,
        }
    }

    /// The imported graph, or `None` where the encoder is a transformer of ours.
    pub fn graph(&self) -> Option<&GraphSpec> {
        match &self.encoder {
            EncoderSpec::Arch(_) => None,
            EncoderSpec::Graph(graph) => Some(graph),
        }
    }

    /// Name of the encoder, for people.
    pub fn name(&self) -> &str {
        match &self.encoder {
            EncoderSpec::Arch(arch) => &arch.name,
            EncoderSpec::Graph(graph) => &graph.name,
        }
    }

    /// Width D of a token.
    pub fn dim(&self) -> usize {
        match &self.encoder {
            EncoderSpec::Arch(arch) => arch.dim,
            EncoderSpec::Graph(graph) => graph.dim,
        }
    }

    /// Height and width of the encoder's input in pixels.
    pub fn input_size(&self) -> [usize; 2] {
        [self.preprocess.height, self.preprocess.width].map(|side| side as usize)
    }

    /// Rows and columns of the patch tokens.
    pub fn grid(&self) -> [usize; 2] {
        let [height, width] = self.input_size();
        match &self.encoder {
            EncoderSpec::Arch(arch) => arch.grid(height, width),
            EncoderSpec::Graph(graph) => graph.grid,
        }
    }

    /// Checks that every number can be what it says, so that sizes computed from them neither overflow nor surprise.
    ///
    /// # Errors
    /// The path of the first field that cannot be, and why.
    pub fn validate(&self) -> Result<(), Reason> {
        match &self.encoder {
            EncoderSpec::Arch(arch) => {
                arch.validate()?;
                let [height, width] = self.input_size();
                if arch.image_size != [height, width] {
                    let size = arch.image_size;
                    let reason =
                        format!("is {size:?}, but preprocess makes images of {height} x {width}");
                    return Err(("arch.image_size", reason));
                }
            }
            EncoderSpec::Graph(graph) => self.validate_graph(graph)?,
        }
        self.preprocess.validate()?;
        within("golden.count", self.golden.count, 1, MAX_GOLDEN)?;
        if !(self.golden.tolerance > 0.0 && self.golden.tolerance <= 0.1) {
            return Err((
                "golden.tolerance",
                format!("is {}, not in 0..=0.1", self.golden.tolerance),
            ));
        }
        for &name in self.encoder.members() {
            if !self.members.contains_key(name) {
                return Err(("members", format!("does not list {name}")));
            }
        }
        for (name, variant) in &self.variants {
            for member in [&variant.weights, &variant.golden] {
                if !self.members.contains_key(member) {
                    let reason =
                        format!("of variant {name} is {member}, which members does not list");
                    return Err(("variants", reason));
                }
            }
            if !(variant.tolerance > 0.0 && variant.tolerance <= 0.1) {
                let reason = format!("{name} has tolerance {}, not in 0..=0.1", variant.tolerance);
                return Err(("variants", reason));
            }
        }
        Ok(())
    }

    /// Identity of the encoder: SHA-256 over the hash of the weights (of the graph, where it was imported), the architecture, the preprocessing and the pooling.
    ///
    /// Equal hashes mean that features fitted on one bundle hold for the other; a licence or provenance does not enter.
    /// Fields added later must be left out of the JSON at their default value, so that hashes of older bundles stay.
    pub fn encoder_hash(&self) -> [u8; 32] {
        self.hash_with(self.encoder.members()[0])
    }

    /// Identity of the encoder in another precision: the same over that variant's weights. `None` where there is no such variant.
    pub fn variant_hash(&self, variant: &str) -> Option<[u8; 32]> {
        let variant = self.variants.get(variant)?;
        Some(self.hash_with(&variant.weights))
    }

    fn hash_with(&self, weights: &str) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(b"ssl-edge encoder\0");
        let weights = self
            .members
            .get(weights)
            .map_or("", |member| &member.sha256);
        let encoder = match &self.encoder {
            EncoderSpec::Arch(arch) => json(arch),
            EncoderSpec::Graph(graph) => json(graph),
        };
        let parts = [
            weights.to_owned(),
            encoder,
            json(&self.preprocess),
            json(&self.pooling),
        ];
        for part in parts {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.finalize().into()
    }

    fn validate_graph(&self, graph: &GraphSpec) -> Result<(), Reason> {
        if self.schema < SCHEMA_OF_GRAPHS {
            let reason = format!("is {}, which has no imported graphs", self.schema);
            return Err(("schema", reason));
        }
        if !self.variants.is_empty() {
            let reason = "are there, and an imported graph has none".to_owned();
            return Err(("variants", reason));
        }
        graph.validate()
    }
}

impl ArchSpec {
    fn validate(&self) -> Result<(), Reason> {
        within("arch.dim", self.dim, 1, MAX_DIM)?;
        within("arch.depth", self.depth, 1, MAX_DEPTH)?;
        within("arch.heads", self.heads, 1, self.dim)?;
        within("arch.patch", self.patch, 1, MAX_SIDE)?;
        within("arch.registers", self.registers, 0, 1024)?;
        within("arch.mlp_ratio", self.mlp_ratio, 1, 64)?;
        if !self.dim.is_multiple_of(self.heads) {
            return Err((
                "arch.heads",
                format!("is {}, which does not divide dim {}", self.heads, self.dim),
            ));
        }
        if !matches!(self.gelu.as_str(), "tanh" | "erf") {
            return Err(("arch.gelu", format!("is {:?}, not tanh or erf", self.gelu)));
        }
        if !(self.eps > 0.0 && self.eps < 1.0) {
            return Err(("arch.eps", format!("is {}, not in 0..1", self.eps)));
        }
        sides("arch.image_size", self.image_size, self.patch)
    }
}

impl PreprocessSpec {
    fn validate(&self) -> Result<(), Reason> {
        for side in [self.height, self.width] {
            within("preprocess", side as usize, 1, MAX_SIDE)?;
        }
        if !matches!(self.fit.as_str(), "squash" | "center_crop") {
            return Err((
                "preprocess.fit",
                format!("is {:?}, not squash or center_crop", self.fit),
            ));
        }
        if !self.mean.iter().all(|mean| mean.is_finite()) {
            return Err(("preprocess.mean", format!("is {:?}", self.mean)));
        }
        if !self.std.iter().all(|std| std.is_finite() && *std > 0.0) {
            return Err(("preprocess.std", format!("is {:?}, not positive", self.std)));
        }
        Ok(())
    }
}

fn sides(field: &'static str, sides: [usize; 2], patch: usize) -> Result<(), Reason> {
    for side in sides {
        within(field, side, patch, MAX_SIDE)?;
        if !side.is_multiple_of(patch) {
            return Err((
                field,
                format!("has side {side}, which is no multiple of patch {patch}"),
            ));
        }
    }
    let tokens = (sides[0] / patch) * (sides[1] / patch);
    within(field, tokens, 1, MAX_TOKENS)
}

pub(crate) fn within(
    field: &'static str,
    value: usize,
    low: usize,
    high: usize,
) -> Result<(), Reason> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err((field, format!("has {value}, not in {low}..={high}")))
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("plain structs with string keys always serialise")
}
