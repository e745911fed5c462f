//! libssl_edge loads where nothing is installed but a C library.

#![cfg(target_os = "linux")]

mod common;

use common::library_folder;
use ssl_edge_tests::assert_needs_the_c_library_alone;

#[test]
fn the_library_needs_the_c_library_alone() {
    assert_needs_the_c_library_alone(&library_folder().join("libssl_edge.so"));
}
