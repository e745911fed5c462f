//! The program as its users call it: a process with arguments, files and an exit status.

mod anomaly;
mod bad_files;
mod bad_input;
#[cfg(target_os = "linux")]
mod bundle;
mod disk_full;
mod grow;
#[cfg(target_os = "linux")]
mod memory;
mod pipeline;
mod quantize;
mod support;
mod surface;
mod usage;
