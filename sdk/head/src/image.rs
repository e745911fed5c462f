//! The byte image of a head: what lies in flash.
//!
//! All numbers are little-endian. `D` values an embedding, `C` classes, `R` rows (taught samples).
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | magic `SSLEHEAD` |
//! | 8 | 2 | version |
//! | 10 | 2 | flags: bit 0 the scores are divided by the embedding's norm, bit 1 there is an unknown rule |
//! | 12 | 6 | D, C, R as `u16` |
//! | 18 | 2 | job number, by which a line's controller names the job |
//! | 20 | 4 | length of the image, checksum included |
//! | 24 | 1 | logit bits `F`: a logit's unit is 2^-F |
//! | 25 | 1 | centre bits `s`: the embedding is `v = centre + 2^s q` in integers |
//! | 26 | 1 | row bits `e`: a row's factor is `2^e / ‖v_row‖` |
//! | 27 | 1 | zero |
//! | 28 | 4 | `i32`, Q30: the cosine below which a frame is unknown |
//! | 32 | 32 | hash of the encoder |
//! | 64 | 4 | `f32` step `t`: `q = x / t - centre / 2^s`, for hosts that have `f32` embeddings |
//! | 68 | 4 | zero |
//! | 72 | 16 C | each class: id `u32`, factor `u32`, offset `i64`; logit = factor · (weights · q) + offset |
//! | | 24 R | each row: sample id `u64`, offset `i64` (`centre · v_row`), factor `u32`, class index `u16`, zero `u16` |
//! | | 2 D | centre, `i16` |
//! | | C D | weights, `i8` |
//! | | R D | rows `q`, `i8` |
//! | | 4 | CRC-32 (ISO-HDLC) of all before |
//!
//! Magic, version and length stay where they are in every version. Any later version of the layout has a new version number.

use crate::error::ImageError;
use crate::fixed::EXP_BITS;
use crate::{MAX_CLASSES, MAX_DIM};
use crc::{CRC_32_ISO_HDLC, Crc};

pub(crate) const MAGIC: [u8; 8] = *b"SSLEHEAD";
pub(crate) const VERSION: u16 = 1;
pub(crate) const HEADER: usize = 72;
pub(crate) const CLASS: usize = 16;
pub(crate) const ROW: usize = 24;
pub(crate) const CHECKSUM: usize = 4;
pub(crate) const COSINE: u16 = 1;
pub(crate) const UNKNOWN: u16 = 2;
/// Logits stay below 2^63 with offsets up to this.
pub(crate) const MAX_OFFSET: u64 = 1 << 62;
/// Those that the softmax reads.
pub(crate) const MIN_LOGIT_BITS: u8 = EXP_BITS as u8;
pub(crate) const MAX_LOGIT_BITS: u8 = 60;
pub(crate) const MAX_CENTRE_BITS: u8 = 8;
pub(crate) const MIN_ROW_BITS: u8 = 16;
pub(crate) const MAX_ROW_BITS: u8 = 63;
/// `centre · v` of up to [`MAX_DIM`] values stays below this.
pub(crate) const MAX_ROW_OFFSET: u64 = 1 << 45;
pub(crate) const ONE_Q30: i32 = 1 << 30;

pub(crate) const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// A head in an image that somebody else holds; checked once, nothing is copied.
///
/// Reading costs no allocation and never panics, whatever the bytes: sizes are checked against [`MAX_DIM`], [`MAX_CLASSES`] and the length
/// of the bytes before they are used.
#[derive(Clone, Copy, Debug)]
pub struct HeadImage<'a> {
    pub(crate) header: Header,
    pub(crate) classes: &'a [[u8; CLASS]],
    pub(crate) rows: &'a [[u8; ROW]],
    pub(crate) centre: &'a [u8],
    pub(crate) weights: &'a [u8],
    pub(crate) row_values: &'a [u8],
    /// `‖centre‖²`
    pub(crate) centre_square: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) cosine: bool,
    pub(crate) unknown: bool,
    pub(crate) dim: u16,
    pub(crate) n_classes: u16,
    pub(crate) n_rows: u16,
    pub(crate) job: u16,
    pub(crate) length: u32,
    pub(crate) logit_bits: u8,
    pub(crate) centre_bits: u8,
    pub(crate) row_bits: u8,
    pub(crate) cosine_limit: i32,
    pub(crate) encoder: [u8; 32],
    /// Bits of `t`: nothing on the device computes with it.
    pub(crate) step: u32,
}

