//! Suites that cross crates
