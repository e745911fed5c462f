//! The library itself, opened as a program opens it.
//!
//! On a machine with a GPU and a plug-in that was built with its kernels, its tokens are compared with those of the emulated machine. Otherwise these tests say
//! what the plug-in refuses; SSL_EDGE_REQUIRE_CUDA=1 makes that a failure.

mod common;

use std::path::PathBuf;

use common::{CONFIG, compare, open, tensors};
use ssl_edge_plugin::{Options, Plugin, PluginError, Precision, Refusal, file_name};

/// Cargo puts the library beside the tests, and `cargo build` links it into the folder above.
fn library() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let beside = tests.parent().unwrap();
    let (name, above) = (file_name("cuda"), beside.parent().unwrap());
    let found = [beside, above].map(|folder| folder.join(&name));
    let there = found.iter().find(|file| file.exists());
    there.unwrap_or(&found[0]).clone()
}

fn plugin() -> Plugin {
    Plugin::find("cuda", Some(&library())).unwrap()
}

/// The reason why there is nothing to compare, once it has been checked to be one.
fn not_run(error: &PluginError) -> String {
    let required = std::env::var("SSL_EDGE_REQUIRE_CUDA").is_ok_and(|v| v == "1");
    assert!(!required, "{error}");
    let PluginError::Refused {
        refusal, reason, ..
    } = error
    else {
        panic!("{error}")
    };
    let expected = match refusal {
        Refusal::NoDriver => "no NVIDIA driver",
        Refusal::NoDevice => "no GPU",
        Refusal::Unsupported => "without the GPU's code",
        Refusal::OldDevice => "compute capability",
        Refusal::NoLibrary => "cuBLAS",
        _ => panic!("{refusal:?}: {reason}"),
    };
    assert!(reason.contains(expected), "{reason}");
    eprintln!("not run on a GPU: {reason}");
    reason.clone()
}

#[test]
fn the_library_loads_without_a_driver_and_says_what_is_missing() {
    let plugin = plugin();
    assert!(
        plugin.about().starts_with("ssl-edge-cuda "),
        "{}",
        plugin.about()
    );
    match plugin.devices() {
        Ok(devices) => assert!(devices.iter().all(|d| d.memory > 0 && d.version[0] > 0)),
        Err(error) => drop(not_run(&error)),
    }
}

#[test]
fn tokens_are_those_of_the_emulated_machine() {
    if let Err(error) = compare(&plugin()) {
        not_run(&error);
    }
}

#[test]
fn what_cannot_be_is_refused_before_a_gpu_is_looked_for() {
    let named = tensors(&CONFIG);
    let options = Options {
        device: 0,
        precision: Precision::F16,
        images: 0,
    };
    let error = open(&plugin(), &named, &options).unwrap_err();
    assert!(
        matches!(&error, PluginError::Refused { refusal: Refusal::Invalid, reason, .. } if reason.contains("0 images")),
        "{error}"
    );
}