pub(crate) struct ClassRecord {
    pub(crate) id: u32,
    pub(crate) factor: u32,
    pub(crate) offset: i64,
}

pub(crate) struct RowRecord {
    pub(crate) sample: u64,
    pub(crate) offset: i64,
    pub(crate) factor: u32,
    pub(crate) class: u16,
}

impl<'a> HeadImage<'a> {
    /// Reads an image at the start of `bytes`; what lies behind it (a page of flash that is not full) is not looked at.
    ///
    /// # Errors
    ///
    /// [`ImageError`]: no image, another version, cut, damaged, or values that this crate would not write.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let start = &bytes[..bytes.len().min(MAGIC.len())];
        if start != &MAGIC[..start.len()] || start.is_empty() {
            return Err(ImageError::NotAHead);
        }
        let cut = |needed| ImageError::Cut {
            needed,
            found: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        };
        let header_bytes = bytes
            .first_chunk::<HEADER>()
            .ok_or(cut((HEADER + CHECKSUM) as u32))?;
        let version = u16_at(header_bytes, 8);
        if version != VERSION {
            return Err(ImageError::Version {
                found: version,
                supported: VERSION,
            });
        }
        let length = u32_at(header_bytes, 20);
        let image = usize::try_from(length)
            .ok()
            .and_then(|length| bytes.get(..length))
            .ok_or(cut(length))?;
        let (content, checksum) = image
            .split_last_chunk::<CHECKSUM>()
            .filter(|(content, _)| content.len() >= HEADER)
            .ok_or(ImageError::BadField { field: "length" })?;
        if CRC.checksum(content) != u32::from_le_bytes(*checksum) {
            return Err(ImageError::Checksum);
        }
        let header = Header::read(header_bytes)?;
        Self::sections(header, &content[HEADER..])
    }

    fn sections(header: Header, content: &'a [u8]) -> Result<Self, ImageError> {
        let bad = |field| ImageError::BadField { field };
        let (dim, n_classes) = (usize::from(header.dim), usize::from(header.n_classes));
        let n_rows = usize::from(header.n_rows);
        let split = |bytes: &'a [u8], n: usize| bytes.split_at_checked(n).ok_or(bad("length"));
        let (classes, rest) = split(content, CLASS * n_classes)?;
        let (rows, rest) = split(rest, ROW * n_rows)?;
        let (centre, rest) = split(rest, 2 * dim)?;
        let (weights, rest) = split(rest, n_classes * dim)?;
        let (row_values, rest) = split(rest, n_rows * dim)?;
        if !rest.is_empty() {
            return Err(bad("length"));
        }
        let centre_square = centre
            .as_chunks::<2>()
            .0
            .iter()
            .map(|c| i64::from(i16::from_le_bytes(*c)))
            .map(|c| (c * c) as u64)
            .sum();
        let image = Self {
            header,
            classes: classes.as_chunks().0,
            rows: rows.as_chunks().0,
            centre,
            weights,
            row_values,
            centre_square,
        };
        if image
            .classes
            .iter()
            .any(|class| ClassRecord::read(class).offset.unsigned_abs() > MAX_OFFSET)
        {
            return Err(bad("class offset"));
        }
        let row_fits = |row: &[u8; ROW]| {
            let record = RowRecord::read(row);
            record.offset.unsigned_abs() <= MAX_ROW_OFFSET
                && record.class < header.n_classes
                && u16_at(row, 22) == 0
        };
        if !image.rows.iter().all(row_fits) {
            return Err(bad("row"));
        }
        Ok(image)
    }

    /// Values of an embedding.
    pub fn dim(&self) -> usize {
        usize::from(self.header.dim)
    }

    /// Number of classes.
    pub fn n_classes(&self) -> usize {
        usize::from(self.header.n_classes)
    }

    /// Taught samples that the image holds for the unknown rule.
    pub fn n_rows(&self) -> usize {
        usize::from(self.header.n_rows)
    }

    /// Whether frames can be unknown.
    pub fn has_unknown_rule(&self) -> bool {
        self.header.unknown
    }

    /// The number by which a line's controller names the job.
    pub fn job(&self) -> u16 {
        self.header.job
    }

    /// Bytes of the image.
    pub fn length(&self) -> usize {
        self.header.length as usize
    }

    /// Hash of the encoder whose embeddings the head is for.
    pub fn encoder(&self) -> &[u8; 32] {
        &self.header.encoder
    }

    /// The id that the job gives to a class, by its index.
    pub fn class_id(&self, class: usize) -> Option<u32> {
        self.classes
            .get(class)
            .map(|class| ClassRecord::read(class).id)
    }

    /// The id that the job gives to the sample of a row, and the index of its class.
    pub fn row(&self, row: usize) -> Option<(u64, u16)> {
        let record = RowRecord::read(self.rows.get(row)?);
        Some((record.sample, record.class))
    }
}

