//! The two models of good parts behind one face.

use super::grid::{Prepare, TokenGrid, TokenMap};
use super::neighbours::{Bank, NeighbourOptions};
use super::pca::{Pca, PcaOptions, TokenStatistics};
use crate::error::AdaptError;
use crate::linalg::Matrix;
use serde::{Deserialize, Serialize};

/// How good tokens are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Method {
    /// As a subspace: constant memory, exact adding and forgetting.
    Pca(PcaOptions),
    /// One by one, as many as fit a budget.
    Neighbours(NeighbourOptions),
}

impl Method {
    /// Name in tables and JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pca(_) => "pca",
            Self::Neighbours(_) => "neighbours",
        }
    }
}

/// How good parts are learned and frames are scored.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NormalOptions {
    /// The model.
    pub method: Method,
    /// What is done to tokens first.
    pub prepare: Prepare,
    /// Share of a frame's tokens, the worst ones, whose mean is its score; at least one token.
    pub top_share: f64,
}

impl Default for NormalOptions {
    fn default() -> Self {
        Self {
            method: Method::Pca(PcaOptions::default()),
            prepare: Prepare::default(),
            top_share: 0.01,
        }
    }
}

/// What good parts look like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NormalModel {
    options: NormalOptions,
    memory: Memory,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Memory {
    Pca(Pca),
    Neighbours(Bank),
}

impl NormalModel {
    /// Learns the tokens of `frames` that count.
    ///
    /// # Errors
    ///
    /// No frame, frames of different token lengths, or an option out of range.
    pub fn fit(frames: &[TokenGrid<'_>], options: &NormalOptions) -> Result<Self, AdaptError> {
        let prepared = frames
            .iter()
            .map(|grid| options.prepare.apply(grid))
            .collect::<Result<Vec<_>, _>>()?;
        Self::of_prepared(&prepared.iter().collect::<Vec<_>>(), options)
    }

    /// The PCA model of statistics that were gathered frame by frame with [`frame_statistics`] under the same [`Prepare`]: what a job keeps
    /// instead of tokens.
    ///
    /// # Errors
    ///
    /// Statistics of no token; options that ask for neighbours, which statistics do not hold.
    pub fn of_statistics(
        statistics: &TokenStatistics,
        options: &NormalOptions,
    ) -> Result<Self, AdaptError> {
        check_share(options)?;
        let Method::Pca(pca) = &options.method else {
            return Err(AdaptError::BadOption {
                name: "method",
                value: options.method.name().into(),
                range: "pca, to fit from statistics",
            });
        };
        Ok(Self {
            options: *options,
            memory: Memory::Pca(Pca::fit(statistics, pca)?),
        })
    }

    pub(super) fn of_prepared(
        tokens: &[&Matrix<f32>],
        options: &NormalOptions,
    ) -> Result<Self, AdaptError> {
        check_share(options)?;
        let first = tokens.first().ok_or(AdaptError::NoGoodFrame)?;
        for frame in tokens {
            if frame.cols != first.cols {
                return Err(AdaptError::WrongDimension {
                    what: "patch tokens".into(),
                    expected: first.cols,
                    got: frame.cols,
                });
            }
        }
        let memory = match &options.method {
            Method::Pca(pca) => {
                let mut statistics = TokenStatistics::new(first.cols);
                for frame in tokens {
                    statistics.merge(&TokenStatistics::of(frame))?;
                }
                Memory::Pca(Pca::fit(&statistics, pca)?)
            }
            Method::Neighbours(neighbours) => {
                let all = Matrix {
                    rows: tokens.iter().map(|frame| frame.rows).sum(),
                    cols: first.cols,
                    data: tokens
                        .iter()
                        .flat_map(|frame| &frame.data)
                        .copied()
                        .collect(),
                };
                Memory::Neighbours(Bank::fit(&all, neighbours)?)
            }
        };
        Ok(Self {
            options: *options,
            memory,
        })
    }

    /// The options that it was fitted with.
    pub fn options(&self) -> &NormalOptions {
        &self.options
    }

    /// Values of a token.
    pub fn dim(&self) -> usize {
        match &self.memory {
            Memory::Pca(pca) => pca.dim(),
            Memory::Neighbours(bank) => bank.dim(),
        }
    }

    /// Bytes of what it remembers.
    pub fn bytes(&self) -> usize {
        match &self.memory {
            Memory::Pca(pca) => pca.bytes(),
            Memory::Neighbours(bank) => bank.bytes(),
        }
    }

    /// The subspace, if that is the model.
    pub fn pca(&self) -> Option<&Pca> {
        match &self.memory {
            Memory::Pca(pca) => Some(pca),
            Memory::Neighbours(_) => None,
        }
    }

    /// The kept tokens, if they are the model.
    pub fn bank(&self) -> Option<&Bank> {
        match &self.memory {
            Memory::Pca(_) => None,
            Memory::Neighbours(bank) => Some(bank),
        }
    }

    /// Scores of the tokens of a frame: squared residual norm (PCA) or `1 - cos` to the nearest good token; not negative.
    ///
    /// # Errors
    ///
    /// Tokens of another length.
    pub fn score(&self, frame: &TokenGrid<'_>) -> Result<TokenMap, AdaptError> {
        frame.check_dim(self.dim())?;
        let prepared = self.options.prepare.apply(frame)?;
        Ok(TokenMap::scatter(frame, &self.score_prepared(&prepared)))
    }

    /// The score of a frame from those of its tokens: the mean of the worst.
    pub fn image_score(&self, scores: &TokenMap) -> f64 {
        scores.tail_mean(self.options.top_share)
    }

    pub(super) fn is_whole(&self) -> bool {
        let fits = match &self.memory {
            Memory::Pca(pca) => pca.is_whole(),
            Memory::Neighbours(bank) => bank.is_whole(),
        };
        fits && check_share(&self.options).is_ok() && self.options.prepare.check().is_ok()
    }

    pub(super) fn score_prepared(&self, tokens: &Matrix<f32>) -> Vec<f32> {
        match &self.memory {
            Memory::Pca(pca) => pca.residuals(tokens),
            Memory::Neighbours(bank) => bank.distances(tokens),
        }
    }
}

/// Statistics of one frame's tokens after `prepare`, to [`merge`](TokenStatistics::merge) into those of all good frames, or to
/// [`subtract`](TokenStatistics::subtract) when the frame is forgotten.
///
/// # Errors
///
/// An option out of range.
pub fn frame_statistics(
    frame: &TokenGrid<'_>,
    prepare: &Prepare,
) -> Result<TokenStatistics, AdaptError> {
    Ok(TokenStatistics::of(&prepare.apply(frame)?))
}

fn check_share(options: &NormalOptions) -> Result<(), AdaptError> {
    if (0.0..=1.0).contains(&options.top_share) {
        return Ok(());
    }
    Err(AdaptError::BadOption {
        name: "top_share",
        value: options.top_share.to_string(),
        range: "from 0 to 1",
    })
}
