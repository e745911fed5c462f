//! Weights of an encoder from a stream of safetensors, one tensor after another, so that the file is never in memory beside them.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::weights::{EncoderWeights, Stored, scale_name};
use crate::Error;

/// Longest header that is read; safetensors' own limit is ten times as much.
const MAX_HEADER: u64 = 10_000_000;
/// Bytes that are read at once, a multiple of four.
const PIECE: usize = 1 << 18;

impl EncoderWeights {
    /// Reads safetensors of `len` bytes.
    ///
    /// # Errors
    /// Bytes that are not safetensors or not `len`, a tensor of another type than F32 or I8, an I8 tensor without scales, memory that is refused, or what
    /// `reader` says.
    pub fn read(reader: impl Read, len: u64) -> Result<Self, Error> {
        let mut tensors = BTreeMap::new();
        each_tensor(reader, len, |name, stored| {
            tensors.insert(name, stored);
            Ok(())
        })?;
        Ok(Self(tensors))
    }
}

/// Hands over every tensor as soon as it is read; an int8 one when its scales are known.
///
/// # Errors
/// As [`EncoderWeights::read`], and what `take` says.
pub(super) fn each_tensor(
    mut reader: impl Read,
    len: u64,
    mut take: impl FnMut(String, Stored) -> Result<(), Error>,
) -> Result<(), Error> {
    let metadata = header(&mut reader, len)?;
    let infos = metadata.tensors();
    let mut scales = HashMap::new();
    let mut without_scale = Vec::new();
    for name in metadata.offset_keys() {
        let info = infos[&name];
        let (dims, bytes) = (
            info.shape.clone(),
            info.data_offsets.1 - info.data_offsets.0,
        );
        match info.dtype {
            Dtype::F32 => {
                let values = read_floats(&mut reader, bytes)?;
                if name.ends_with(".scale") {
                    scales.insert(name, (dims, values));
                } else {
                    take(name, Stored::F32 { dims, values })?;
                }
            }
            Dtype::I8 => {
                let values = read_ints(&mut reader, bytes)?;
                match scales.remove(&scale_name(&name)) {
                    Some(scale) => take(name.clone(), int8(&name, &dims, values, scale)?)?,
                    None => without_scale.push((name, dims, values)),
                }
            }
            other => return Err(reject(format!("tensor {name} is {other:?}, not F32 or I8"))),
        }
    }
    for (name, dims, values) in without_scale {
        let scale = scale_name(&name);
        let scale = scales
            .remove(&scale)
            .ok_or(Error::MissingTensor { name: scale })?;
        take(name.clone(), int8(&name, &dims, values, scale)?)?;
    }
    Ok(())
}

fn reject(reason: String) -> Error {
    Error::Config { reason }
}

fn unreadable(source: io::Error) -> Error {
    Error::Read { source }
}

/// The list of tensors, which lie one behind the other and fill the rest of the file.
fn header(reader: &mut impl Read, len: u64) -> Result<Metadata, Error> {
    let wrong = |reason: &dyn std::fmt::Display| {
        reject(format!("weights that are no safetensors: {reason}"))
    };
    let mut size = [0; 8];
    reader.read_exact(&mut size).map_err(unreadable)?;
    let size = u64::from_le_bytes(size);
    if size > MAX_HEADER.min(len.saturating_sub(8)) {
        return Err(wrong(&format_args!("a header of {size} bytes")));
    }
    let mut text = vec![0; size as usize];
    reader.read_exact(&mut text).map_err(unreadable)?;
    let read: Metadata = serde_json::from_slice(&text).map_err(|error| wrong(&error))?;
    let infos = read.tensors();
    let tensors: Vec<_> = read
        .offset_keys()
        .into_iter()
        .map(|name| (name.clone(), infos[&name].clone()))
        .collect();
    let end = tensors.last().map_or(0, |(_, info)| info.data_offsets.1);
    // Checks that no tensor is of another size than its shape says and that none leaves a gap.
    let metadata = Metadata::new(None, tensors).map_err(|error| wrong(&error))?;
    match 8 + size + end as u64 == len {
        true => Ok(metadata),
        false => Err(wrong(&"its tensors do not fill it")),
    }
}

fn reserved<T>(len: usize) -> Result<Vec<T>, Error> {
    let mut values = Vec::new();
    let reserved = values.try_reserve_exact(len);
    reserved.map_err(|_| Error::Memory {
        bytes: len.saturating_mul(size_of::<T>()),
    })?;
    Ok(values)
}

