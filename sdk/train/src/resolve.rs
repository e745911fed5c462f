//! From what a user asks for to a complete [`TrainConfig`]: preset, then file, then overrides.

use std::fs;
use std::path::{Path, PathBuf};

use ssl_edge_vision::ImageFolder;
use toml::{Table, Value};

use crate::config::{MethodName, ProbeConfig, TrainConfig, rejected};
use crate::data::Fnv;
use crate::error::{Result, TrainError};

/// What a user asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Method.
    pub method: MethodName,
    /// Architecture, one of `VitConfig::NAMES`.
    pub arch: String,
    /// Folders of images.
    pub data: Vec<PathBuf>,
    /// A TOML file with any part of a [`TrainConfig`], laid over the preset. The keys `image_size` and `local_size`
    /// (pixels) at its top set the size of crops, positions and preprocessing together.
    pub config: Option<PathBuf>,
    /// `path.to.key=value`, laid over the file, in order; elements of arrays by their number. `image_size=N` and
    /// `local_size=N` as in the file.
    pub set: Vec<String>,
    /// A folder of class folders to score during training.
    pub probe: Option<PathBuf>,
}

/// Keys that may differ between a run and its resumption, and between ranks, as no result depends on them or the run checks them itself.
const FREE: [&str; 9] = [
    "threads",
    "data.threads",
    "data.prefetch",
    "data.cache_mib",
    "data.folders",
    "checkpoint.",
    "probe.",
    "compute.device",
    "compute.recompute",
];

impl Request {
    /// The complete, checked configuration. Looks at the folders to choose the preset.
    ///
    /// # Errors
    /// Folders without images; a file or override that cannot be read, names an unknown key or does not fit.
    pub fn resolve(&self) -> Result<TrainConfig> {
        let images = ImageFolder::scan(&self.data)?.files.len();
        let mut preset = TrainConfig::preset(self.method, &self.arch, images)?;
        preset.data.folders = self.data.clone();
        if let Some(folder) = &self.probe {
            preset.probe = Some(ProbeConfig {
                folder: folder.clone(),
                every_steps: 250,
                max_per_class: 200,
            });
        }
        let mut table = to_table(&preset)?;
        if let Some(path) = &self.config {
            let text = fs::read_to_string(path).map_err(TrainError::io("read", path))?;
            let origin = path.display().to_string();
            let layer = text.parse::<Table>().map_err(|e| config(&origin, e))?;
            lay_over(&mut table, layer);
            table = checked(table, &origin)?;
        }
        for text in &self.set {
            let origin = format!("--set {text}");
            let Some((key, value)) = text.split_once('=') else {
                return Err(config(&origin, "an override has the form key=value"));
            };
            let value = parse_value(value.trim());
            set(&mut table, key.trim(), value).map_err(|e| config(&origin, e))?;
            table = checked(table, &origin)?;
        }
        let resolved = settled(&table.try_into().map_err(rejected)?);
        if (resolved.method, &resolved.arch) != (self.method, &self.arch) {
            return Err(rejected(
                "method and arch choose the preset; give them as --method and --arch, not as settings",
            ));
        }
        resolved.validate()?;
        Ok(resolved)
    }
}

/// Reads a run's `config.toml`.
pub(crate) fn read_config(path: &Path) -> Result<TrainConfig> {
    let text = fs::read_to_string(path).map_err(TrainError::io("read", path))?;
    toml::from_str(&text).map_err(|e| config(&path.display().to_string(), e))
}

/// A configuration as text of `config.toml`.
pub(crate) fn config_text(config: &TrainConfig) -> Result<String> {
    toml::to_string(config).map_err(rejected)
}

/// With the precision that it stands for where it names none.
fn settled(config: &TrainConfig) -> TrainConfig {
    let mut config = config.clone();
    config.compute.precision = Some(config.compute.precision());
    config
}

/// Fingerprint of the settings that decide what a run computes.
pub(crate) fn fingerprint(config: &TrainConfig) -> Result<u64> {
    let mut settings = Vec::new();
    flatten(
        "",
        &Value::Table(to_table(&settled(config))?),
        &mut settings,
    );
    settings.sort();
    let mut hash = Fnv::new();
    for (key, value) in settings.iter().filter(|(key, _)| !is_free(key)) {
        hash.add(format!("{key}={value}\n").as_bytes());
    }
    Ok(hash.value())
}

/// Whether a setting may differ between parts of one run.
fn is_free(key: &str) -> bool {
    FREE.iter().any(|free| match free.ends_with('.') {
        true => key.starts_with(free),
        false => key == *free,
    })
}

