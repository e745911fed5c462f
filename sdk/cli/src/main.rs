//! The ssl-edge command line program
fn main() {}
