//! Images to PNG, the one format written.

use std::io::Cursor;

use image::{DynamicImage, ImageBuffer, ImageFormat};

use crate::picture::{Image, Pixels};

/// The image as a PNG file, lossless at its depth.
pub fn encode_png(image: &Image) -> Vec<u8> {
    let (w, h) = (image.width(), image.height());
    let dynamic = match image.pixels().clone() {
        Pixels::Gray8(v) => ImageBuffer::from_raw(w, h, v).map(DynamicImage::ImageLuma8),
        Pixels::Gray16(v) => ImageBuffer::from_raw(w, h, v).map(DynamicImage::ImageLuma16),
        Pixels::Rgb8(v) => ImageBuffer::from_raw(w, h, v).map(DynamicImage::ImageRgb8),
        Pixels::Rgb16(v) => ImageBuffer::from_raw(w, h, v).map(DynamicImage::ImageRgb16),
    };
    let mut bytes = Cursor::new(Vec::new());
    dynamic
        .expect("an image holds exactly width x height pixels")
        .write_to(&mut bytes, ImageFormat::Png)
        .expect("memory takes every PNG");
    bytes.into_inner()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::decode::decode_bytes;

    #[test]
    fn every_format_comes_back() {
        for pixels in [
            Pixels::Gray8((0..6).collect()),
            Pixels::Gray16((0..6).map(|v| v * 9999).collect()),
            Pixels::Rgb8((0..18).collect()),
            Pixels::Rgb16((0..18).map(|v| v * 3333).collect()),
        ] {
            let image = Image::new(2, 3, pixels).unwrap();
            let decoded = decode_bytes(&encode_png(&image), Path::new("x.png")).unwrap();
            assert_eq!(decoded, image);
        }
    }
}