impl Header {
    fn read(bytes: &[u8; HEADER]) -> Result<Self, ImageError> {
        let bad = |field| Err(ImageError::BadField { field });
        let flags = u16_at(bytes, 10);
        let mut encoder = [0; 32];
        encoder.copy_from_slice(&bytes[32..64]);
        let header = Self {
            cosine: flags & COSINE != 0,
            unknown: flags & UNKNOWN != 0,
            dim: u16_at(bytes, 12),
            n_classes: u16_at(bytes, 14),
            n_rows: u16_at(bytes, 16),
            job: u16_at(bytes, 18),
            length: u32_at(bytes, 20),
            logit_bits: bytes[24],
            centre_bits: bytes[25],
            row_bits: bytes[26],
            cosine_limit: u32_at(bytes, 28) as i32,
            encoder,
            step: u32_at(bytes, 64),
        };
        if flags & !(COSINE | UNKNOWN) != 0 {
            return bad("flags");
        }
        if !(1..=MAX_DIM).contains(&usize::from(header.dim)) {
            return bad("values of an embedding");
        }
        if !(1..=MAX_CLASSES).contains(&usize::from(header.n_classes)) {
            return bad("classes");
        }
        if header.unknown && header.n_rows == 0 {
            return bad("rows");
        }
        if !(MIN_LOGIT_BITS..=MAX_LOGIT_BITS).contains(&header.logit_bits) {
            return bad("logit bits");
        }
        if header.centre_bits > MAX_CENTRE_BITS
            || !(MIN_ROW_BITS..=MAX_ROW_BITS).contains(&header.row_bits)
        {
            return bad("centre or row bits");
        }
        if !(-ONE_Q30..=ONE_Q30).contains(&header.cosine_limit) {
            return bad("cosine limit");
        }
        if header.step == 0 || header.step >= f32::INFINITY.to_bits() {
            return bad("step");
        }
        if bytes[27] != 0 || u32_at(bytes, 68) != 0 {
            return bad("reserved");
        }
        Ok(header)
    }
}

impl ClassRecord {
    pub(crate) fn read(bytes: &[u8; CLASS]) -> Self {
        Self {
            id: u32_at(bytes, 0),
            factor: u32_at(bytes, 4),
            offset: u64_at(bytes, 8) as i64,
        }
    }
}

impl RowRecord {
    pub(crate) fn read(bytes: &[u8; ROW]) -> Self {
        Self {
            sample: u64_at(bytes, 0),
            offset: u64_at(bytes, 8) as i64,
            factor: u32_at(bytes, 16),
            class: u16_at(bytes, 20),
        }
    }
}

fn u16_at<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
