//! Open a bundle, pick an engine, embed frames
