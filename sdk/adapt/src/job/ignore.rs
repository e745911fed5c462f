//! Regions of the frame that do not count: clamps, printed numbers, a conveyor behind the part.
//!
//! A mask belongs to the job and covers the frame's region of interest, whatever its resolution: it must have the frame's shape, not its size
//! ([`IgnoreMask::check_frame`]). It leaves out patch tokens, when the surface of good parts is learned and when a frame is judged by it. Tokens are
//! kept whole with the samples, so that another mask needs no new teaching. The head and the distance see whole frames: an encoder mixes all
//! patches.

use super::change::Undo;
use super::{Job, SampleTokens};
use crate::anomaly::TokenGrid;
use crate::error::AdaptError;
use crate::history::Action;
use serde::{Deserialize, Serialize};

/// Longest side of a mask in pixels.
const MAX_SIDE: usize = 65_535;
/// How far the ratio of a frame's sides may be from the mask's: one part in this many.
const SHAPE: u64 = 100;

/// Pixels of the region of interest that do not count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IgnoreMask {
    /// Height and width.
    size: [u32; 2],
    /// Ignored pixels, by row, then column; spans of a row do not touch.
    spans: Vec<Span>,
}

/// Columns `start..end` of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Span {
    row: u32,
    start: u32,
    end: u32,
}

impl IgnoreMask {
    /// From pixels `[height, width]`, row-major, `true` where a pixel does not count.
    ///
    /// # Errors
    ///
    /// Another number of pixels, a side of 0 or above 65,535; [`AdaptError::AllMasked`]; [`AdaptError::BadOption`] for a mask that ignores nothing.
    pub fn new(ignored: &[bool], [height, width]: [usize; 2]) -> Result<Self, AdaptError> {
        let sides = 1..=MAX_SIDE;
        let sized = sides.contains(&height) && sides.contains(&width);
        if !sized || height * width != ignored.len() {
            return Err(AdaptError::GridShape {
                what: "ignore mask",
                expected: format!("{width} x {height} pixels, 1 to {MAX_SIDE} a side"),
                got: format!("{} values", ignored.len()),
                remedy: "pass one value for each pixel of the mask",
            });
        }
        let mut spans = Vec::new();
        for (row, line) in ignored.chunks_exact(width).enumerate() {
            let mut start = 0;
            for run in line.chunk_by(|a, b| a == b) {
                let end = start + run.len();
                if run[0] {
                    spans.push(Span {
                        row: row as u32,
                        start: start as u32,
                        end: end as u32,
                    });
                }
                start = end;
            }
        }
        let mask = Self {
            size: [height as u32, width as u32],
            spans,
        };
        match mask.ignored_pixels() {
            0 => Err(AdaptError::BadOption {
                name: "ignore mask",
                value: "without an ignored pixel".into(),
                range: "one that ignores some of the frame",
            }),
            all if all == ignored.len() as u64 => Err(AdaptError::AllMasked {
                what: "ignore mask".into(),
            }),
            _ => Ok(mask),
        }
    }

    /// The pixels that [`Self::new`] was given.
    pub fn ignored(&self) -> Vec<bool> {
        let [height, width] = self.size();
        let mut pixels = vec![false; height * width];
        for span in &self.spans {
            let row = &mut pixels[span.row as usize * width..][..width];
            row[span.start as usize..span.end as usize].fill(true);
        }
        pixels
    }

    /// Height and width in pixels.
    pub fn size(&self) -> [usize; 2] {
        self.size.map(|side| side as usize)
    }

    /// Share of the pixels that do not count, 0..1.
    pub fn share(&self) -> f64 {
        let [height, width] = self.size.map(f64::from);
        self.ignored_pixels() as f64 / (height * width)
    }

    /// Checks that a frame, or its region of interest, of `[height, width]` pixels has the mask's shape: the ratios of their sides differ by no
    /// more than one part in a hundred.
    ///
    /// # Errors
    ///
    /// [`AdaptError::GridShape`], which names both sizes.
    pub fn check_frame(&self, [height, width]: [usize; 2]) -> Result<(), AdaptError> {
        let [rows, cols] = self.size.map(u64::from);
        let (a, b) = (cols * height as u64, rows * width as u64);
        if a.abs_diff(b) <= a.max(b) / SHAPE {
            return Ok(());
        }
        Err(AdaptError::GridShape {
            what: "frame",
            expected: format!("the shape of the job's ignore mask, {cols} x {rows} pixels"),
            got: format!("{width} x {height} pixels"),
            remedy: "draw the mask over a picture of one frame, and use the region of interest for which it was drawn",
        })
    }

