//! House rules that a compiler does not know.

use ssl_edge_tests::{files_below, workspace_root};
use std::path::PathBuf;

const MAX_LINES: usize = 450;
/// A file may be longer if its head says why, on a line that starts with this.
const JUSTIFICATION: &str = "//! Longer than 450 lines because";

fn sources() -> Vec<(PathBuf, String)> {
    let root = workspace_root();
    let sources: Vec<(PathBuf, String)> = files_below(&root, &["rs"])
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("a source can be read");
            (
                path.strip_prefix(&root)
                    .expect("below the root")
                    .to_path_buf(),
                text,
            )
        })
        .collect();
    assert!(
        sources.len() > 30,
        "only {} sources were found",
        sources.len()
    );
    sources
}

/// Words that announce unfinished work; spelled in two parts so that this file does not find itself.
fn unfinished() -> Vec<String> {
    [
        ("to", "do!("),
        ("unimpl", "emented!("),
        ("TO", "DO"),
        ("FIX", "ME"),
        ("XX", "X:"),
        ("dbg", "!("),
    ]
    .iter()
    .map(|(a, b)| format!("{a}{b}"))
    .collect()
}

fn report(kind: &str, found: &[String]) {
    assert!(found.is_empty(), "{kind}:\n  {}", found.join("\n  "));
}

#[test]
fn files_are_short_or_say_why_not() {
    let long: Vec<String> = sources()
        .iter()
        .filter(|(_, text)| text.lines().count() > MAX_LINES)
        .filter(|(_, text)| {
            !text
                .lines()
                .take(20)
                .any(|line| line.starts_with(JUSTIFICATION))
        })
        .map(|(path, text)| format!("{}: {} lines", path.display(), text.lines().count()))
        .collect();
    report("files over 450 lines that do not say why", &long);
}

#[test]
fn nothing_is_unfinished() {
    let words = unfinished();
    let mut found = Vec::new();
    for (path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!(
                    "{}:{}: {}",
                    path.display(),
                    number + 1,
                    line.trim()
                ));
            }
        }
    }
    report("unfinished work", &found);
}

/// The C library, kernels, plug-ins and their table, the mapped file of decoded images, the options of the allocator's C library, an allocator that counts, a board's
/// registers.
const MAY_BE_UNSAFE: [&str; 9] = [
    "ffi",
    "sdk/cuda",
    "sdk/gpu/src",
    "sdk/nn/src",
    "sdk/nn/tests/allocation.rs",
    "sdk/plugin",
    "sdk/train/src/cache.rs",
    "sdk/cli/src/memory.rs",
    "firmware-examples/lm3s6965evb/src/board.rs",
];

#[test]
fn unsafe_stays_in_its_places() {
    let keyword = format!("un{} ", "safe");
    let is_code = |line: &str| {
        line.split("//")
            .next()
            .is_some_and(|code| code.contains(&keyword))
    };
    let found: Vec<String> = sources()
        .iter()
        .filter(|(path, _)| !MAY_BE_UNSAFE.iter().any(|place| path.starts_with(place)))
        .filter(|(_, text)| text.lines().any(is_code))
        .map(|(path, _)| path.display().to_string())
        .collect();
    report(&format!("{keyword}code outside its places"), &found);
}

#[test]
fn every_source_begins_with_what_it_is() {
    let found: Vec<String> = sources()
        .iter()
        .filter(|(path, _)| path.components().any(|part| part.as_os_str() == "src"))
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| path.display().to_string())
        .collect();
    report("sources without a //! head", &found);
}

#[test]
fn randomness_has_a_key() {
    let unkeyed = [
        "thread_rng",
        "from_os_rng",
        "from_entropy",
        "rand::rng()",
        "SysRng",
        "OsRng",
    ];
    let found: Vec<String> = sources()
        .iter()
        .filter(|(path, text)| {
            path.starts_with("sdk") && unkeyed.iter().any(|word| text.contains(word))
        })
        .map(|(path, _)| path.display().to_string())
        .collect();
    report("random numbers without a key", &found);
}

#[test]
fn no_line_ends_in_white_space() {
    let root = workspace_root();
    let mut found = Vec::new();
    for path in files_below(&root, &["rs", "toml", "md", "h", "c", "cpp", "hpp"]) {
        let text = std::fs::read_to_string(&path).expect("a file can be read");
        for (number, line) in text.lines().enumerate() {
            if line.ends_with([' ', '\t']) {
                found.push(format!(
                    "{}:{}",
                    path.strip_prefix(&root).unwrap_or(&path).display(),
                    number + 1
                ));
            }
        }
    }
    report("white space at the end of a line", &found);
}

#[test]
fn documents_link_to_files_that_exist() {
    let root = workspace_root();
    let mut found = Vec::new();
    for path in files_below(&root, &["md"]) {
        let text = std::fs::read_to_string(&path).expect("a document can be read");
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let target = link.split('#').next().unwrap_or_default();
            let is_local = !target.is_empty() && !target.contains("://");
            if is_local
                && !path
                    .parent()
                    .expect("a file has a folder")
                    .join(target)
                    .exists()
            {
                found.push(format!(
                    "{}: {link}",
                    path.strip_prefix(&root).unwrap_or(&path).display()
                ));
            }
        }
    }
    report("links to nothing", &found);
}

#[test]
fn ci_runs_the_readme_s_test_command() {
    let root = workspace_root();
    let command = "cargo test --release --workspace";
    for file in ["README.md", ".ci/run"] {
        let text = std::fs::read_to_string(root.join(file)).expect("the file can be read");
        assert!(
            text.lines().any(|line| line.trim() == command),
            "{file} has no line `{command}`"
        );
    }
}
