//! Anomaly detection from good parts alone: what do the patch tokens of 1 to N good parts look like, and which tokens of a frame do not?
//!
//! [`Normal`] learns and calibrates; [`NormalModel`] is the model alone: the residual outside the principal subspace of good tokens
//! ([`Pca`], from [`TokenStatistics`] to which frames are added and from which they are forgotten exactly) or the distance to the nearest
//! good token ([`Bank`]). [`frame_heat`] draws the scores over the frame, on one scale for all frames.
//!
//! ```
//! use ssl_edge_adapt::anomaly::{GoodFrame, Normal, NormalOptions, Rates, TokenGrid};
//!
//! let good: Vec<Vec<f32>> = (0..5).map(|f| (0..32).map(|i| 1.0 + 0.01 * ((i * 7 + f * 3) % 5) as f32).collect()).collect();
//! let frames = good
//!     .iter()
//!     .enumerate()
//!     .map(|(part, tokens)| Ok(GoodFrame { grid: TokenGrid::new(tokens, [4, 4], 2)?, part, copy_of: None }))
//!     .collect::<Result<Vec<_>, ssl_edge_adapt::AdaptError>>()?;
//! let normal = Normal::fit(&frames, &NormalOptions::default(), &Rates { frame: 0.2, token: 0.01 })?;
//!
//! let mut scratched = good[0].clone();
//! scratched[10] = -3.0;
//! let verdict = normal.inspect(&TokenGrid::new(&scratched, [4, 4], 2)?)?;
//! assert!(verdict.anomalous && verdict.heat.values[5] > 1.0);
//! assert!(normal.report().notes()[0].contains("16.667 %"));
//! # Ok::<(), ssl_edge_adapt::AdaptError>(())
//! ```

mod calibrate;
mod conformal;
mod grid;
mod heat;
mod model;
mod neighbours;
mod pca;

pub use calibrate::{GoodFrame, HoldOut, Normal, NormalReport, NormalVerdict, Rates};
pub use conformal::{Conformal, Threshold, ThresholdSource};
pub use grid::{Prepare, TokenGrid, TokenMap, token_mask};
pub use heat::{HeatRegion, frame_heat};
pub use model::{Method, NormalModel, NormalOptions, frame_statistics};
pub use neighbours::{Bank, NeighbourOptions, Storage};
pub use pca::{Pca, PcaOptions, TokenStatistics};
