//! The README's program in C is one that a C compiler accepts.

use ssl_edge_tests::workspace_root;
use std::process::Command;

fn c_programs(markdown: &str) -> Vec<String> {
    markdown
        .split("\n```c\n")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once("\n```")?.0.to_owned() + "\n"))
        .collect()
}

#[test]
fn the_c_snippet_compiles_without_warnings() {
    let root = workspace_root();
    let readme = std::fs::read_to_string(root.join("README.md")).expect("a README");
    let programs = c_programs(&readme);
    assert_eq!(programs.len(), 1, "the README has one program in C");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = folder.path().join("program.c");
    std::fs::write(&source, &programs[0]).expect("the program can be written");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let output = Command::new(compiler)
        .args([
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-fsyntax-only",
            "-I",
        ])
        .arg(root.join("ffi/include"))
        .arg(&source)
        .output()
        .expect("a C compiler is there");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