/// Settings that differ and matter, as `key: then -> now`.
pub(crate) fn changes(then: &TrainConfig, now: &TrainConfig) -> Result<Vec<String>> {
    let (mut old, mut new) = (Vec::new(), Vec::new());
    flatten("", &Value::Table(to_table(&settled(then))?), &mut old);
    flatten("", &Value::Table(to_table(&settled(now))?), &mut new);
    let find = |list: &[(String, String)], key: &str| {
        let found = list.iter().find(|(k, _)| k == key);
        found.map_or("absent".to_string(), |(_, value)| value.clone())
    };
    let mut keys: Vec<&String> = old.iter().chain(&new).map(|(key, _)| key).collect();
    keys.sort();
    keys.dedup();
    keys.retain(|key| !is_free(key) && find(&old, key) != find(&new, key));
    let describe = |key: &String| format!("{key}: {} -> {}", find(&old, key), find(&new, key));
    Ok(keys.into_iter().map(describe).collect())
}

fn config(origin: &str, message: impl ToString) -> TrainError {
    TrainError::Config {
        origin: origin.into(),
        message: message.to_string(),
    }
}

/// By way of text, so that single-precision numbers keep their short form.
fn to_table(config: &TrainConfig) -> Result<Table> {
    config_text(config)?.parse().map_err(rejected)
}

/// Sets the sizes, then checks that the table is a configuration, so that a wrong key is blamed on its origin.
fn checked(mut table: Table, origin: &str) -> Result<Table> {
    let mut size = |key: &str| match table.remove(key) {
        None => Ok(None),
        Some(Value::Integer(size)) if (1..=4096).contains(&size) => Ok(Some(size as u32)),
        Some(other) => Err(config(
            origin,
            format!("{key} is {other}; it must be 1 to 4096 pixels"),
        )),
    };
    let (image, local) = (size("image_size")?, size("local_size")?);
    let mut parsed: TrainConfig = table.try_into().map_err(|e| config(origin, e))?;
    if let Some(size) = image {
        parsed.set_image_size(size);
    }
    if let Some(size) = local {
        let Some(dino) = &mut parsed.dino else {
            return Err(config(origin, "only dino has local crops"));
        };
        (dino.crops.local.height, dino.crops.local.width) = (size, size);
    }
    to_table(&parsed)
}

impl TrainConfig {
    /// Sets the side of the (global) crops, the positions and the preprocessing to `size` pixels.
    pub fn set_image_size(&mut self, size: u32) {
        self.encoder.image_size = [size as usize; 2];
        (self.preprocess.height, self.preprocess.width) = (size, size);
        let views = self.mae.iter_mut().map(|mae| &mut mae.view);
        let globals = self
            .dino
            .iter_mut()
            .flat_map(|dino| &mut dino.crops.globals);
        for view in views.chain(globals) {
            (view.height, view.width) = (size, size);
        }
    }
}

fn lay_over(base: &mut Table, layer: Table) {
    for (key, value) in layer {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(layer)) => lay_over(base, layer),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// As a TOML value, or as a bare string where it is none.
fn parse_value(text: &str) -> Value {
    let line = format!("value = {text}");
    let parsed = line.parse::<Table>().ok().filter(|t| t.len() == 1);
    let value = parsed.and_then(|mut table| table.remove("value"));
    value.unwrap_or_else(|| Value::String(text.into()))
}

fn set(table: &mut Table, path: &str, value: Value) -> Result<(), String> {
    let (parents, key) = path.rsplit_once('.').unwrap_or(("", path));
    let mut at: Option<&mut Value> = None;
    for part in parents.split('.').filter(|part| !part.is_empty()) {
        let next = match at {
            None => table.get_mut(part),
            Some(Value::Table(table)) => table.get_mut(part),
            Some(Value::Array(list)) => part.parse().ok().and_then(|i: usize| list.get_mut(i)),
            Some(_) => None,
        };
        at = Some(next.ok_or_else(|| format!("there is no `{part}` in `{path}`"))?);
    }
    match at {
        None => table.insert(key.into(), value).map_or((), drop),
        Some(Value::Table(table)) => table.insert(key.into(), value).map_or((), drop),
        Some(Value::Array(list)) => match key.parse().ok().and_then(|i: usize| list.get_mut(i)) {
            Some(slot) => *slot = value,
            None => return Err(format!("`{parents}` has no element {key}")),
        },
        Some(_) => return Err(format!("`{parents}` has no keys of its own")),
    }
    Ok(())
}

fn flatten(path: &str, value: &Value, out: &mut Vec<(String, String)>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                flatten(&path, value, out);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_table) => {
            for (i, value) in list.iter().enumerate() {
                flatten(&format!("{path}.{i}"), value, out);
            }
        }
        value => out.push((path.into(), value.to_string())),
    }
}
