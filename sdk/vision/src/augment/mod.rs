//! The augmentations of DINO (Caron et al. 2021, `main_dino.py`) and MAE (He et al. 2022, `main_pretrain.py`).

mod batch;
mod blur;
mod colour;
mod config;
mod geometry;
mod view;

pub use batch::{multi_crop_batch, view_batch};
pub(crate) use blur::gaussian;
pub use config::{AugmentConfig, AugmentError, Blur, Jitter, MultiCrop};
