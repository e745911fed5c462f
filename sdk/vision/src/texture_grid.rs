//! Hand-made descriptors on a grid, in the shape of an encoder's patch tokens: what a learned encoder has to beat at finding anomalies.

use crate::frame::{Frame, FrameError, Roi};
use crate::resample::{Resized, Scratch};
use crate::texture::{gray, hog_lbp};

/// [`hog_lbp`] of a window around each cell of a grid over the region of interest, `[rows, cols, HOG_LBP_LEN]`. A window is twice as wide
/// and high as its cell, shifted to lie inside the region, and is read at the frame's own resolution.
///
/// # Errors
/// [`FrameError::Roi`] if the grid is empty or has more cells a side than the region has pixels.
pub fn texture_grid(frame: &Frame, grid: [usize; 2]) -> Result<Vec<f32>, FrameError> {
    let region = checked_region(frame, grid)?;
    let [rows, cols] = grid.map(|n| n as u32);
    let mut tokens = Vec::new();
    for row in 0..rows {
        let (y, height) = window(region.height, rows, row);
        for col in 0..cols {
            let (x, width) = window(region.width, cols, col);
            let roi = Roi {
                x: region.x + x,
                y: region.y + y,
                width,
                height,
            };
            tokens.extend(hog_lbp(&frame.with_roi(roi)?.to_image()));
        }
    }
    Ok(tokens)
}

/// The grey pixels, in 0..=1, of each cell of a grid over the region of interest, scaled to `side` x `side`: `[rows, cols, side * side]`.
///
/// # Errors
/// As [`texture_grid`], also for a `side` of 0.
pub fn raw_grid(frame: &Frame, grid: [usize; 2], side: usize) -> Result<Vec<f32>, FrameError> {
    let region = checked_region(frame, if side == 0 { [0, 0] } else { grid })?;
    let [rows, cols] = grid;
    let (width, height) = (cols * side, rows * side);
    // Also brings blue-first and alpha formats to grey or RGB.
    let image = frame.with_roi(region)?.to_image();
    let plane = Scratch::with(|scratch| {
        let resized = scratch.resize(&image, image.frame().region(), width as u32, height as u32);
        match resized {
            Resized::U8(v) => gray(v, image.channels(), 255.0),
            Resized::U16(v) => gray(v, image.channels(), 65535.0),
        }
    });
    let mut tokens = Vec::with_capacity(plane.len());
    for cell in 0..rows * cols {
        for y in 0..side {
            let start = (cell / cols * side + y) * width + cell % cols * side;
            tokens.extend(&plane[start..start + side]);
        }
    }
    Ok(tokens)
}

fn checked_region(frame: &Frame, [rows, cols]: [usize; 2]) -> Result<Roi, FrameError> {
    let region = frame.region();
    let fits = |cells: usize, pixels: u32| cells > 0 && cells <= pixels as usize;
    if fits(rows, region.height) && fits(cols, region.width) {
        return Ok(region);
    }
    Err(FrameError::Roi {
        roi: region,
        width: cols as u32,
        height: rows as u32,
    })
}

/// Start and length of the window around cell `index` of `cells` over `size` pixels.
fn window(size: u32, cells: u32, index: u32) -> (u32, u32) {
    let cell = f64::from(size) / f64::from(cells);
    let length = (2.0 * cell).round().clamp(1.0, f64::from(size));
    let start = ((f64::from(index) + 0.5) * cell - length / 2.0).round();
    let start = start.clamp(0.0, f64::from(size) - length);
    (start as u32, length as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::{Image, Pixels};
    use crate::texture::HOG_LBP_LEN;

    fn image(width: u32, height: u32, f: impl Fn(u32, u32) -> u8) -> Image {
        let samples = (0..width * height)
            .map(|i| f(i % width, i / width))
            .collect();
        Image::new(width, height, Pixels::Gray8(samples)).unwrap()
    }

    #[test]
    fn windows_lie_inside_and_around_their_cells() {
        assert_eq!(window(64, 4, 0), (0, 32));
        assert_eq!(window(64, 4, 1), (8, 32));
        assert_eq!(window(64, 4, 3), (32, 32));
        assert_eq!(window(5, 1, 0), (0, 5));
        for (size, cells) in [(7, 7), (250, 16), (623, 40), (3, 2)] {
            for index in 0..cells {
                let (start, length) = window(size, cells, index);
                assert!(
                    length > 0 && start + length <= size,
                    "{size} {cells} {index}"
                );
            }
        }
    }

    #[test]
    fn each_token_is_the_descriptor_of_its_window() {
        let photo = image(64, 48, |x, y| (x * x * 3 + y * 17 + x * y) as u8);
        let tokens = texture_grid(&photo.frame(), [3, 4]).unwrap();
        assert_eq!(tokens.len(), 12 * HOG_LBP_LEN);
        // Row 1, column 2: cells are 16 x 16, so the window is 32 x 32 from (24, 8) on.
        let crop = image(32, 32, |x, y| {
            let (x, y) = (x + 24, y + 8);
            (x * x * 3 + y * 17 + x * y) as u8
        });
        assert_eq!(tokens[6 * HOG_LBP_LEN..7 * HOG_LBP_LEN], hog_lbp(&crop));
    }

    #[test]
    fn raw_tokens_are_the_pixels_of_their_cells() {
        let photo = image(8, 4, |x, y| (10 * y + x) as u8);
        let tokens = raw_grid(&photo.frame(), [2, 4], 2).unwrap();
        let want: Vec<f32> = [20, 21, 30, 31]
            .iter()
            .map(|v| f32::from(*v as u8) / 255.0)
            .collect();
        let got = &tokens[4 * 4..][..4];
        assert!(
            got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-6),
            "{got:?}"
        );
        assert_eq!(tokens.len(), 32);
    }

    #[test]
    fn grids_that_do_not_fit_are_refused() {
        let photo = image(8, 4, |_, _| 0);
        for grid in [[0, 1], [1, 0], [5, 1], [1, 9]] {
            assert!(texture_grid(&photo.frame(), grid).is_err());
            assert!(raw_grid(&photo.frame(), grid, 2).is_err());
        }
        assert!(raw_grid(&photo.frame(), [1, 1], 0).is_err());
    }
}
