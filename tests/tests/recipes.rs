//! The recipes are configurations that the trainer accepts, and say what models/README.md says of them.

use ssl_edge::train::{MethodName, Request, TrainConfig};
use ssl_edge::vision::{Station, Surface};
use ssl_edge_tests::{files_below, workspace_root};
use std::path::{Path, PathBuf};

fn recipes() -> Vec<PathBuf> {
    let found = files_below(&workspace_root().join("models/recipes"), &["toml"]);
    assert!(!found.is_empty(), "models/recipes holds no recipe");
    found
}

/// The command that the recipe's head gives, resolved over a folder of images.
fn resolve(recipe: &Path, data: &Path) -> TrainConfig {
    let text = std::fs::read_to_string(recipe).expect("a recipe can be read");
    let command = text
        .lines()
        .find(|line| line.contains("ssl-edge pretrain"))
        .expect("a recipe has a command");
    let after = |flag: &str| -> String {
        let mut words = command.split_whitespace().skip_while(|word| *word != flag);
        words
            .nth(1)
            .unwrap_or_else(|| panic!("{flag} is not in `{command}`"))
            .to_owned()
    };
    assert!(
        recipe.ends_with(after("--config")),
        "{} names another file: {command}",
        recipe.display()
    );
    let method: MethodName = after("--method").parse().expect("a known method");
    let request = Request {
        method,
        arch: after("--arch"),
        data: vec![data.to_path_buf()],
        config: Some(recipe.to_path_buf()),
        set: Vec::new(),
        probe: None,
    };
    request
        .resolve()
        .unwrap_or_else(|error| panic!("{}: {error}", recipe.display()))
}

fn images() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    Station::new(0)
        .write(folder.path(), &[Surface::Clean], 2, 32, 0)
        .expect("surfaces can be written");
    folder
}

#[test]
fn every_recipe_is_accepted_and_listed_with_its_length() {
    let images = images();
    let readme =
        std::fs::read_to_string(workspace_root().join("models/README.md")).expect("a README");
    for recipe in recipes() {
        let config = resolve(&recipe, images.path());
        let stem = recipe
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let row = readme
            .lines()
            .find(|line| line.contains(&format!("[{stem}]")))
            .expect("a row in models/README.md");
        let seen = row
            .split('|')
            .nth(4)
            .expect("a fourth column")
            .trim()
            .replace(',', "");
        assert_eq!(seen, config.schedule.images.to_string(), "{stem}");
        assert!(row.contains(&config.arch), "{stem}");
    }
}

#[test]
fn the_settings_of_a_recipe_arrive() {
    let images = images();
    let recipe = workspace_root().join("models/recipes/dino-small.toml");
    let config = resolve(&recipe, images.path());
    assert_eq!(config.encoder.image_size, [128, 128]);
    assert_eq!(config.schedule.batch, 64);
    assert!((config.peak_lr() - 2.5e-4).abs() < 1e-12);
    let dino = config.dino.expect("settings of DINO");
    assert_eq!(
        (
            dino.head.out_dim,
            dino.crops.n_locals,
            dino.crops.local.height
        ),
        (1024, 4, 64)
    );
}
