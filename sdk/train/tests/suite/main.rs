//! Training from folders of images, through the public interface.

mod benchmark;
mod bf16;
mod common;
mod composed;
#[cfg(feature = "cuda")]
mod cuda;
mod dino;
mod failures;
mod mae;
#[cfg(feature = "mpi")]
mod mpi;
mod ranks;
mod requests;
mod resume;
