//! Good parts only: anomaly scores and heat maps from 1 to N good parts.
//!
//! ```no_run
//! use ssl_edge::anomaly::{GoodFrame, Normal, NormalOptions, Rates, TILES, frame_tokens, heat_map};
//! use ssl_edge::encoder::{Encoder, EngineKind, Options};
//! use ssl_edge::vision::decode_file;
//!
//! let encoder = Encoder::open("encoder.sslb".as_ref(), &Options { engine: EngineKind::Native, threads: 2, ..Options::default() })?;
//! let good = ["good/1.png", "good/2.png", "good/3.png"]
//!     .iter()
//!     .map(|file| frame_tokens(&encoder, &decode_file(file.as_ref())?.frame(), TILES))
//!     .collect::<Result<Vec<_>, ssl_edge::Error>>()?;
//! let frames = good
//!     .iter()
//!     .enumerate()
//!     .map(|(part, tokens)| Ok(GoodFrame { grid: tokens.grid()?, part, copy_of: None }))
//!     .collect::<Result<Vec<_>, ssl_edge::Error>>()?;
//! let normal = Normal::fit(&frames, &NormalOptions::default(), &Rates::default())?;
//!
//! let image = decode_file("part.png".as_ref())?;
//! let verdict = normal.inspect(&frame_tokens(&encoder, &image.frame(), TILES)?.grid()?)?;
//! let heat = heat_map(&image.frame(), &verdict.heat, 4.0)?;
//! println!("{} p = {} (not below {})", verdict.anomalous, verdict.p_value, normal.report().floor);
//! # let _ = heat;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::Error;
use crate::encoder::{Embedding, Encoder, Limit};
use crate::vision::{Fit, Frame, Roi};

pub use ssl_edge_adapt::anomaly::{
    Bank, Conformal, GoodFrame, HeatRegion, HoldOut, Method, NeighbourOptions, Normal, NormalModel,
    NormalOptions, NormalReport, NormalVerdict, Pca, PcaOptions, Prepare, Rates, Storage,
    Threshold, ThresholdSource, TokenGrid, TokenMap, TokenStatistics, frame_heat, frame_statistics,
    token_mask,
};
pub use ssl_edge_adapt::eval::{
    AnomalySplit, PixelMetrics, PixelScores, anomaly_splits, auroc, auroc_standard_error,
};

/// Tiles along the shorter side of a frame that serve small encoders best: defects are smaller than the tokens of one tile.
pub const TILES: usize = 2;

/// Patch tokens of a frame's region of interest.
#[derive(Clone, Debug, PartialEq)]
pub struct FrameTokens {
    /// `[rows, cols, dim]`, row-major.
    pub values: Vec<f32>,
    /// Rows and columns.
    pub size: [usize; 2],
    /// Values of a token.
    pub dim: usize,
}

impl FrameTokens {
    /// The view that models take.
    ///
    /// # Errors
    /// As [`TokenGrid::new`].
    pub fn grid(&self) -> Result<TokenGrid<'_>, Error> {
        Ok(TokenGrid::new(&self.values, self.size, self.dim)?)
    }
}

/// Tiles along the two sides of a region of `width` x `height` pixels, `[down, across]`: `shorter` along the shorter side, and along the
/// longer one as many as make the tiles nearest to square.
pub fn tile_grid(width: u32, height: u32, shorter: usize) -> [usize; 2] {
    let along = |long: u32, short: u32| {
        let ratio = f64::from(long) / f64::from(short.max(1));
        ((ratio * shorter as f64).round() as usize).max(shorter)
    };
    if width < height {
        [along(height, width), shorter]
    } else {
        [shorter, along(width, height)]
    }
}

/// Patch tokens of the whole region of interest of `frame`, cut into tiles without overlap, `shorter` (at least 1) of them along its shorter
/// side. Each tile is stretched to the encoder's input, so that nothing is lost at the borders, and the tokens of all tiles make one grid.
///
/// # Errors
/// As [`Encoder::embed`]; tiles of less than a pixel.
pub fn frame_tokens(
    encoder: &Encoder,
    frame: &Frame<'_>,
    shorter: usize,
) -> Result<FrameTokens, Error> {
    frame_tokens_within(encoder, frame, shorter, &Limit::default())
}

