//! Pictures of heat: a frame in grey, coloured where it is unlike what it should be.

use anyhow::{Context, Result};
use ssl_edge::anomaly::{TokenMap, heat_map};
use ssl_edge::encoder::save;
use ssl_edge::vision::{Image, Pixels, encode_png};
use std::path::Path;

/// Blur of heat maps in pixels.
const SIGMA: f64 = 4.0;

/// Writes `heat` of `image` into `folder`, as a PNG named after `file`.
pub(crate) fn draw_heat(folder: &Path, file: &Path, image: &Image, heat: &TokenMap) -> Result<()> {
    let heat = heat_map(&image.frame(), heat, SIGMA)?;
    let drawn = heat_picture(image, &heat)?;
    let name: String = file
        .display()
        .to_string()
        .chars()
        .map(|c| if c == '/' || c == '\\' { '_' } else { c })
        .collect();
    let out = folder.join(format!("{}.png", name.trim_start_matches(['.', '_'])));
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    Ok(save(&out, &encode_png(&drawn))?)
}

/// The grey picture, coloured from yellow to red where the heat is above 1, the threshold; in full at 2.
fn heat_picture(image: &Image, heat: &[f32]) -> Result<Image> {
    let grey = raw_plane(image);
    let mut rgb = Vec::with_capacity(3 * heat.len());
    for (&value, &heat) in grey.iter().zip(heat) {
        let strength = (heat - 1.0).clamp(0.0, 0.5) * 2.0;
        let above = (heat - 1.0).clamp(0.0, 1.0);
        let mix = |colour: f32| (value * (1.0 - strength) + colour * strength) as u8;
        rgb.extend([mix(255.0), mix(220.0 * (1.0 - above)), mix(0.0)]);
    }
    Ok(Image::new(
        image.width(),
        image.height(),
        Pixels::Rgb8(rgb),
    )?)
}

/// Grey values, 0 to 255.
fn raw_plane(image: &Image) -> Vec<f32> {
    let grey = |pixel: &[f32]| pixel.iter().sum::<f32>() / pixel.len() as f32;
    let channels = image.channels();
    let values: Vec<f32> = match image.pixels() {
        Pixels::Gray8(v) | Pixels::Rgb8(v) => v.iter().map(|x| f32::from(*x)).collect(),
        Pixels::Gray16(v) | Pixels::Rgb16(v) => v.iter().map(|x| f32::from(*x) / 257.0).collect(),
    };
    values.chunks_exact(channels).map(grey).collect()
}
