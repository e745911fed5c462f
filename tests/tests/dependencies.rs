//! The dependency tables of ARCHITECTURE.md hold for the workspace as cargo sees it.

use ssl_edge_tests::{Package, edges, packages, table_after, workspace_root};
use std::collections::BTreeMap;

fn architecture() -> String {
    std::fs::read_to_string(workspace_root().join("ARCHITECTURE.md"))
        .expect("ARCHITECTURE.md can be read")
}

fn forbidden_internal(
    packages: &[Package],
    allowed: &BTreeMap<String, Vec<String>>,
) -> Vec<String> {
    let is_internal = |name: &String| packages.iter().any(|package| package.name == *name);
    let mut found = Vec::new();
    for package in packages {
        let allowed = allowed
            .get(&package.name)
            .map(Vec::as_slice)
            .unwrap_or_default();
        for used in package.dependencies.iter().filter(|name| is_internal(name)) {
            if !allowed.contains(used) {
                found.push(format!("{} -> {used}", package.name));
            }
        }
    }
    found
}

fn forbidden_external(packages: &[Package], homes: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut found = Vec::new();
    for package in packages {
        for used in &package.dependencies {
            if homes
                .get(used)
                .is_some_and(|homes| !homes.contains(&package.name))
            {
                found.push(format!("{} -> {used}", package.name));
            }
        }
    }
    found
}

#[test]
fn every_package_is_in_the_table_at_its_path() {
    let rows = table_after(&architecture(), "internal-dependencies");
    let mut in_table: Vec<(String, String)> = rows
        .iter()
        .map(|row| (row[1][0].clone(), row[0][0].clone()))
        .collect();
    in_table.sort();
    let in_workspace: Vec<(String, String)> = packages()
        .into_iter()
        .map(|package| (package.name, package.folder))
        .collect();
    assert_eq!(
        in_table, in_workspace,
        "ARCHITECTURE.md and the workspace list different packages"
    );
}

#[test]
fn no_internal_edge_is_outside_the_table() {
    let allowed = edges(&table_after(&architecture(), "internal-dependencies"), 1, 2);
    let found = forbidden_internal(&packages(), &allowed);
    assert!(
        found.is_empty(),
        "edges that ARCHITECTURE.md does not allow: {found:?}"
    );
}

#[test]
fn third_party_crates_stay_in_their_homes() {
    let homes = edges(&table_after(&architecture(), "external-dependencies"), 0, 1);
    assert!(
        homes.len() > 5,
        "the table of third-party crates was not found"
    );
    let found = forbidden_external(&packages(), &homes);
    assert!(
        found.is_empty(),
        "crates outside the home that ARCHITECTURE.md gives them: {found:?}"
    );
}

#[test]
fn a_forbidden_edge_would_be_found() {
    let packages = [
        Package {
            name: "upper".into(),
            folder: "upper".into(),
            dependencies: vec!["lower".into(), "zip".into()],
        },
        Package {
            name: "lower".into(),
            folder: "lower".into(),
            dependencies: vec!["upper".into()],
        },
    ];
    let table = "<!-- t -->\n\n| path | package | may use |\n|---|---|---|\n| `upper` | `upper` | `lower` |\n| `lower` | `lower` | |\n<!-- end -->\n| `lower` | `lower` | `upper` |\n";
    let allowed = edges(&table_after(table, "t"), 1, 2);
    assert_eq!(forbidden_internal(&packages, &allowed), ["lower -> upper"]);
    let homes = BTreeMap::from([("zip".to_owned(), vec!["lower".to_owned()])]);
    assert_eq!(forbidden_external(&packages, &homes), ["upper -> zip"]);
}
