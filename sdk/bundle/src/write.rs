//! From contents to one sealed zip.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::path::Path;

use sha2::{Digest, Sha256};
use zip::result::ZipResult;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::{
    Bundle, BundleError, EncoderSpec, GOLDEN, GoldenSpec, MANIFEST, Manifest, MemberSpec, ONNX,
    Pooling, PreprocessSpec, Provenance, VariantSpec, WEIGHTS, hex, layout, save,
};

/// Oldest ssl-edge version that reads every schema that is written.
const REQUIRES: &str = "0.1.0";
// Tensors inside a mapped file can then be viewed in place by any SIMD width.
const ALIGNMENT: u16 = 64;
/// How a GGUF file begins.
const GGUF: &[u8] = b"GGUF";

/// What goes into a bundle. Schema, versions, sizes and hashes are filled in by [`BundleWriter::to_bytes`].
pub struct BundleWriter {
    /// What the encoder is.
    pub encoder: EncoderSpec,
    /// From a frame to the encoder's input.
    pub preprocess: PreprocessSpec,
    /// From the encoder's tokens to the feature that heads see.
    pub pooling: Pooling,
    /// Where the weights come from.
    pub provenance: Provenance,
    /// Licence of the weights, an SPDX expression.
    pub licence: Option<String>,
    /// Number of golden inputs and their tolerance.
    pub golden: GoldenSpec,
    /// Contents of [`WEIGHTS`]; empty where the encoder is an imported graph, which has no such member.
    pub weights: Vec<u8>,
    /// Contents of [`ONNX`].
    pub onnx: Vec<u8>,
    /// Contents of [`GOLDEN`].
    pub golden_vectors: Vec<u8>,
    /// The encoder in other precisions.
    pub variants: Vec<Variant>,
    /// More members by name, such as further graphs.
    pub extra: Vec<(String, Vec<u8>)>,
}

/// The encoder in another precision, and what the manifest says of it.
#[derive(Debug, Clone)]
pub struct Variant {
    /// Name of the precision, such as `int8`; part of the names of its members.
    pub name: String,
    /// Its weights, safetensors or GGUF; the member's name ends with which.
    pub weights: Vec<u8>,
    /// What it makes of the golden inputs.
    pub golden_vectors: Vec<u8>,
    /// Entry in the manifest; the names of the members are filled in.
    pub spec: VariantSpec,
}

impl Variant {
    fn members(&self) -> [String; 2] {
        let weights = match self.weights.starts_with(GGUF) {
            true => "gguf",
            false => "safetensors",
        };
        let name = &self.name;
        [
            format!("encoder.{name}.{weights}"),
            format!("golden.{name}.safetensors"),
        ]
    }

    fn spec(&self) -> VariantSpec {
        let [weights, golden] = self.members();
        VariantSpec {
            weights,
            golden,
            ..self.spec.clone()
        }
    }
}

impl BundleWriter {
    /// All that an open bundle holds, to write it again with something changed or added.
    ///
    /// # Errors
    /// As [`Bundle::member`].
    pub fn of(bundle: &Bundle) -> Result<Self, BundleError> {
        let manifest = bundle.manifest();
        let member = |name: &str| bundle.member(name).map(Cow::into_owned);
        let variants = manifest.variants.iter().map(|(name, spec)| {
            Ok(Variant {
                name: name.clone(),
                weights: member(&spec.weights)?,
                golden_vectors: member(&spec.golden)?,
                spec: spec.clone(),
            })
        });
        let variants = variants.collect::<Result<Vec<_>, BundleError>>()?;
        let own = |name: &str| {
            let variants = variants.iter().flat_map(Variant::members);
            [WEIGHTS, ONNX, GOLDEN].contains(&name) || variants.into_iter().any(|own| own == name)
        };
        let extra = manifest.members.keys().filter(|name| !own(name));
        let extra = extra.map(|name| Ok((name.clone(), member(name)?)));
        Ok(Self {
            encoder: manifest.encoder.clone(),
            preprocess: manifest.preprocess.clone(),
            pooling: manifest.pooling,
            provenance: manifest.provenance.clone(),
            licence: manifest.licence.clone(),
            golden: manifest.golden,
            weights: match manifest.encoder {
                EncoderSpec::Arch(_) => member(WEIGHTS)?,
                EncoderSpec::Graph(_) => Vec::new(),
            },
            onnx: member(ONNX)?,
            golden_vectors: member(GOLDEN)?,
            extra: extra.collect::<Result<_, BundleError>>()?,
            variants,
        })
    }

