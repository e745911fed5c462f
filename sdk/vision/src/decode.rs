//! Image files to [`Image`]: the format is told by content, the size is checked in the header, damage is an error.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use crate::picture::{Image, Pixels};

/// Most pixels an image may have: 2^27, 134 megapixels.
pub const MAX_PIXELS: u64 = 1 << 27;
/// Most bytes a file may have: 2^31, more than [`MAX_PIXELS`] of 16-bit RGBA without compression.
pub const MAX_FILE_BYTES: u64 = 1 << 31;

/// Why a file is not an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// File.
        path: PathBuf,
        /// Reason.
        source: io::Error,
    },
    /// The file is larger than any image accepted.
    #[error(
        "{} has {bytes} bytes, more than the limit of {limit}; scale the image down or cut it into tiles",
        path.display()
    )]
    FileSize {
        /// File.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// [`MAX_FILE_BYTES`].
        limit: u64,
    },
    /// The content is none of the formats read.
    #[error(
        "{} is not a JPEG, PNG, BMP, TIFF or PGM/PPM image; convert it or remove it from the folder",
        path.display()
    )]
    NotAnImage {
        /// File.
        path: PathBuf,
    },
    /// The header announces more pixels than accepted.
    #[error(
        "{} is {width}x{height} pixels, more than the limit of {limit} pixels; \
         scale the image down or cut it into tiles",
        path.display()
    )]
    TooManyPixels {
        /// File.
        path: PathBuf,
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
        /// [`MAX_PIXELS`].
        limit: u64,
    },
    /// The header announces no pixel at all.
    #[error("{} is {width}x{height} pixels, which is empty; remove it from the folder", path.display())]
    NoPixels {
        /// File.
        path: PathBuf,
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// The file ends early.
    #[error("{} is truncated: {detail}; copy it again or remove it from the folder", path.display())]
    Truncated {
        /// File.
        path: PathBuf,
        /// What is missing.
        detail: String,
    },
    /// A variant of the format that is not read.
    #[error("{}: {detail} is not supported; save it as 8 or 16 bit grey or RGB", path.display())]
    Unsupported {
        /// File.
        path: PathBuf,
        /// Variant.
        detail: String,
    },
    /// The content is damaged.
    #[error("{} is damaged: {detail}; copy it again or remove it from the folder", path.display())]
    Damaged {
        /// File.
        path: PathBuf,
        /// What the decoder found.
        detail: String,
    },
}

/// Decodes one file. Grey stays grey, palettes become RGB, alpha is dropped, and EXIF orientation is not applied, because a
/// camera frame has none.
///
/// # Errors
/// [`DecodeError`], naming the file and what to do.
pub fn decode_file(path: &Path) -> Result<Image, DecodeError> {
    let read = |source| DecodeError::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(read)?;
    let meta = file.metadata().map_err(read)?;
    if !meta.is_file() {
        return Err(read(io::Error::other("not a regular file")));
    }
    if meta.len() > MAX_FILE_BYTES {
        return Err(DecodeError::FileSize {
            path: path.to_owned(),
            bytes: meta.len(),
            limit: MAX_FILE_BYTES,
        });
    }
    let mut bytes = Vec::with_capacity(meta.len() as usize);
    file.by_ref()
        .take(MAX_FILE_BYTES)
        .read_to_end(&mut bytes)
        .map_err(read)?;
    decode_bytes(&bytes, path)
}

