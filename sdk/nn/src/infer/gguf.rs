//! Weights in a GGUF file, version 3 (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>): linear layers in GGML's blocks, vectors in f32,
//! other tensors in f16 where that loses nothing. Names are those of the checkpoint, so any reader of GGUF lists and dequantises them.
//!
//! A reader takes what it needs of a file that may be anything: counts and sizes are compared with the bytes that are left before anything is allocated
//! for them, and tensors may not share bytes, so weights take no more than twice the file.

use std::collections::BTreeMap;

use half::f16;

use super::blocks::BlockFormat;
use super::weights::{EncoderWeights, Stored};
use crate::Error;

pub(super) const MAGIC: &[u8] = b"GGUF";
/// Versions with 64-bit counts, little-endian.
const VERSIONS: [u32; 2] = [2, 3];
const ALIGNMENT: usize = 32;
const MOST_ALIGNMENT: usize = 1 << 16;
const MOST_AXES: usize = 4;
/// Bytes of a name, which errors repeat.
const MOST_NAME: usize = 1 << 10;
/// Arrays of arrays; none are written.
const MOST_NESTED: usize = 4;

/// Types of metadata.
const U32: u32 = 4;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// Types of tensors.
#[derive(Clone, Copy)]
enum Kind {
    F32,
    F16,
    Blocks(BlockFormat),
}

/// Where a tensor lies.
struct Info {
    name: String,
    /// Outermost first; the file has them the other way round.
    dims: Vec<usize>,
    kind: Kind,
    /// From the beginning of the data.
    offset: usize,
    bytes: usize,
}

/// What is left to read.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Kind {
    const ALL: [Self; 4] = [
        Self::F32,
        Self::F16,
        Self::Blocks(BlockFormat::Q4_0),
        Self::Blocks(BlockFormat::Q8_0),
    ];

    /// `enum ggml_type`.
    fn number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Blocks(BlockFormat::Q4_0) => 2,
            Self::Blocks(BlockFormat::Q8_0) => 8,
        }
    }

    fn bytes_of(self, count: usize) -> Option<usize> {
        match self {
            Self::F32 => count.checked_mul(size_of::<f32>()),
            Self::F16 => count.checked_mul(size_of::<f16>()),
            Self::Blocks(format) => format.bytes_of(count),
        }
    }

    /// What a tensor is written as. Vectors stay f32, as GGML's own kernels want norms and biases.
    fn of(name: &str, stored: &Stored) -> Result<Self, Error> {
        match stored {
            Stored::Blocks { format, .. } => Ok(Self::Blocks(*format)),
            Stored::F32 { dims, values } if dims.len() > 1 && fits_f16(values) => Ok(Self::F16),
            Stored::F32 { .. } => Ok(Self::F32),
            Stored::I8 { .. } => Err(reject(format!("tensor {name} is int8, not of GGUF"))),
        }
    }
}

/// Writes weights without int8 layers.
///
/// # Errors
/// A tensor that is int8, or that has more than four axes.
pub(super) fn write(weights: &EncoderWeights) -> Result<Vec<u8>, Error> {
    let (mut infos, mut data) = (Vec::new(), Vec::new());
    for (name, stored) in &weights.0 {
        let (kind, dims) = (Kind::of(name, stored)?, stored.dims());
        if dims.len() > MOST_AXES {
            let axes = dims.len();
            return Err(reject(format!("tensor {name} has {axes} axes, GGUF has 4")));
        }
        text(&mut infos, name);
        infos.extend((dims.len() as u32).to_le_bytes());
        for dim in dims.iter().rev() {
            infos.extend((*dim as u64).to_le_bytes());
        }
        infos.extend(kind.number().to_le_bytes());
        infos.extend((data.len() as u64).to_le_bytes());
        match (kind, stored) {
            (Kind::F16, Stored::F32 { values, .. }) => {
                data.extend(values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()));
            }
            (_, Stored::F32 { values, .. }) => {
                data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
            }
            (_, Stored::Blocks { bytes, .. }) => data.extend(bytes),
            (_, Stored::I8 { .. }) => {}
        }
        data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
    }
    let mut file = MAGIC.to_vec();
    file.extend(3_u32.to_le_bytes());
    file.extend((weights.0.len() as u64).to_le_bytes());
    file.extend(2_u64.to_le_bytes());
    text(&mut file, "general.architecture");
    file.extend(STRING.to_le_bytes());
    text(&mut file, "ssl-edge-vit");
    text(&mut file, "general.quantization_version");
    file.extend(U32.to_le_bytes());
    file.extend(2_u32.to_le_bytes());
    file.extend(infos);
    file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
    file.extend(data);
    Ok(file)
}