/// As [`frame_tokens`], but gives up when `limit` passes.
pub(crate) fn frame_tokens_within(
    encoder: &Encoder,
    frame: &Frame<'_>,
    shorter: usize,
    limit: &Limit,
) -> Result<FrameTokens, Error> {
    let region = frame.region();
    let [down, across] = tile_grid(region.width, region.height, shorter.max(1));
    let mut preprocess = encoder.preprocess().clone();
    preprocess.fit = Fit::Squash;
    let mut tiles = Vec::with_capacity(down * across);
    let mut input = vec![0.0; preprocess.len() * across];
    for row in 0..down {
        for (col, out) in input.chunks_exact_mut(preprocess.len()).enumerate() {
            let (x, width) = slice(region.width, across, col);
            let (y, height) = slice(region.height, down, row);
            let roi = Roi {
                x: region.x + x,
                y: region.y + y,
                width,
                height,
            };
            preprocess.apply(&frame.with_roi(roi)?, out)?;
        }
        tiles.extend(encoder.embed_preprocessed_within(&input, across, limit)?);
    }
    Ok(stitch(&tiles, [down, across], encoder.dim()))
}

/// Heat of a verdict at each pixel of the whole frame, `[height, width]`, 0 outside its region of interest; see [`frame_heat`].
///
/// # Errors
/// A `sigma` out of range.
pub fn heat_map(frame: &Frame<'_>, heat: &TokenMap, sigma: f64) -> Result<Vec<f32>, Error> {
    let roi = frame.region();
    let region = HeatRegion {
        x: roi.x as usize,
        y: roi.y as usize,
        width: roi.width as usize,
        height: roi.height as usize,
    };
    let size = [frame.height() as usize, frame.width() as usize];
    Ok(frame_heat(heat, size, region, sigma)?)
}

/// Heat at each pixel of the frame's region of interest, `[region height, region width]`; see [`frame_heat`].
///
/// # Errors
/// A `sigma` out of range.
pub fn region_heat(frame: &Frame<'_>, heat: &TokenMap, sigma: f64) -> Result<Vec<f32>, Error> {
    let roi = frame.region();
    let [height, width] = [roi.height as usize, roi.width as usize];
    let region = HeatRegion {
        x: 0,
        y: 0,
        width,
        height,
    };
    Ok(frame_heat(heat, [height, width], region, sigma)?)
}

/// Start and length of part `index` of `parts` of `size` pixels.
fn slice(size: u32, parts: usize, index: usize) -> (u32, u32) {
    let at = |i: usize| (u64::from(size) * i as u64 / parts as u64) as u32;
    (at(index), at(index + 1) - at(index))
}

fn stitch(tiles: &[Embedding], [down, across]: [usize; 2], dim: usize) -> FrameTokens {
    let [rows, cols] = tiles[0].grid;
    let mut values = Vec::with_capacity(tiles.len() * rows * cols * dim);
    for y in 0..down * rows {
        for tile in &tiles[y / rows * across..][..across] {
            values.extend(&tile.patches[y % rows * cols * dim..][..cols * dim]);
        }
    }
    FrameTokens {
        values,
        size: [down * rows, across * cols],
        dim,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_nearly_square_and_cover_everything_once() {
        assert_eq!(tile_grid(512, 512, 2), [2, 2]);
        assert_eq!(tile_grid(250, 623, 2), [5, 2]);
        assert_eq!(tile_grid(640, 480, 1), [1, 1]);
        assert_eq!(tile_grid(1920, 480, 1), [1, 4]);
        for (size, parts) in [(250, 2), (623, 5), (7, 7), (1000, 3)] {
            let ends: Vec<_> = (0..parts).map(|i| slice(size, parts, i)).collect();
            let mut next = 0;
            for (start, len) in ends {
                assert_eq!(start, next);
                assert!(len > 0);
                next = start + len;
            }
            assert_eq!(next, size);
        }
    }

    #[test]
    fn tokens_of_tiles_are_put_in_their_places() {
        let tile = |first: f32| Embedding {
            cls: vec![0.0],
            mean: vec![0.0],
            patches: (0..4).map(|i| first + i as f32).collect(),
            grid: [2, 2],
        };
        let tokens = stitch(&[tile(0.0), tile(10.0), tile(20.0), tile(30.0)], [2, 2], 1);
        assert_eq!(tokens.size, [4, 4]);
        let want = [0, 1, 10, 11, 2, 3, 12, 13, 20, 21, 30, 31, 22, 23, 32, 33];
        assert_eq!(tokens.values, want.map(|v| v as f32));
    }
}
