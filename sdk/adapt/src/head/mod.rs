//! Heads with a closed form, their leave-one-out scores included.

pub mod prototype;
pub mod ridge;
pub mod statistics;