fn read_floats(reader: &mut impl Read, bytes: usize) -> Result<Vec<f32>, Error> {
    let mut values = reserved(bytes / 4)?;
    let mut piece = vec![0; PIECE.min(bytes)];
    let mut left = bytes;
    while left > 0 {
        let piece = &mut piece[..PIECE.min(left)];
        reader.read_exact(piece).map_err(unreadable)?;
        let (words, _) = piece.as_chunks::<4>();
        values.extend(words.iter().map(|word| f32::from_le_bytes(*word)));
        left -= piece.len();
    }
    Ok(values)
}

fn read_ints(reader: &mut impl Read, bytes: usize) -> Result<Vec<i8>, Error> {
    let mut values = reserved(bytes)?;
    let mut piece = vec![0; PIECE.min(bytes)];
    let mut left = bytes;
    while left > 0 {
        let piece = &mut piece[..PIECE.min(left)];
        reader.read_exact(piece).map_err(unreadable)?;
        values.extend(piece.iter().map(|byte| *byte as i8));
        left -= piece.len();
    }
    Ok(values)
}

fn int8(
    name: &str,
    shape: &[usize],
    values: Vec<i8>,
    (scale_shape, scale): (Vec<usize>, Vec<f32>),
) -> Result<Stored, Error> {
    let &[n, k] = shape else {
        let axes = shape.len();
        return Err(reject(format!("int8 tensor {name} has {axes} axes, not 2")));
    };
    if scale_shape != [n] || !scale.iter().all(|s| s.is_finite()) {
        return Err(reject(format!(
            "int8 tensor {name} has no {n} finite scales"
        )));
    }
    Ok(Stored::I8 {
        dims: [n, k],
        values,
        scale,
    })
}

/// The tensors of a file as its bytes.
#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Vec<u8> {
        let float = |values: Vec<f32>| Stored::F32 {
            dims: vec![values.len()],
            values,
        };
        let int8 = Stored::I8 {
            dims: [2, 2],
            values: vec![1, 2, -3, 127],
            scale: vec![0.5, 0.25],
        };
        let tensors = [
            ("a.bias".to_owned(), float(vec![1.0, -2.5, 3.0])),
            ("a.weight".to_owned(), int8),
            ("b".to_owned(), float(vec![0.0; PIECE / 4 + 3])),
            ("empty".to_owned(), float(Vec::new())),
        ];
        EncoderWeights(tensors.into()).to_bytes().unwrap()
    }

    #[test]
    fn a_file_cut_anywhere_or_of_another_length_is_refused() {
        let bytes = some();
        let whole = EncoderWeights::from_bytes(&bytes).unwrap();
        assert_eq!(whole.to_bytes().unwrap(), bytes);
        for end in (0..600).chain([bytes.len() - 1]) {
            assert!(EncoderWeights::from_bytes(&bytes[..end]).is_err(), "{end}");
            let len = bytes.len() as u64;
            assert!(EncoderWeights::read(&bytes[..end], len).is_err(), "{end}");
        }
        assert!(EncoderWeights::read(&*bytes, bytes.len() as u64 + 4).is_err());
        assert!(EncoderWeights::from_bytes(&[&*bytes, &[0; 4]].concat()).is_err());
    }

    #[test]
    fn sizes_that_lie_are_refused_before_memory_is_taken() {
        for (from, to) in [
            ("[0,12]", "[0,99]"),
            ("\"shape\":[3]", "\"shape\":[9]"),
            ("\"shape\":[2,2]", "\"shape\":[2,0]"),
            ("I8", "U8"),
        ] {
            let bytes = some();
            let at = bytes.windows(from.len()).position(|w| w == from.as_bytes());
            let at = at.unwrap_or_else(|| panic!("{from} is in the header"));
            let mut changed = bytes.clone();
            changed[at..at + to.len()].copy_from_slice(to.as_bytes());
            assert!(EncoderWeights::from_bytes(&changed).is_err(), "{from}");
        }
        let mut huge = some();
        huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        let error = EncoderWeights::from_bytes(&huge).unwrap_err().to_string();
        assert!(error.contains("header"), "{error}");
    }

    #[test]
    fn every_changed_byte_of_the_header_is_an_error_or_other_weights() {
        let bytes = some();
        let names: HashMap<_, _> = EncoderWeights::from_bytes(&bytes)
            .unwrap()
            .0
            .into_iter()
            .collect();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        for at in 0..header {
            let mut changed = bytes.clone();
            changed[at] ^= 0x01;
            if let Ok(weights) = EncoderWeights::from_bytes(&changed) {
                let same = weights.0.iter().all(|(n, t)| names.get(n) == Some(t));
                // Spaces that pad the header mean nothing.
                assert!(!same || weights.0.len() != names.len() || bytes[at] == b' ');
            }
        }
    }
}
