//! Tests of the public interface against independent oracles.

mod anomaly;
mod common;
mod device;
mod discriminant;
mod eval;
mod file;
mod job;
mod large;
mod prototype;
mod ridge;
mod statistics;
mod unknown;
