//! The job file (`.sslj`): a [container](crate::container) with magic `SSLEJOB\0`, whose payload is a [`Payload`] and,
//! from version 2 on, an [`Extension`].
//!
//! A file of version 1 is read as one whose extension is empty; saving it makes it one of version 2. Enums in the payload only grow at their ends.

use crate::augment::Augmentation;
use crate::container::Format;
use crate::error::{AdaptError, check_embedding};
use crate::fitted::Fitted;
use crate::head::HeadKind;
use crate::history::Record;
use crate::job::{Class, EncoderId, IgnoreMask, Job, Sample, SampleId};
use crate::parts::{Layout, Selection};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::path::Path;

const FORMAT: Format = Format {
    magic: *b"SSLEJOB\0",
    oldest: 1,
    version: 2,
    not_one: |path| AdaptError::NotAJob { path },
};

#[derive(Serialize, Deserialize)]
struct Payload<'a> {
    encoder: EncoderId,
    layout: Cow<'a, Layout>,
    classes: Cow<'a, [Class]>,
    samples: Cow<'a, [Sample]>,
    next_class: u32,
    next_sample: u64,
    fitted: Option<Cow<'a, Fitted>>,
    surface: Option<Cow<'a, str>>,
    choice: Option<Cow<'a, (HeadKind, Selection)>>,
    revision: u64,
    history: Cow<'a, [Record]>,
}

/// What version 2 added.
#[derive(Default, Serialize, Deserialize)]
struct Extension<'a> {
    ignore: Option<Cow<'a, IgnoreMask>>,
    /// Copies of the samples that have some, by rising id.
    copies: Vec<(SampleId, Cow<'a, [Vec<f32>]>)>,
    augmentation: Option<Augmentation>,
}

impl Job {
    /// Writes the job, its fitted head included, so that `path` always holds a whole job: the old one or this one.
    ///
    /// # Errors
    ///
    /// [`AdaptError::Io`]: the folder is missing, the disk is full, permissions. What was at `path` before is still there.
    pub fn save(&self, path: &Path) -> Result<(), AdaptError> {
        let payload = Payload {
            encoder: self.encoder,
            layout: Cow::Borrowed(&self.layout),
            classes: Cow::Borrowed(&self.classes),
            samples: Cow::Borrowed(&self.samples),
            next_class: self.next_class,
            next_sample: self.next_sample,
            fitted: self.fitted.as_ref().map(Cow::Borrowed),
            surface: self.surface.as_deref().map(Cow::Borrowed),
            choice: self.choice.as_ref().map(Cow::Borrowed),
            revision: self.revision,
            history: Cow::Borrowed(&self.history),
        };
        let extension = Extension {
            ignore: self.ignore.as_ref().map(Cow::Borrowed),
            copies: self
                .samples
                .iter()
                .filter(|sample| !sample.copies.is_empty())
                .map(|sample| (sample.id, Cow::Borrowed(sample.copies.as_slice())))
                .collect(),
            augmentation: self.report().and_then(|report| report.augmentation),
        };
        FORMAT.save(path, &(payload, extension))
    }

    /// Reads a job; a fitted one gives the verdicts it gave when it was saved, bit for bit.
    ///
    /// # Errors
    ///
    /// [`AdaptError::Io`], [`AdaptError::NotAJob`], [`AdaptError::FileVersion`], [`AdaptError::FileLength`], [`AdaptError::FileDamaged`].
    pub fn load(path: &Path) -> Result<Self, AdaptError> {
        let (version, content) = FORMAT.read(path)?;
        let (payload, extension): (Payload, Extension) = match version {
            1 => (FORMAT.decode(path, &content)?, Extension::default()),
            _ => FORMAT.decode(path, &content)?,
        };
        let damaged = |why: String| AdaptError::FileDamaged {
            path: path.to_owned(),
            why,
        };
        check(&payload).map_err(damaged)?;
        check_extension(&extension, &payload).map_err(damaged)?;
        Ok(Self::restore(payload, extension))
    }

    /// Loads the job at `path`, applies `change`, and saves it: no other process that does the same comes between. The lock is a file beside the
    /// job that the operating system frees when the process ends, however it ends.
    ///
    /// # Errors
    ///
    /// [`AdaptError::Busy`] while another process changes the job; as [`Job::load`] and [`Job::save`]; what `change` returns, the file is then as
    /// it was.
    pub fn edit<T, E: From<AdaptError>>(
        path: &Path,
        change: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let _lock = lock(path)?;
        let mut job = Self::load(path)?;
        let out = change(&mut job)?;
        job.save(path)?;
        Ok(out)
    }

    fn restore(payload: Payload, extension: Extension) -> Self {
        let mut job = Self::empty(payload.encoder, payload.layout.into_owned());
        job.classes = payload.classes.into_owned();
        job.next_class = payload.next_class;
        job.next_sample = payload.next_sample;
        job.surface = payload.surface.map(Cow::into_owned);
        job.ignore = extension.ignore.map(Cow::into_owned);
        job.choice = payload.choice.map(Cow::into_owned);
        job.revision = payload.revision;
        job.history = payload.history.into_owned();
        job.set_samples(payload.samples.into_owned());
        for (id, copies) in extension.copies {
            if let Ok(index) = job.samples.binary_search_by_key(&id, |sample| sample.id) {
                job.samples[index].copies = copies.into_owned();
            }
        }
        let rows = job.samples.iter().map(|sample| sample.embedding.as_slice());
        job.fitted = payload.fitted.map(|fitted| {
            let mut fitted = fitted.into_owned();
            fitted.see(rows, job.layout.parts());
            fitted.report.augmentation = extension.augmentation;
            fitted
        });
        job
    }
}

