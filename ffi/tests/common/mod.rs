//! What the tests of the C ABI share: the built libraries, compilers, a bundle.

#![allow(dead_code, reason = "each test program uses a part of it")]

use sdk::encoder::Bundle;
use sdk::export::{BlockFormat, QuantizeOptions, Target, quantize, random_bundle, round_to};
use sdk::vision::{Station, Surface};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What a program with the static libssl_edge is linked with: the list of `cargo rustc -p ssl-edge-capi --release --lib -- --print
/// native-static-libs`, and a stack that is not executable, as tract's assembly does not ask for one but forgets to say so.
pub(crate) const NATIVE_STATIC_LIBS: [&str; 7] = [
    "-lgcc_s",
    "-lutil",
    "-lrt",
    "-lpthread",
    "-lm",
    "-ldl",
    "-Wl,-z,noexecstack",
];

/// The package's folder.
pub(crate) fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder in which cargo built libssl_edge for this test program.
pub(crate) fn library_folder() -> PathBuf {
    let folder = std::env::current_exe()
        .expect("a test knows its program")
        .parent()
        .expect("it has a folder")
        .to_path_buf();
    for library in ["libssl_edge.so", "libssl_edge.a"] {
        assert!(
            folder.join(library).is_file(),
            "{library} is not in {}",
            folder.display()
        );
    }
    folder
}

/// How a program is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Linkage {
    /// libssl_edge.so
    Shared,
    /// libssl_edge.a
    Static,
}

impl Linkage {
    pub(crate) const ALL: [Linkage; 2] = [Linkage::Shared, Linkage::Static];
}

/// `cc` or `c++` with all warnings as errors and the headers at hand.
pub(crate) fn compiler(source: &Path) -> Command {
    let is_cpp = source.extension() == Some(OsStr::new("cpp"));
    let (program, standard) = if is_cpp {
        ("c++", "-std=c++17")
    } else {
        ("cc", "-std=c11")
    };
    let mut command = Command::new(program);
    command.args([
        standard,
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pedantic",
        "-O1",
        "-g",
    ]);
    command.arg("-I").arg(package().join("include"));
    command.arg("-I").arg(package().join("../bindings/cpp"));
    command
}

/// Compiles `source` against libssl_edge and gives the program.
pub(crate) fn compile(source: &Path, linkage: Linkage, folder: &Path) -> PathBuf {
    let stem = source
        .file_stem()
        .expect("a source has a name")
        .to_string_lossy();
    let program = folder.join(format!(
        "{stem}_{linkage:?}_{}",
        source.extension().unwrap_or_default().to_string_lossy()
    ));
    let libraries = library_folder();
    let mut command = compiler(source);
    command.arg(source).arg("-o").arg(&program).arg("-pthread");
    match linkage {
        Linkage::Shared => {
            command.arg("-L").arg(&libraries).arg("-l:libssl_edge.so");
            command.arg(format!("-Wl,-rpath,{}", libraries.display()));
        }
        Linkage::Static => {
            // Without the library's debugging information, which would be most of the program.
            command
                .arg(libraries.join("libssl_edge.a"))
                .args(NATIVE_STATIC_LIBS)
                .arg("-Wl,--strip-debug");
        }
    }
    succeed(&mut command);
    program
}

/// A compiled program, to be run with the library that it was linked to: cargo's `LD_LIBRARY_PATH` would come before it.
pub(crate) fn program(path: &Path) -> Command {
    let mut command = Command::new(path);
    command.env_remove("LD_LIBRARY_PATH");
    command
}

/// Runs a command that must succeed, and gives what it printed to stdout; stderr must stay empty.
pub(crate) fn succeed(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let (stdout, stderr) = (
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr),
    );
    assert!(
        status.success() && stderr.is_empty(),
        "{command:?}: {status}\n{stdout}{stderr}"
    );
    stdout.into_owned()
}

/// A bundle of random weights for images of 64 by 64 pixels.
pub(crate) fn bundle(folder: &Path, seed: u64) -> PathBuf {
    let path = folder.join(format!("random{seed}.sslb"));
    random_bundle("vit_n16", seed, 64, sdk::encoder::Pooling::Cls, &path)
        .expect("random weights can be packed");
    path
}

/// The bundle of [`bundle`] with an int8 variant, calibrated on drawn surfaces, and with weights in blocks.
pub(crate) fn int8_bundle(folder: &Path, seed: u64) -> PathBuf {
    let (base, frames) = (bundle(folder, seed), folder.join("frames"));
    let path = folder.join(format!("int8_{seed}.sslb"));
    Station::new(1)
        .write(&frames, &[Surface::Clean, Surface::Scratch], 20, 64, 0)
        .expect("surfaces are drawn");
    let base = Bundle::open(&base).expect("the bundle opens");
    let options = QuantizeOptions {
        frames: 16,
        threads: 1,
        ..QuantizeOptions::new(Target::Int8, &frames)
    };
    quantize(&base, &options, &path, &mut |_| {}).expect("the gates hold");
    for format in [BlockFormat::Q8_0, BlockFormat::Q4_0] {
        let bundle = Bundle::open(&path).expect("the bundle opens");
        round_to(Target::Blocks(format), &bundle, &path).expect("the weights fit");
    }
    path
}

/// Text of a file of this package.
pub(crate) fn read(path: &str) -> String {
    let path = package().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A function of the header: its name and its parameters as (type, name).
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) returns: String,
    pub(crate) parameters: Vec<(String, String)>,
}

/// All functions that the header declares.
pub(crate) fn functions(header: &str) -> Vec<Function> {
    let code: String = without_comments(header)
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect::<Vec<_>>()
        .join(" ");
    let mut found = Vec::new();
    for (start, _) in code.match_indices('(') {
        let before = code[..start]
            .rsplit([';', '}', '{'])
            .next()
            .unwrap_or_default()
            .trim();
        let (Some((_, name)), Some(end)) =
            (before.rsplit_once([' ', '*']), code[start..].find(')'))
        else {
            continue;
        };
        if !name.starts_with("ssl_edge_") {
            continue;
        }
        let list = &code[start + 1..start + end];
        let parameters = list
            .split(',')
            .map(str::trim)
            .filter(|one| *one != "void")
            .map(parameter)
            .collect();
        let returns = before[..before.len() - name.len()]
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        found.push(Function {
            name: name.to_owned(),
            returns,
            parameters,
        });
    }
    found
}

fn parameter(text: &str) -> (String, String) {
    let split = text
        .rfind([' ', '*'])
        .expect("a parameter has a type and a name")
        + 1;
    let words = text[..split]
        .split_whitespace()
        .filter(|word| *word != "struct");
    let kind = words.collect::<Vec<_>>().join(" ");
    (kind, text[split..].to_owned())
}

fn without_comments(text: &str) -> String {
    let mut rest = text;
    let mut code = String::new();
    while let Some(start) = rest.find("/*") {
        code.push_str(&rest[..start]);
        let end = rest[start..].find("*/").expect("a comment ends");
        rest = &rest[start + end + 2..];
    }
    code + rest
}
