//! The program starts where nothing is installed but a C library.

use crate::support::program;
use ssl_edge_tests::assert_needs_the_c_library_alone;
use std::path::Path;

#[test]
fn the_program_needs_the_c_library_alone() {
    assert_needs_the_c_library_alone(Path::new(program()));
}