/// The locked file beside `path`; dropping it frees the lock.
fn lock(path: &Path) -> Result<File, AdaptError> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".lock");
    let beside = path.with_file_name(name);
    let io = |source| AdaptError::Io {
        action: "lock",
        path: beside.clone(),
        source,
    };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&beside)
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(AdaptError::Busy {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}

/// Whether `payload` is a job that this crate's functions could have made; if not, what does not hold.
fn check(payload: &Payload) -> Result<(), String> {
    let ids_rise = payload.classes.is_sorted_by(|a, b| a.id < b.id)
        && payload.samples.is_sorted_by(|a, b| a.id < b.id);
    let ids_below_next = payload
        .classes
        .last()
        .is_none_or(|class| class.id.0 < payload.next_class)
        && payload
            .samples
            .last()
            .is_none_or(|sample| sample.id.0 < payload.next_sample);
    if !ids_rise || !ids_below_next {
        return Err("ids out of order".into());
    }
    // Counters that no job reaches would overflow with the next change.
    let counters = payload.next_class <= u32::MAX / 2
        && payload.next_sample <= u64::MAX / 2
        && payload.revision <= u64::MAX / 2;
    if !counters {
        return Err("a counter is out of range".into());
    }
    let names: HashSet<&str> = payload
        .classes
        .iter()
        .map(|class| class.name.as_str())
        .collect();
    if names.len() != payload.classes.len() || names.iter().any(|name| name.trim().is_empty()) {
        return Err("class names empty or not unique".into());
    }
    payload.layout.check().map_err(|error| error.to_string())?;
    if payload.layout.dim() != payload.encoder.dim {
        return Err("the parts do not make the feature".into());
    }
    if !payload
        .classes
        .iter()
        .all(|class| class.cost > 0.0 && class.cost.is_finite())
    {
        return Err("a class has no cost above 0".into());
    }
    let n_parts = payload.layout.parts().len();
    let choice = payload.choice.as_ref();
    if choice.is_some_and(|c| {
        c.1.is_empty() || !c.1.is_sorted_by(|a, b| a < b) || c.1.iter().any(|&i| i >= n_parts)
    }) {
        return Err("the chosen parts are not there".into());
    }
    for sample in payload.samples.iter() {
        if payload
            .classes
            .binary_search_by_key(&sample.class, |class| class.id)
            .is_err()
        {
            return Err(format!("sample {} has no class", sample.id.0));
        }
        check_embedding(
            || format!("sample {}", sample.id.0),
            &sample.embedding,
            payload.encoder.dim,
        )
        .map_err(|error| error.to_string())?;
        if sample
            .tokens
            .as_ref()
            .is_some_and(|tokens| !tokens.is_sound())
        {
            return Err(format!(
                "the patch tokens of sample {} are no grid",
                sample.id.0
            ));
        }
    }
    payload
        .fitted
        .as_ref()
        .map_or(Ok(()), |fitted| check_fitted(fitted, payload))
}

fn check_extension(extension: &Extension, payload: &Payload) -> Result<(), String> {
    let rising = extension.copies.is_sorted_by(|a, b| a.0 < b.0);
    for (id, copies) in &extension.copies {
        let known = payload
            .samples
            .binary_search_by_key(id, |sample| sample.id)
            .is_ok();
        if !known || !rising || copies.is_empty() {
            return Err(format!("copies of sample {} have no place", id.0));
        }
        for copy in copies.iter() {
            let what = || format!("a copy of sample {}", id.0);
            check_embedding(what, copy, payload.encoder.dim).map_err(|error| error.to_string())?;
        }
    }
    match &extension.ignore {
        Some(mask) if !mask.is_sound() || payload.surface.is_none() => {
            Err("its ignore mask is none".into())
        }
        _ => Ok(()),
    }
}

fn check_fitted(fitted: &Fitted, payload: &Payload) -> Result<(), String> {
    let n_classes = payload.classes.len();
    let parts = payload.layout.parts();
    if !fitted.view.is_sound(parts) {
        return Err("the head looks at parts that are not there".into());
    }
    fitted.head.check(n_classes, fitted.view.dim(parts))?;
    let report = &fitted.report;
    let confusion = report.confusion.n_classes == n_classes
        && Some(report.confusion.counts.len()) == n_classes.checked_mul(n_classes)
        && report
            .confusion
            .counts
            .iter()
            .map(|n| u128::from(*n))
            .sum::<u128>()
            <= payload.samples.len() as u128;
    let needs_more = report.needs_more.is_none_or(|class| class < n_classes);
    if n_classes == 0 || !confusion || !needs_more || report.n != payload.samples.len() {
        return Err("the head does not fit the classes and samples".into());
    }
    if let Some(normal) = &fitted.normal {
        normal.check().map_err(|error| error.to_string())?;
    }
    let temperature = report.temperature.is_finite() && report.temperature > 0.0;
    if !temperature || !report.unknown.is_sound() {
        return Err("the head has numbers that are not finite".into());
    }
    Ok(())
}