    /// The manifest that the bundle will have.
    pub fn manifest(&self) -> Manifest {
        let members = self
            .members()
            .into_iter()
            .map(|(name, bytes)| {
                let spec = MemberSpec {
                    sha256: hex(&Sha256::digest(bytes)),
                    bytes: bytes.len() as u64,
                };
                (name, spec)
            })
            .collect::<BTreeMap<_, _>>();
        Manifest {
            schema: self.encoder.schema(),
            requires: REQUIRES.to_owned(),
            created_by: concat!("ssl-edge ", env!("CARGO_PKG_VERSION")).to_owned(),
            encoder: self.encoder.clone(),
            preprocess: self.preprocess.clone(),
            pooling: self.pooling,
            provenance: self.provenance.clone(),
            licence: self.licence.clone(),
            golden: self.golden,
            members,
            variants: self
                .variants
                .iter()
                .map(|variant| (variant.name.clone(), variant.spec()))
                .collect(),
        }
    }

    /// The whole file. Equal contents give equal bytes: no time of day, no random order.
    ///
    /// # Errors
    /// [`BundleError::Manifest`] where a field cannot be what it says; `path` only names the bundle in messages.
    pub fn to_bytes(&self, path: &Path) -> Result<Vec<u8>, BundleError> {
        let manifest = self.manifest();
        manifest
            .validate()
            .map_err(|(field, reason)| BundleError::Manifest {
                path: path.to_owned(),
                field: field.to_owned(),
                reason,
            })?;
        let text = serde_json::to_vec_pretty(&manifest)
            .expect("plain structs with string keys always serialise");
        let own = self.members();
        let mut members = vec![(MANIFEST, text.as_slice())];
        members.extend(own.iter().map(|(name, bytes)| (name.as_str(), *bytes)));
        Ok(pack_sealed(&members))
    }

    /// Saves the bundle; see [`save`].
    ///
    /// # Errors
    /// [`BundleError::Manifest`] or [`BundleError::Save`]; a file that was there before is then unchanged.
    pub fn write(&self, path: &Path) -> Result<(), BundleError> {
        save(path, &self.to_bytes(path)?)
    }

    fn members(&self) -> Vec<(String, &[u8])> {
        let mut members = vec![
            (ONNX.to_owned(), self.onnx.as_slice()),
            (GOLDEN.to_owned(), &self.golden_vectors),
        ];
        if let EncoderSpec::Arch(_) = self.encoder {
            members.insert(0, (WEIGHTS.to_owned(), &self.weights));
        }
        for variant in &self.variants {
            let [weights, golden] = variant.members();
            members.push((weights, &variant.weights));
            members.push((golden, &variant.golden_vectors));
        }
        let extra = self.extra.iter();
        members.extend(extra.map(|(name, bytes)| (name.clone(), bytes.as_slice())));
        members
    }
}

/// A sealed zip of stored members.
pub(crate) fn pack_sealed(members: &[(&str, &[u8])]) -> Vec<u8> {
    let packed = pack(members).expect("writing stored members to memory does not fail");
    let sealed = layout::seal(packed);
    sealed.unwrap_or_else(|_| unreachable!("what was just packed can be listed"))
}

fn pack(members: &[(&str, &[u8])]) -> ZipResult<Vec<u8>> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::DEFAULT)
            .unix_permissions(0o644)
            .with_alignment(ALIGNMENT)
            .large_file(bytes.len() as u64 >= u64::from(u32::MAX));
        zip.start_file(*name, options)?;
        zip.write_all(bytes)?;
    }
    zip.set_comment(layout::comment())?;
    Ok(zip.finish()?.into_inner())
}