    /// Tokens that count, `[rows, cols]`: those of which at least half the pixels do. Pixel `x` belongs to the token in column `x * cols / width`.
    ///
    /// # Errors
    ///
    /// A mask of fewer pixels than tokens a side; [`AdaptError::AllMasked`].
    pub fn keep_tokens(&self, [rows, cols]: [usize; 2]) -> Result<Vec<bool>, AdaptError> {
        let [height, width] = self.size();
        if rows == 0 || cols == 0 || height < rows || width < cols {
            return Err(AdaptError::GridShape {
                what: "ignore mask",
                expected: format!("at least {cols} x {rows} pixels, one for each patch"),
                got: format!("{width} x {height}"),
                remedy: "draw the mask at the size of the frame",
            });
        }
        let first = |index: usize, tokens: usize, pixels: usize| (index * pixels).div_ceil(tokens);
        let mut ignored = vec![0usize; rows * cols];
        for span in &self.spans {
            let line = &mut ignored[span.row as usize * rows / height * cols..][..cols];
            let mut at = span.start as usize;
            while at < span.end as usize {
                let token = at * cols / width;
                let end = first(token + 1, cols, width).min(span.end as usize);
                line[token] += end - at;
                at = end;
            }
        }
        let side =
            |index, tokens, pixels| first(index + 1, tokens, pixels) - first(index, tokens, pixels);
        let keep: Vec<bool> = (0..rows * cols)
            .map(|i| {
                let pixels = side(i / cols, rows, height) * side(i % cols, cols, width);
                2 * ignored[i] <= pixels
            })
            .collect();
        if keep.contains(&true) {
            return Ok(keep);
        }
        Err(AdaptError::AllMasked {
            what: "ignore mask".into(),
        })
    }

    /// The tokens of `grid` that count, by this mask and its own.
    pub(super) fn keep_of(&self, grid: &TokenGrid<'_>) -> Result<Vec<bool>, AdaptError> {
        let mut keep = self.keep_tokens([grid.rows(), grid.cols()])?;
        for (index, keep) in keep.iter_mut().enumerate() {
            *keep &= grid.keeps(index);
        }
        Ok(keep)
    }

    /// Whether [`Self::new`] could have made it.
    pub(crate) fn is_sound(&self) -> bool {
        let sides = self
            .size
            .iter()
            .all(|&side| (1..=MAX_SIDE).contains(&(side as usize)));
        let inside = self.spans.iter().all(|span| {
            span.row < self.size[0] && span.start < span.end && span.end <= self.size[1]
        });
        let apart = self
            .spans
            .is_sorted_by(|a, b| a.row < b.row || a.row == b.row && a.end < b.start);
        let all = u64::from(self.size[0]) * u64::from(self.size[1]);
        sides && inside && apart && (1..all).contains(&self.ignored_pixels())
    }

    fn ignored_pixels(&self) -> u64 {
        let lengths = self
            .spans
            .iter()
            .map(|span| u64::from(span.end - span.start));
        lengths.sum()
    }
}

impl Job {
    /// The region of the frame that the surface of good parts leaves out.
    pub fn ignore(&self) -> Option<&IgnoreMask> {
        self.ignore.as_ref()
    }

    /// Leaves out a region of the frame from now on, or nothing. The job must be fitted again.
    ///
    /// # Errors
    ///
    /// [`AdaptError::BadOption`] for a mask where the job looks at no surface; a mask that leaves nothing of a taught frame.
    pub fn set_ignore(&mut self, mask: Option<IgnoreMask>) -> Result<(), AdaptError> {
        if let Some(mask) = &mask {
            if self.surface.is_none() {
                return Err(AdaptError::BadOption {
                    name: "ignore mask",
                    value: "given".into(),
                    range: "none in a job that looks at no surface (the head sees whole frames); set a surface first",
                });
            }
            let tokens = self
                .samples
                .iter()
                .filter_map(|sample| sample.tokens.as_ref());
            for [rows, cols] in tokens.map(SampleTokens::grid_size) {
                mask.keep_tokens([rows, cols])?;
            }
        }
        let action = Action::SetIgnore {
            share: mask.as_ref().map(IgnoreMask::share),
        };
        let before = std::mem::replace(&mut self.ignore, mask);
        self.changed(action, Undo::Ignore(before));
        self.fitted = None;
        Ok(())
    }
}
