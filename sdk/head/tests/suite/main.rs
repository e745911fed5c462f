//! Tests of the public interface against independent oracles.

mod common;
mod golden;
mod image;
mod line;
mod verdict;
mod wire;
