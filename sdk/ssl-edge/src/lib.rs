//! Self-supervised vision from unlabelled images to a decision: the public Rust API
