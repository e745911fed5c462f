//! Images of a run: decoded once, kept in memory within a budget and on disk beyond it, in an order that depends on the seed alone.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use rand::seq::SliceRandom;
use rayon::prelude::*;
use ssl_edge_vision::{Image, ImageFolder, Pixels, Skipped, decode_all, stream};

use crate::cache::{Cache, CacheWriter, Place};
use crate::config::DataConfig;
use crate::error::{Result, TrainError};
use crate::methods::purpose;

/// Files decoded at once while the data set is checked.
const CHUNK: usize = 256;

/// The readable images of a data set.
pub(crate) struct Dataset {
    entries: Vec<Entry>,
    on_disk: Option<Cache>,
    id: u64,
}

struct Entry {
    path: PathBuf,
    decoded: Decoded,
}

enum Decoded {
    InMemory(Image),
    OnDisk(Place),
}

impl Dataset {
    /// Finds and decodes every image once; unreadable ones are returned with their reason. Images stay in memory, in
    /// order, while they fit into the budget; the others go to a temporary file in `folder`.
    pub(crate) fn open(config: &DataConfig, folder: &Path) -> Result<(Self, Vec<Skipped>)> {
        let run = folder;
        let folder = ImageFolder::scan(&config.folders)?;
        let shorter_side = (config.shorter_side > 0).then_some(config.shorter_side);
        let mut skipped = folder.skipped;
        let mut entries = Vec::with_capacity(folder.files.len());
        let mut left = config.cache_mib.saturating_mul(1 << 20);
        let mut writer = None;
        let mut id = Fnv::new();
        for files in folder.files.chunks(CHUNK) {
            let (images, broken) = decode_all(files, shorter_side);
            skipped.extend(broken);
            for (index, image) in images {
                let path = files[index].clone();
                id.add_file(&path)?;
                let bytes = memory(&image);
                let decoded = if bytes <= left {
                    left -= bytes;
                    Decoded::InMemory(image)
                } else {
                    left = 0;
                    let writer = match &mut writer {
                        Some(writer) => writer,
                        none => none.insert(CacheWriter::new(run)?),
                    };
                    Decoded::OnDisk(writer.push(&image)?)
                };
                entries.push(Entry { path, decoded });
            }
        }
        if entries.is_empty() {
            let first = skipped.first();
            return Err(TrainError::NoReadableImage {
                files: folder.files.len(),
                first: first.map_or(String::new(), |s| {
                    format!("{}: {}", s.path.display(), s.reason)
                }),
            });
        }
        let dataset = Self {
            entries,
            on_disk: writer.map(CacheWriter::finish).transpose()?,
            id: id.0,
        };
        Ok((dataset, skipped))
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Images that stay in memory.
    pub(crate) fn cached(&self) -> usize {
        let in_memory = |e: &&Entry| matches!(e.decoded, Decoded::InMemory(_));
        self.entries.iter().filter(in_memory).count()
    }

    /// Fingerprint of file names and sizes, in order.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn path(&self, index: usize) -> &Path {
        &self.entries[index].path
    }

    /// The images of the given indices; those on disk are copied in parallel.
    pub(crate) fn images(&self, indices: &[usize]) -> Result<Vec<Cow<'_, Image>>> {
        let load = |&index: &usize| match (&self.entries[index].decoded, &self.on_disk) {
            (Decoded::InMemory(image), _) => Ok(Cow::Borrowed(image)),
            (Decoded::OnDisk(place), Some(cache)) => Ok(Cow::Owned(cache.image(place))),
            (Decoded::OnDisk(_), None) => unreachable!("a place comes from the cache"),
        };
        indices.par_iter().map(load).collect()
    }
}

/// Which images a step sees: each epoch is a new permutation of all, cut into whole batches; what is left over is not
/// seen in that epoch.
pub(crate) struct Sampler {
    seed: u64,
    images: usize,
    batch: usize,
    epoch: Option<u64>,
    order: Vec<usize>,
}

impl Sampler {
    /// # Errors
    /// Fewer images than one batch.
    pub(crate) fn new(seed: u64, images: usize, batch: usize) -> Result<Self> {
        if images < batch {
            return Err(TrainError::FewerImagesThanBatch { images, batch });
        }
        Ok(Self {
            seed,
            images,
            batch,
            epoch: None,
            order: Vec::new(),
        })
    }

    pub(crate) fn steps_per_epoch(&self) -> u64 {
        (self.images / self.batch) as u64
    }

    /// The images of a step; it depends on nothing but the seed and the step.
    pub(crate) fn batch(&mut self, step: u64) -> &[usize] {
        let epoch = step / self.steps_per_epoch();
        if self.epoch != Some(epoch) {
            self.order = (0..self.images).collect();
            self.order
                .shuffle(&mut stream(self.seed, epoch, 0, purpose::SHUFFLE));
            self.epoch = Some(epoch);
        }
        let place = (step % self.steps_per_epoch()) as usize * self.batch;
        &self.order[place..place + self.batch]
    }
}

fn memory(image: &Image) -> usize {
    match image.pixels() {
        Pixels::Gray8(v) | Pixels::Rgb8(v) => v.len(),
        Pixels::Gray16(v) | Pixels::Rgb16(v) => 2 * v.len(),
    }
}

/// 64-bit FNV-1a.
pub(crate) struct Fnv(u64);

impl Fnv {
    pub(crate) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(crate) fn value(&self) -> u64 {
        self.0
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn add_file(&mut self, path: &Path) -> Result<()> {
        let size = std::fs::metadata(path)
            .map_err(TrainError::io("read", path))?
            .len();
        let name = path.file_name().unwrap_or_default();
        self.add(name.as_encoded_bytes());
        self.add(&size.to_le_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_sees_every_image_once_and_depends_on_seed_and_step_alone() {
        let mut sampler = Sampler::new(3, 12, 4).unwrap();
        assert_eq!(sampler.steps_per_epoch(), 3);
        let mut epochs = Vec::new();
        for epoch in 0..3u64 {
            let mut seen: Vec<usize> = Vec::new();
            for step in 3 * epoch..3 * epoch + 3 {
                seen.extend(sampler.batch(step));
            }
            epochs.push(seen.clone());
            seen.sort_unstable();
            assert_eq!(seen, (0..12).collect::<Vec<_>>());
        }
        assert_ne!(epochs[0], epochs[1]);
        assert_eq!(Sampler::new(3, 12, 4).unwrap().batch(7), &epochs[2][4..8]);
        assert_ne!(Sampler::new(4, 12, 4).unwrap().batch(0), &epochs[0][..4]);
    }

    #[test]
    fn what_does_not_fill_a_batch_is_left_out_and_too_few_images_are_an_error() {
        let mut sampler = Sampler::new(0, 11, 4).unwrap();
        assert_eq!(sampler.steps_per_epoch(), 2);
        assert_eq!(sampler.batch(1).len(), 4);
        let error = Sampler::new(0, 3, 4).err().unwrap().to_string();
        assert!(error.contains("--set schedule.batch=3"), "{error}");
    }
}
