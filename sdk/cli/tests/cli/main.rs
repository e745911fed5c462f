//! The program as its users call it: a process with arguments, files and an exit status.

mod anomaly;
mod bad_files;
mod bad_input;
#[cfg(target_os = "linux")]
mod bundle;
mod disk_full;
mod drift;
mod golden;
mod grow;
mod import;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(all(target_os = "linux", not(any(feature = "cuda", feature = "mpi"))))]
mod needed;
mod pipeline;
mod quantize;
mod support;
mod surface;
mod usage;
