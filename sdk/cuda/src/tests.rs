//! The whole plug-in over a driver that is emulated on the host, `emulated/driver.cpp`: contexts, memory, launches, products, recording and playing back, and
//! what is said when something is missing.

#[path = "../tests/common/mod.rs"]
mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{CONFIG, compare, noise, open, tensors};
use ssl_edge_plugin::{Options, Plugin, PluginError, Precision, Refusal};

use crate::{ssl_edge_engine_get_api, ssl_edge_engine_versions};

unsafe extern "C" fn get_api(version: u32) -> *const ssl_edge_plugin::abi::Api {
    ssl_edge_engine_get_api(version)
}

fn plugin() -> Plugin {
    // SAFETY: the plug-in's own functions.
    let made =
        unsafe { Plugin::from_functions(ssl_edge_engine_versions, get_api, Path::new("own")) };
    made.unwrap()
}

/// The emulated driver, in a folder that goes with the process.
fn driver(flag: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = std::env::temp_dir().join(format!("ssl-edge-driver-{}{flag}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let library = folder.join("libcuda.so.1");
    let done = Command::new("c++")
        .args([
            "-std=c++17",
            "-O2",
            "-w",
            "-shared",
            "-fPIC",
            "-fno-strict-aliasing",
        ])
        .args(["-U_FORTIFY_SOURCE", "-ffp-contract=off"])
        .args((!flag.is_empty()).then_some(flag))
        .arg("-I")
        .arg(root.join("../gpu/kernels"))
        .arg("-o")
        .arg(&library)
        .arg(root.join("emulated/driver.cpp"))
        .output()
        .expect("a C++ compiler is installed");
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    std::os::unix::fs::symlink(&library, folder.join("libcublasLt.so.12")).unwrap();
    folder
}

/// Which of [`SCENARIOS`] a process is to run.
const SCENARIO: &str = "SSL_EDGE_SCENARIO";

/// What is tried in a process of its own that finds the emulated driver.
const SCENARIOS: [(&str, fn()); 10] = [
    ("tokens", tokens),
    ("devices", devices),
    ("no_device", no_device),
    ("stub", stub),
    ("old_device", old_device),
    ("old_driver", old_driver),
    ("module_too_new", module_too_new),
    ("no_cublas", no_cublas),
    ("out_of_memory", out_of_memory),
    ("fails_while_it_runs", fails_while_it_runs),
];

/// Runs this test binary again, for one scenario.
fn passes(folder: &Path, words: &str, scenario: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "tests::scenarios"])
        .env("LD_LIBRARY_PATH", folder)
        .env("SSL_EDGE_EMULATED", words)
        .env(SCENARIO, scenario)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{scenario}, {words}: {text}"
    );
}

struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn scenarios() {
    if let Ok(name) = std::env::var(SCENARIO) {
        let found = SCENARIOS.iter().find(|(known, _)| *known == name);
        let (_, scenario) = found.expect("a scenario of this file");
        return scenario();
    }
    let folder = Removed(driver(""));
    let tried = [
        ("capability=87", "tokens"),
        ("devices=0", "no_device"),
        ("init=34", "stub"),
        ("capability=75", "old_device"),
        ("memory=8600000", "out_of_memory"),
        ("module=222", "module_too_new"),
        ("launches=150", "fails_while_it_runs"),
        ("devices=2", "devices"),
    ];
    for (words, scenario) in tried {
        passes(&folder.0, words, scenario);
    }
    std::fs::remove_file(folder.0.join("libcublasLt.so.12")).unwrap();
    passes(&folder.0, "", "no_cublas");
    let without_a_function = Removed(driver("-DOLD"));
    passes(&without_a_function.0, "", "old_driver");
    assert_eq!(tried.len() + 2, SCENARIOS.len());
}

const OPTIONS: Options = Options {
    device: 0,
    precision: Precision::F16,
    images: 2,
};

fn refused(refusal: Refusal, parts: &[&str]) {
    let error = open(&plugin(), &tensors(&CONFIG), &OPTIONS).unwrap_err();
    expect(&error, refusal, parts);
}

fn expect(error: &PluginError, expected: Refusal, parts: &[&str]) {
    let PluginError::Refused {
        refusal, reason, ..
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(*refusal, expected, "{reason}");
    for part in parts {
        assert!(reason.contains(part), "{reason}");
    }
}

fn tokens() {
    compare(&plugin()).unwrap();
}

fn devices() {
    let devices = plugin().devices().unwrap();
    assert_eq!(devices.len(), 2);
    assert_eq!(devices[1].name, "emulated 41");
    assert_eq!((devices[1].version, devices[1].memory), ([8, 7], 1 << 30));
    let options = Options {
        device: 2,
        ..OPTIONS
    };
    let error = open(&plugin(), &tensors(&CONFIG), &options).unwrap_err();
    expect(&error, Refusal::NoDevice, &["no GPU 2", "0 to 1"]);
}

fn no_device() {
    refused(Refusal::NoDevice, &["sees no GPU"]);
    expect(&plugin().devices().unwrap_err(), Refusal::NoDevice, &[]);
}

fn stub() {
    refused(Refusal::NoDriver, &["link stub"]);
}

fn old_device() {
    refused(
        Refusal::OldDevice,
        &["compute capability 7.5", "8.0 or later"],
    );
}

fn old_driver() {
    refused(Refusal::OldDriver, &["too old", "cuGraphLaunch"]);
}

fn module_too_new() {
    refused(Refusal::OldDriver, &["CUDA 12.6", "newer driver"]);
}

fn no_cublas() {
    refused(
        Refusal::NoLibrary,
        &["libcublasLt.so.13", "libcublasLt.so.12"],
    );
}

fn out_of_memory() {
    refused(
        Refusal::OutOfMemory,
        &["2 images of 32 x 32", "ask for fewer"],
    );
}

fn fails_while_it_runs() {
    let encoder = open(&plugin(), &tensors(&CONFIG), &OPTIONS).unwrap();
    let (d, n) = (CONFIG.dim, CONFIG.n_patches());
    let images = noise(1, CONFIG.image());
    let mut failures = 0;
    for _ in 0..40 {
        let (mut cls, mut patches) = (vec![0.0; d], vec![0.0; n * d]);
        if let Err(error) = encoder.run(&images, 1, &mut cls, &mut patches) {
            expect(&error, Refusal::Failed, &["LAUNCH_FAILED"]);
            failures += 1;
        }
    }
    assert!((1..40).contains(&failures), "{failures}");
}
