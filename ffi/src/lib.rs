//! The C library libssl_edge
