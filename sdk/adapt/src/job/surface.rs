//! The surface of good parts in a job: patch tokens of its good samples, and what they say of a frame.

use super::{IgnoreMask, Job, Sample, SampleId};
use crate::anomaly::{
    GoodFrame, Method, NeighbourOptions, Normal, NormalOptions, NormalVerdict, Rates, TokenGrid,
};
use crate::error::AdaptError;
use half::f16;
use half::slice::HalfFloatSliceExt;
use half::vec::{HalfBitsVecExt, HalfFloatVecExt};
use serde::{Deserialize, Serialize};

/// Patch tokens of a sample's frame, kept in half precision: what is learned from them is learned from what is kept, so that a fit after loading
/// is the fit before saving.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleTokens {
    /// Rows and columns of the grid, and values of a token.
    shape: [u32; 3],
    /// Bits of the values, row-major.
    bits: Vec<u16>,
}

impl SampleTokens {
    /// The tokens of `grid` in half precision, masked or not.
    ///
    /// # Errors
    ///
    /// A value that half precision does not hold, or a side beyond `u32`.
    pub fn new(grid: &TokenGrid<'_>) -> Result<Self, AdaptError> {
        let side = |n: usize| {
            u32::try_from(n).map_err(|_| AdaptError::Shape {
                what: "side of a grid of tokens",
                expected: u32::MAX as usize,
                got: n,
            })
        };
        let mut values = vec![f16::ZERO; grid.len() * grid.dim()];
        for (token, out) in values.chunks_exact_mut(grid.dim()).enumerate() {
            out.convert_from_f32_slice(grid.token(token));
        }
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return Err(AdaptError::NotFinite {
                what: format!("patch token {} in half precision", index / grid.dim()),
                index: index % grid.dim(),
                value: f32::INFINITY,
            });
        }
        Ok(Self {
            shape: [side(grid.rows())?, side(grid.cols())?, side(grid.dim())?],
            bits: values.reinterpret_into(),
        })
    }

    fn values(&self) -> Vec<f32> {
        let halves: Vec<f16> = self.bits.clone().reinterpret_into();
        halves.to_f32_vec()
    }

    fn grid<'v>(&self, values: &'v [f32]) -> Result<TokenGrid<'v>, AdaptError> {
        let [rows, cols, dim] = self.shape.map(|n| n as usize);
        TokenGrid::new(values, [rows, cols], dim)
    }

    /// Rows and columns.
    pub(super) fn grid_size(&self) -> [usize; 2] {
        [self.shape[0] as usize, self.shape[1] as usize]
    }

    /// Whether it is a grid of finite numbers.
    pub(crate) fn is_sound(&self) -> bool {
        let n = self
            .shape
            .iter()
            .try_fold(1usize, |n, &side| n.checked_mul(side as usize));
        n == Some(self.bits.len()) && n != Some(0) && self.values().iter().all(|x| x.is_finite())
    }
}

impl Job {
    /// What the patch tokens of this job's good samples are made of, as the program that makes them calls it; `None` if the job does without.
    pub fn surface(&self) -> Option<&str> {
        self.surface.as_deref()
    }

    /// Says what patch tokens are made of, or that the job does without them.
    ///
    /// # Errors
    ///
    /// [`AdaptError::BadOption`] for a job that has samples with tokens of another kind, or an ignore mask.
    pub fn set_surface(&mut self, kind: Option<&str>) -> Result<(), AdaptError> {
        let taught = self.samples.iter().any(|sample| sample.tokens.is_some());
        let needed = taught || self.ignore.is_some();
        if needed && self.surface.as_deref() != kind {
            return Err(AdaptError::BadOption {
                name: "surface",
                value: kind.unwrap_or("none").into(),
                range: "the one that its samples were taught with; teach a new job",
            });
        }
        self.surface = kind.map(Into::into);
        Ok(())
    }

    /// Keeps the patch tokens of a sample's frame. The job must be fitted again; those of good classes are learned as what a good surface
    /// looks like.
    ///
    /// # Errors
    ///
    /// No such sample; a job without a surface; tokens of another length than those before; a value that half precision does not hold.
    pub fn set_sample_tokens(
        &mut self,
        id: SampleId,
        tokens: &TokenGrid<'_>,
    ) -> Result<(), AdaptError> {
        let index = self.sample_index(id)?;
        if self.surface.is_none() {
            return Err(AdaptError::BadOption {
                name: "surface",
                value: "none".into(),
                range: "set before tokens are taught",
            });
        }
        let before = self
            .samples
            .iter()
            .find_map(|sample| sample.tokens.as_ref());
        if let Some(before) = before {
            tokens.check_dim(before.shape[2] as usize)?;
        }
        self.samples[index].tokens = Some(SampleTokens::new(tokens)?);
        self.fitted = None;
        Ok(())
    }

    /// Whether there is a surface to learn.
    pub(super) fn has_good_tokens(&self) -> bool {
        self.good_tokens().next().is_some()
    }

    fn good_tokens(&self) -> impl Iterator<Item = &SampleTokens> {
        let good = |sample: &&Sample| self.class(sample.class).is_ok_and(|class| class.good);
        let samples = self.samples.iter().filter(good);
        samples.filter_map(|sample| sample.tokens.as_ref())
    }

    /// The surface of all good samples that have tokens, with false alarms on at most `rate` of good frames; `None` without such samples or
    /// with a rate of 0.
    pub(super) fn fit_surface(&self, rate: f64) -> Result<Option<Normal>, AdaptError> {
        let tokens: Vec<&SampleTokens> = self.good_tokens().collect();
        if tokens.is_empty() || rate == 0.0 {
            return Ok(None);
        }
        let values: Vec<Vec<f32>> = tokens.iter().map(|tokens| tokens.values()).collect();
        let grids = tokens
            .iter()
            .zip(&values)
            .map(|(tokens, values)| tokens.grid(values))
            .collect::<Result<Vec<_>, _>>()?;
        let keep = grids
            .iter()
            .map(|grid| {
                self.ignore
                    .as_ref()
                    .map(|mask| mask.keep_of(grid))
                    .transpose()
            })
            .collect::<Result<Vec<_>, _>>()?;
        let frames = grids
            .into_iter()
            .zip(&keep)
            .enumerate()
            .map(|(part, (grid, keep))| {
                Ok(GoodFrame {
                    grid: masked(grid, keep.as_deref())?,
                    part,
                    copy_of: None,
                })
            })
            .collect::<Result<Vec<_>, AdaptError>>()?;
        let options = NormalOptions {
            method: Method::Neighbours(NeighbourOptions::default()),
            ..NormalOptions::default()
        };
        let rates = Rates {
            frame: rate,
            ..Rates::default()
        };
        Normal::fit(&frames, &options, &rates).map(Some)
    }
}

/// What `normal` says of a frame, of whose tokens `ignore` leaves some out.
pub(super) fn judge(
    normal: &Normal,
    ignore: Option<&IgnoreMask>,
    tokens: &TokenGrid<'_>,
) -> Result<NormalVerdict, AdaptError> {
    let keep = ignore.map(|mask| mask.keep_of(tokens)).transpose()?;
    normal.inspect(&masked(*tokens, keep.as_deref())?)
}

fn masked<'t>(grid: TokenGrid<'t>, keep: Option<&'t [bool]>) -> Result<TokenGrid<'t>, AdaptError> {
    match keep {
        Some(keep) => grid.with_mask(keep),
        None => Ok(grid),
    }
}
