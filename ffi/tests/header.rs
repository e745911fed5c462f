//! The header is what the sources say, compiles alone, and names what the library exports; numbers that are out there stay.

mod common;

use common::{compiler, functions, library_folder, package, read, succeed};
use std::process::Command;

const HEADER: &str = "include/ssl_edge.h";

fn generated() -> String {
    let sources = package().join("src");
    let mut config = cbindgen::Config::from_file(package().join("cbindgen.toml"))
        .expect("cbindgen.toml can be read");
    config.language = cbindgen::Language::C;
    let mut builder = cbindgen::Builder::new().with_config(config);
    for file in [
        "version.rs",
        "status.rs",
        "frame.rs",
        "call.rs",
        "encoder.rs",
        "embed.rs",
        "verdict.rs",
        "fit.rs",
        "job/mod.rs",
        "golden/mod.rs",
        "monitor.rs",
    ] {
        builder = builder.with_src(sources.join(file));
    }
    let mut text = Vec::new();
    builder
        .generate()
        .expect("the header can be generated")
        .write(&mut text);
    String::from_utf8(text).expect("the header is UTF-8")
}

#[test]
fn the_committed_header_is_the_generated_one() {
    let generated = generated();
    if std::env::var_os("SSL_EDGE_WRITE_HEADER").is_some() {
        std::fs::create_dir_all(package().join("include")).expect("the folder can be made");
        std::fs::write(package().join(HEADER), &generated).expect("the header can be written");
    }
    let remedy = "run `SSL_EDGE_WRITE_HEADER=1 cargo test --release -p ssl-edge-capi --test header` and commit the header";
    assert!(
        read(HEADER) == generated,
        "ffi/{HEADER} is not what ffi/src says; {remedy}"
    );
}

#[test]
fn the_header_has_the_version_of_the_package() {
    let header = read(HEADER);
    for (part, value) in [
        ("MAJOR", env!("CARGO_PKG_VERSION_MAJOR")),
        ("MINOR", env!("CARGO_PKG_VERSION_MINOR")),
        ("PATCH", env!("CARGO_PKG_VERSION_PATCH")),
    ] {
        let line = format!("#define SSL_EDGE_VERSION_{part} {value}");
        assert!(
            header.lines().any(|found| found == line),
            "the header has no line `{line}`; change cbindgen.toml"
        );
    }
}

#[test]
fn headers_compile_alone_and_twice_in_c_and_cpp() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let cases = [
        ("once.c", "ssl_edge.h", "-std=c11"),
        ("later.c", "ssl_edge.h", "-std=c17"),
        ("newest.c", "ssl_edge.h", "-std=c2x"),
        ("once.cpp", "ssl_edge.h", "-std=c++17"),
        ("wrapper.cpp", "ssl_edge.hpp", "-std=c++17"),
        ("wrapper20.cpp", "ssl_edge.hpp", "-std=c++20"),
    ];
    for (name, header, standard) in cases {
        let source = folder.path().join(name);
        let text = format!(
            "#include \"{header}\"\n#include \"{header}\"\nint used(void);\nint used(void) {{ return SSL_EDGE_STATUS_OK; }}\n"
        );
        std::fs::write(&source, text).expect("a source can be written");
        succeed(
            compiler(&source)
                .args([standard, "-fsyntax-only"])
                .arg(&source),
        );
    }
    let source = folder.path().join("without_exceptions.cpp");
    std::fs::write(&source, "#include \"ssl_edge.hpp\"\n").expect("a source can be written");
    succeed(
        compiler(&source)
            .args(["-fno-exceptions", "-fsyntax-only"])
            .arg(&source),
    );
}

#[test]
fn the_library_exports_the_functions_of_the_header_and_nothing_else() {
    let listing = succeed(
        Command::new("nm")
            .args(["-D", "--defined-only"])
            .arg(library_folder().join("libssl_edge.so")),
    );
    let mut exported: Vec<&str> = listing
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .collect();
    exported.sort_unstable();
    let golden = read("symbols.txt");
    let golden: Vec<&str> = golden.lines().collect();
    assert_eq!(
        exported, golden,
        "libssl_edge.so and ffi/symbols.txt differ; a symbol that is out there is never taken away"
    );
    let mut declared: Vec<String> = functions(&read(HEADER))
        .into_iter()
        .map(|function| function.name)
        .collect();
    declared.sort_unstable();
    assert_eq!(declared, golden, "the header and ffi/symbols.txt differ");
}

#[test]
fn every_item_of_the_header_is_explained() {
    let header = read(HEADER);
    let lines: Vec<&str> = header.lines().collect();
    let mut seen = 0;
    for (number, line) in lines.iter().enumerate() {
        let is_indented = |depth: usize| line.len() - line.trim_start().len() == depth;
        let is_function = line.contains("ssl_edge_")
            && line.contains('(')
            && is_indented(0)
            && !line.starts_with(['#', '/', '}']);
        let is_type = line.starts_with("typedef struct") || line.starts_with("enum ssl_edge");
        let is_field = is_indented(4) && line.ends_with([';', ',']);
        if is_function || is_type || is_field {
            seen += 1;
            assert!(
                lines[number - 1].trim_end().ends_with("*/"),
                "line {} of the header has no comment: {line}",
                number + 1
            );
        }
    }
    assert!(seen > 80, "only {seen} items were found");
}

#[test]
fn numbers_that_are_out_there_stay() {
    let header = read(HEADER);
    let numbers: Vec<&str> = header
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("SSL_EDGE_") && line.contains(" = "))
        .map(|line| line.trim_end_matches(','))
        .collect();
    let golden = read("numbers.txt");
    let golden: Vec<&str> = golden.lines().collect();
    assert_eq!(
        numbers, golden,
        "append to ffi/numbers.txt what is new; never change or reuse a number"
    );
    assert!(golden.contains(&"SSL_EDGE_STATUS_OK = 0"));
}