/// Decodes a file in memory; `name` is used in errors only.
///
/// # Errors
/// As [`decode_file`].
pub fn decode_bytes(bytes: &[u8], name: &Path) -> Result<Image, DecodeError> {
    let format = image::guess_format(bytes).ok().filter(|format| {
        matches!(
            format,
            ImageFormat::Jpeg
                | ImageFormat::Png
                | ImageFormat::Bmp
                | ImageFormat::Tiff
                | ImageFormat::Pnm
        )
    });
    let Some(format) = format else {
        return Err(DecodeError::NotAnImage {
            path: name.to_owned(),
        });
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits());
    let decoder = reader.into_decoder().map_err(|e| decode_error(e, name))?;
    let (width, height) = decoder.dimensions();
    check_size(width, height, name)?;
    if format == ImageFormat::Jpeg && !jpeg_is_complete(bytes) {
        return Err(DecodeError::Truncated {
            path: name.to_owned(),
            detail: "the JPEG data end before the end-of-image marker".into(),
        });
    }
    let decoded = DynamicImage::from_decoder(decoder).map_err(|e| decode_error(e, name))?;
    let pixels = into_pixels(decoded).map_err(|detail| DecodeError::Unsupported {
        path: name.to_owned(),
        detail,
    })?;
    Ok(Image::tight(width, height, pixels))
}

fn limits() -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(2 * MAX_FILE_BYTES);
    limits
}

fn check_size(width: u32, height: u32, name: &Path) -> Result<(), DecodeError> {
    let path = || name.to_owned();
    match u64::from(width) * u64::from(height) {
        0 => Err(DecodeError::NoPixels {
            path: path(),
            width,
            height,
        }),
        n if n > MAX_PIXELS => Err(DecodeError::TooManyPixels {
            path: path(),
            width,
            height,
            limit: MAX_PIXELS,
        }),
        _ => Ok(()),
    }
}

fn into_pixels(image: DynamicImage) -> Result<Pixels, String> {
    Ok(match image {
        DynamicImage::ImageLuma8(v) => Pixels::Gray8(v.into_raw()),
        DynamicImage::ImageLumaA8(v) => Pixels::Gray8(drop_last::<_, 2>(v.as_raw())),
        DynamicImage::ImageRgb8(v) => Pixels::Rgb8(v.into_raw()),
        DynamicImage::ImageRgba8(v) => Pixels::Rgb8(drop_last::<_, 4>(v.as_raw())),
        DynamicImage::ImageLuma16(v) => Pixels::Gray16(v.into_raw()),
        DynamicImage::ImageLumaA16(v) => Pixels::Gray16(drop_last::<_, 2>(v.as_raw())),
        DynamicImage::ImageRgb16(v) => Pixels::Rgb16(v.into_raw()),
        DynamicImage::ImageRgba16(v) => Pixels::Rgb16(drop_last::<_, 4>(v.as_raw())),
        other => return Err(format!("{:?} pixels", other.color())),
    })
}

fn drop_last<T: Copy, const N: usize>(samples: &[T]) -> Vec<T> {
    samples
        .chunks_exact(N)
        .flat_map(|pixel| &pixel[..N - 1])
        .copied()
        .collect()
}

fn decode_error(error: ImageError, name: &Path) -> DecodeError {
    let path = name.to_owned();
    let detail = error.to_string();
    match error {
        ImageError::IoError(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            DecodeError::Truncated { path, detail }
        }
        ImageError::Unsupported(_) => DecodeError::Unsupported { path, detail },
        _ => DecodeError::Damaged { path, detail },
    }
}

/// True if the marker structure of a JPEG (ITU-T T.81, annex B) reaches its end-of-image marker. The decoder fills missing
/// rows with grey, which would teach an encoder a defect that is not there.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    const EOI: u8 = 0xD9;
    let standalone = |marker: u8| matches!(marker, 0x01 | 0xD0..=0xD8);
    let mut at = 2;
    loop {
        let Some(skip) = bytes.get(at..).and_then(|rest| {
            rest.windows(2)
                .position(|w| w[0] == 0xFF && !matches!(w[1], 0x00 | 0xFF))
        }) else {
            return false;
        };
        let marker = bytes[at + skip + 1];
        at += skip + 2;
        if marker == EOI {
            return true;
        }
        if standalone(marker) {
            continue;
        }
        let Some(&[high, low]) = bytes.get(at..at + 2) else {
            return false;
        };
        at += usize::from(u16::from_be_bytes([high, low]));
    }
}

#[cfg(test)]
mod tests;
