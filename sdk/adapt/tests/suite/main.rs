//! Tests of the public interface against independent oracles.

mod anomaly;
mod change;
mod choose;
mod common;
mod damage;
mod device;
mod discriminant;
mod edit;
mod eval;
mod explain;
mod file;
mod forget;
mod job;
mod killed;
mod knn;
mod large;
mod logistic;
mod merge;
mod openset;
mod parts;
mod prototype;
mod ridge;
mod shrinkage;
mod surface;
mod undo;
mod unknown;
