//! Frames, decoding, preprocessing, augmentation, datasets and a procedural surface generator
