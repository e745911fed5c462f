//! The model file: manifest, members, hashes
