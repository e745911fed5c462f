//! What a frame says of its camera: light, focus, overexposure.

use crate::frame::Frame;
use crate::texture::luma;

/// Numbers of one frame's region of interest that do not depend on any encoder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// Mean luma, 0..=1.
    pub brightness: f64,
    /// Variance of the 4-neighbour Laplacian of the luma in 0..=255, inside the border: larger is sharper (Pech-Pacheco et al. 2000). 0 for
    /// fewer than 3 x 3 pixels.
    pub focus: f64,
    /// Share of pixels whose luma is 0.98 or more.
    pub saturated: f64,
}

/// Luma from which a pixel counts as overexposed.
const SATURATED: f32 = 0.98;

impl Quality {
    /// Measures the region of interest of `frame`.
    pub fn of(frame: &Frame) -> Self {
        let image = frame.to_image();
        let plane = luma(&image);
        let n = plane.len() as f64;
        let sum: f64 = plane.iter().map(|v| f64::from(*v)).sum();
        let saturated = plane.iter().filter(|v| **v >= SATURATED).count();
        Self {
            brightness: sum / n,
            focus: laplacian_variance(&plane, image.width() as usize, image.height() as usize),
            saturated: saturated as f64 / n,
        }
    }
}

fn laplacian_variance(plane: &[f32], width: usize, height: usize) -> f64 {
    if width < 3 || height < 3 {
        return 0.0;
    }
    let (mut sum, mut squares) = (0.0, 0.0);
    for y in 1..height - 1 {
        for x in 1..width - 1 {
            let at = |x: usize, y: usize| f64::from(plane[y * width + x]) * 255.0;
            let value = at(x - 1, y) + at(x + 1, y) + at(x, y - 1) + at(x, y + 1) - 4.0 * at(x, y);
            sum += value;
            squares += value * value;
        }
    }
    let n = ((width - 2) * (height - 2)) as f64;
    (squares / n - (sum / n).powi(2)).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::PixelFormat;
    use crate::frame::Roi;

    fn quality(width: u32, height: u32, f: impl Fn(u32, u32) -> u8) -> Quality {
        let data: Vec<u8> = (0..width * height)
            .map(|i| f(i % width, i / width))
            .collect();
        Quality::of(
            &Frame::new(
                &data,
                width as usize,
                width,
                height,
                PixelFormat::Gray8,
                None,
            )
            .unwrap(),
        )
    }

    #[test]
    fn numbers_of_hand_made_pictures() {
        let flat = quality(9, 9, |_, _| 51);
        assert!((flat.brightness - 0.2).abs() < 1e-6);
        assert_eq!(
            (flat.saturated, quality(2, 9, |_, y| y as u8).focus),
            (0.0, 0.0)
        );
        assert!(flat.focus < 1e-6);
        // A chequerboard of 0 and 255: the Laplacian is +-1020.
        let board = quality(10, 10, |x, y| if (x + y) % 2 == 0 { 255 } else { 0 });
        assert!((board.focus / 1020f64.powi(2) - 1.0).abs() < 1e-6);
        assert!((board.brightness - 0.5).abs() < 1e-6 && (board.saturated - 0.5).abs() < 1e-12);
    }

    #[test]
    fn blur_lowers_focus_and_only_the_region_counts() {
        let sharp = |x: u32, y: u32| (x * 37 + y * 91) as u8;
        let blurred = |x: u32, y: u32| {
            let sum: u32 = (0..3)
                .flat_map(|i| (0..3).map(move |j| u32::from(sharp(x + i, y + j))))
                .sum();
            (sum / 9) as u8
        };
        assert!(quality(30, 30, blurred).focus < 0.5 * quality(30, 30, sharp).focus);
        let data: Vec<u8> = (0..100).map(|i| if i % 10 < 5 { 0 } else { 255 }).collect();
        let roi = Roi {
            x: 5,
            y: 0,
            width: 5,
            height: 10,
        };
        let frame = Frame::new(&data, 10, 10, 10, PixelFormat::Gray8, Some(roi)).unwrap();
        assert_eq!(Quality::of(&frame).saturated, 1.0);
    }
}
