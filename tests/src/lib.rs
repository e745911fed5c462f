//! What the suites over the whole workspace share: its root, its sources, its metadata and the tables of ARCHITECTURE.md.

mod elf;

pub use elf::assert_needs_the_c_library_alone;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One workspace package as `cargo metadata` describes it.
#[derive(Debug)]
pub struct Package {
    /// The package's name.
    pub name: String,
    /// Its folder, relative to the root, with forward slashes.
    pub folder: String,
    /// The names of the packages that it declares, of every kind (normal, build, development).
    pub dependencies: Vec<String>,
}

/// The folder that holds the workspace's Cargo.toml.
pub fn workspace_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("tests/ has a parent").to_path_buf()
}

/// All workspace packages, sorted by name.
///
/// # Panics
/// When `cargo metadata` fails.
pub fn packages() -> Vec<Package> {
    let root = workspace_root();
    let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(&root)
        .output()
        .expect("cargo starts");
    assert!(
        output.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let text = |value: &serde_json::Value| value.as_str().expect("a string").to_owned();
    let mut packages: Vec<Package> = metadata["packages"]
        .as_array()
        .expect("a list of packages")
        .iter()
        .map(|package| {
            let manifest = PathBuf::from(text(&package["manifest_path"]));
            let folder = manifest.parent().expect("a manifest has a folder");
            let folder = folder
                .strip_prefix(&root)
                .expect("a package lies in the workspace");
            let mut dependencies: Vec<String> = package["dependencies"]
                .as_array()
                .expect("a list of dependencies")
                .iter()
                .map(|dependency| text(&dependency["name"]))
                .collect();
            dependencies.sort();
            dependencies.dedup();
            Package {
                name: text(&package["name"]),
                folder: folder.to_string_lossy().replace('\\', "/"),
                dependencies,
            }
        })
        .collect();
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    packages
}

/// The rows of the table that follows `<!-- marker -->` in a Markdown text, without its head;
/// each cell is the list of its backquoted words.
pub fn table_after(markdown: &str, marker: &str) -> Vec<Vec<Vec<String>>> {
    let start = format!("<!-- {marker} -->");
    let rows = markdown
        .lines()
        .skip_while(|line| line.trim() != start)
        .skip(1);
    rows.take_while(|line| !line.starts_with("<!--"))
        .filter(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| line.trim_matches('|').split('|').map(backquoted).collect())
        .collect()
}

/// All files below `folder` whose extension is one of `extensions`, sorted, hidden and build folders left out.
pub fn files_below(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the workspace can be read") {
            let path = entry.expect("a folder's entry can be read").path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if path.is_dir() {
                if !name.starts_with('.')
                    && !["target", "runs", "node_modules"].contains(&name.as_str())
                {
                    open.push(path);
                }
            } else if path
                .extension()
                .is_some_and(|e| extensions.iter().any(|x| e == *x))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Edges as a map from package to what it uses, out of a table whose cells are package lists.
pub fn edges(rows: &[Vec<Vec<String>>], from: usize, to: usize) -> BTreeMap<String, Vec<String>> {
    rows.iter()
        .map(|row| (row[from][0].clone(), row[to].clone()))
        .collect()
}

fn backquoted(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}
