//! Training from folders of images, through the public interface.

mod common;
mod dino;
mod failures;
mod mae;
mod requests;
mod resume;