/// Reads weights in f32, f16, Q8_0 or Q4_0.
///
/// # Errors
/// What is wrong with the bytes, with the tensor's name where there is one.
pub(super) fn read(bytes: &[u8]) -> Result<EncoderWeights, Error> {
    let mut reader = Reader { bytes, at: 0 };
    if reader.take(MAGIC.len())? != MAGIC {
        return Err(reject("weights that are no GGUF".to_owned()));
    }
    let version = reader.u32()?;
    if !VERSIONS.contains(&version) {
        return Err(reject(format!("GGUF of version {version}, not 2 or 3")));
    }
    let (tensors, entries) = (reader.u64()?, reader.u64()?);
    let mut alignment = ALIGNMENT;
    for _ in 0..entries {
        let key = reader.text()?;
        let kind = reader.u32()?;
        if key == "general.alignment" && kind == U32 {
            alignment = reader.u32()? as usize;
        } else {
            reader.skip(kind, 0)?;
        }
    }
    if !alignment.is_power_of_two() || alignment > MOST_ALIGNMENT {
        return Err(reject(format!("GGUF with an alignment of {alignment}")));
    }
    let mut infos = Vec::new();
    for _ in 0..tensors {
        infos.push(reader.info(alignment)?);
    }
    let data = bytes
        .get(reader.at.next_multiple_of(alignment)..)
        .unwrap_or_default();
    let total = infos
        .iter()
        .try_fold(0_usize, |sum, info| sum.checked_add(info.bytes));
    if total.is_none_or(|total| total > data.len()) {
        return Err(reject(format!(
            "GGUF whose tensors need more than its {} bytes of data",
            data.len()
        )));
    }
    let mut found = BTreeMap::new();
    for info in infos {
        let name = info.name.clone();
        if found.insert(name, info.stored(data)?).is_some() {
            return Err(reject(format!("GGUF with two tensors {}", info.name)));
        }
    }
    Ok(EncoderWeights(found))
}

impl Info {
    fn stored(&self, data: &[u8]) -> Result<Stored, Error> {
        let (name, dims) = (&self.name, self.dims.clone());
        let end = self.offset.checked_add(self.bytes);
        let bytes = end.and_then(|end| data.get(self.offset..end));
        let bytes = bytes.ok_or_else(|| reject(format!("tensor {name} lies beyond its GGUF")))?;
        match self.kind {
            Kind::F32 => Ok(Stored::F32 {
                dims,
                values: super::weights::floats(bytes),
            }),
            Kind::F16 => {
                let (words, _) = bytes.as_chunks::<2>();
                let values = words.iter().map(|word| f16::from_le_bytes(*word).to_f32());
                Ok(Stored::F32 {
                    dims,
                    values: values.collect(),
                })
            }
            Kind::Blocks(format) => match dims[..] {
                [n, k] if k.is_multiple_of(super::BLOCK) && format.has_finite_scales(bytes) => {
                    Ok(Stored::Blocks {
                        dims: [n, k],
                        format,
                        bytes: bytes.to_vec(),
                    })
                }
                [_, k] if k.is_multiple_of(super::BLOCK) => Err(reject(format!(
                    "tensor {name} has a block whose scale is not finite"
                ))),
                _ => Err(reject(format!(
                    "tensor {name} is {dims:?} in {format}; it needs rows of whole blocks of {}",
                    super::BLOCK
                ))),
            },
        }
    }
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| reject("GGUF that is cut short".to_owned()))?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let bytes = self.take(N)?;
        Ok(bytes.try_into().expect("so many were taken"))
    }

    fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn size(&mut self) -> Result<usize, Error> {
        let size = self.u64()?;
        usize::try_from(size).map_err(|_| reject(format!("GGUF with a size of {size}")))
    }

    fn text(&mut self) -> Result<String, Error> {
        let count = self.size()?;
        if count > MOST_NAME {
            return Err(reject(format!("GGUF with a name of {count} bytes")));
        }
        let text = std::str::from_utf8(self.take(count)?);
        let text = text.map_err(|_| reject("GGUF with a name that is not UTF-8".to_owned()))?;
        Ok(text.to_owned())
    }

    /// A value of metadata that is not needed.
    fn skip(&mut self, kind: u32, nested: usize) -> Result<(), Error> {
        let one = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            U32 | 5 | 6 => 4,
            10..=12 => 8,
            STRING => self.size()?,
            ARRAY if nested < MOST_NESTED => {
                let (kind, count) = (self.u32()?, self.u64()?);
                for _ in 0..count {
                    self.skip(kind, nested + 1)?;
                }
                0
            }
            other => return Err(reject(format!("GGUF with metadata of type {other}"))),
        };
        self.take(one).map(|_| ())
    }

    fn info(&mut self, alignment: usize) -> Result<Info, Error> {
        let name = self.text()?;
        let axes = self.u32()? as usize;
        if axes == 0 || axes > MOST_AXES {
            return Err(reject(format!("tensor {name} has {axes} axes, not 1 to 4")));
        }
        let mut dims = (0..axes)
            .map(|_| self.size())
            .collect::<Result<Vec<_>, _>>()?;
        dims.reverse();
        let number = self.u32()?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.number() == number);
        let kind = kind.ok_or_else(|| {
            reject(format!("tensor {name} has GGML's type {number}, which is none of f32 (0), f16 (1), q4_0 (2) and q8_0 (8); it needs a newer ssl-edge"))
        })?;
        let offset = self.size()?;
        let count = dims.iter().try_fold(1_usize, |n, dim| n.checked_mul(*dim));
        match count.and_then(|count| kind.bytes_of(count)) {
            Some(bytes) if offset.is_multiple_of(alignment) => Ok(Info {
                name,
                dims,
                kind,
                offset,
                bytes,
            }),
            _ => Err(reject(format!(
                "tensor {name} is {dims:?} at {offset}, which no GGUF has"
            ))),
        }
    }
}

fn fits_f16(values: &[f32]) -> bool {
    values.iter().all(|v| f16::from_f32(*v).to_f32() == *v)
}

fn text(to: &mut Vec<u8>, text: &str) {
    to.extend((text.len() as u64).to_le_bytes());
    to.extend(text.as_bytes());
}

fn reject(reason: String) -> Error {
    Error::Config { reason }
}

#[cfg(test)]
mod tests;
