//! The images of `eval anomaly`: which are good, which part they show, their masks and their tokens.

use super::{AnomalyArgs, job};
use crate::data::{check_any_left, scan_images};
use crate::output::note;
use anyhow::{Context, Result, bail};
use rayon::prelude::*;
use ssl_edge::anomaly::{AnomalySplit, FrameTokens, frame_tokens};
use ssl_edge::encoder::{Encoder, EngineKind, Options, l2_normalize};
use ssl_edge::job::{Job, Seen};
use ssl_edge::vision::{Image, Pixels, decode_all, decode_file, raw_grid, texture_grid};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const FILES_AT_ONCE: usize = 32;
/// Side of the patches of raw pixels.
const RAW_SIDE: usize = 8;

/// What tokens are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Encoder,
    /// The encoder's tokens and the texture of the same cells, each of norm 1, one after the other.
    WithTexture,
    /// The same with the raw pixels of the cells.
    WithPixels,
    Random,
    Texture,
    RawPixels,
}

impl Kind {
    /// In the order of [`Item::tokens`].
    pub(super) const ALL: [Self; 6] = [
        Self::Encoder,
        Self::WithTexture,
        Self::WithPixels,
        Self::Random,
        Self::Texture,
        Self::RawPixels,
    ];

    /// What stands before the name of the model.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Encoder => "",
            Self::WithTexture => "with_texture_",
            Self::WithPixels => "with_pixels_",
            Self::Random => "random_encoder_",
            Self::Texture => "texture_",
            Self::RawPixels => "raw_pixels_",
        }
    }
}

/// One image.
pub(super) struct Item {
    pub(super) path: PathBuf,
    /// The part that it shows.
    pub(super) group: u64,
    /// Rows and columns of pixels.
    pub(super) size: [usize; 2],
    /// Of each [`Kind`].
    pub(super) tokens: Vec<FrameTokens>,
    /// What a job is shown of it.
    pub(super) seen: Seen,
    pub(super) mask: Option<Vec<bool>>,
}

/// All images, each once, and what each is used for.
pub(super) struct Images {
    pub(super) items: Vec<Item>,
    pub(super) pool: Vec<usize>,
    pub(super) good: Vec<usize>,
    pub(super) bad: Vec<usize>,
    masks: Option<(PathBuf, PathBuf)>,
}

impl Images {
    /// Lists the folders.
    pub(super) fn scan(args: &AnomalyArgs) -> Result<Self> {
        let list = |folder: &PathBuf| scan_images(std::slice::from_ref(folder));
        let (pool, good, bad) = (
            list(&args.good)?,
            list(&args.test_good)?,
            list(&args.test_bad)?,
        );
        let mut index: BTreeMap<PathBuf, usize> = BTreeMap::new();
        let mut items = Vec::new();
        let mut indices = |files: Vec<PathBuf>| -> Result<Vec<usize>> {
            let mut out = Vec::with_capacity(files.len());
            for path in files {
                let key = path.canonicalize().unwrap_or_else(|_| path.clone());
                let at = match index.get(&key) {
                    Some(&at) => at,
                    None => {
                        let group = match args.group {
                            Some(0) => bail!("--group is 0; it must be at least 1"),
                            Some(n) => number(&path)? / n,
                            None => items.len() as u64,
                        };
                        items.push(Item {
                            path,
                            group,
                            size: [0; 2],
                            tokens: Vec::new(),
                            seen: Seen::default(),
                            mask: None,
                        });
                        index.insert(key, items.len() - 1);
                        items.len() - 1
                    }
                };
                out.push(at);
            }
            Ok(out)
        };
        let (pool, good, all_bad) = (indices(pool)?, indices(good)?, indices(bad)?);
        let mut bad = all_bad.clone();
        bad.retain(|i| !pool.contains(i) && !good.contains(i));
        if bad.len() < all_bad.len() {
            note(format_args!(
                "{} images below --test-bad are good ones and left out there",
                all_bad.len() - bad.len()
            ));
        }
        if bad.is_empty() {
            bail!(
                "{} has no image that is not below --good or --test-good too",
                args.test_bad.display()
            );
        }
        let masks = args
            .masks
            .clone()
            .map(|masks| (masks, args.test_bad.clone()));
        Ok(Self {
            items,
            pool,
            good,
            bad,
            masks,
        })
    }

    /// Decodes each image once and makes its tokens; images that cannot be decoded are named and left out. Reads the masks.
    pub(super) fn embed(
        &mut self,
        encoder: &Encoder,
        empty: &Job,
        tiles: usize,
        baselines: bool,
    ) -> Result<()> {
        let random = if baselines {
            Some(random_encoder(encoder)?)
        } else {
            None
        };
        let files: Vec<PathBuf> = self.items.iter().map(|item| item.path.clone()).collect();
        let mut skipped = Vec::new();
        for (chunk, files) in files.chunks(FILES_AT_ONCE).enumerate() {
            let (images, broken) = decode_all(files, None);
            skipped.extend(broken);
            let shown: Vec<(Vec<FrameTokens>, Seen)> = images
                .par_iter()
                .map(|(_, image)| {
                    let tokens = all_tokens(encoder, random.as_ref(), image, tiles)?;
                    Ok((tokens, job::seen(encoder, empty, &image.frame())?))
                })
                .collect::<Result<_>>()?;
            for ((index, image), (tokens, seen)) in images.iter().zip(shown) {
                let item = &mut self.items[chunk * FILES_AT_ONCE + index];
                item.size = [image.height() as usize, image.width() as usize];
                (item.tokens, item.seen) = (tokens, seen);
            }
        }
        check_any_left(files.len(), &skipped)?;
        for (what, list) in [
            ("--good", &mut self.pool),
            ("--test-good", &mut self.good),
            ("--test-bad", &mut self.bad),
        ] {
            list.retain(|&i| !self.items[i].tokens.is_empty());
            if list.is_empty() {
                bail!(
                    "no image below {what} can be decoded; the reasons are above, replace the files"
                );
            }
        }
        self.read_masks()
    }

    /// Those of `list` that show no part that `split` learns.
    pub(super) fn tested(&self, list: &[usize], split: &AnomalySplit) -> Vec<usize> {
        list.iter()
            .copied()
            .filter(|&i| !split.groups.contains(&self.items[i].group))
            .collect()
    }

    fn read_masks(&mut self) -> Result<()> {
        let Some((masks, bad_root)) = self.masks.clone() else {
            return Ok(());
        };
        let mut missing = 0;
        for &i in &self.bad {
            let item = &mut self.items[i];
            let candidates = mask_files(&masks, &bad_root, &item.path);
            match candidates.iter().find(|file| file.is_file()) {
                Some(file) => item.mask = Some(read_mask(file, item)?),
                None => {
                    missing += 1;
                    note(format_args!(
                        "no mask for {} (looked for {})",
                        item.path.display(),
                        candidates[0].display()
                    ));
                }
            }
        }
        if missing == self.bad.len() {
            bail!(
                "no defective image has a mask below {}; name them FOLDER/STEM_mask.png or FOLDER/STEM.png, or leave --masks out",
                masks.display()
            );
        }
        if missing > 0 {
            note(format_args!(
                "{missing} of {} defective images have no mask; their pixels are not scored",
                self.bad.len()
            ));
        }
        Ok(())
    }
}

/// The last number in a file's stem.
fn number(path: &Path) -> Result<u64> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let digits = stem
        .rsplit(|c: char| !c.is_ascii_digit())
        .find(|run| !run.is_empty());
    digits
        .and_then(|digits| digits.parse().ok())
        .with_context(|| {
            format!(
                "{} has no number in its name, which --group needs; rename it or leave --group out",
                path.display()
            )
        })
}

/// Where the mask of `image` may be: in the folder that it has below `root`, in one named as its own folder, or in `masks` itself.
fn mask_files(masks: &Path, root: &Path, image: &Path) -> Vec<PathBuf> {
    let parent = image.parent().unwrap_or(Path::new(""));
    let below = parent.strip_prefix(root).unwrap_or(Path::new(""));
    let mut folders = vec![masks.join(below)];
    folders.extend(parent.file_name().map(|name| masks.join(name)));
    let stem = image.file_stem().unwrap_or_default().to_string_lossy();
    let names = [format!("{stem}_mask.png"), format!("{stem}.png")];
    folders
        .iter()
        .flat_map(|folder| names.iter().map(|name| folder.join(name)))
        .collect()
}

/// Pixels brighter than half.
fn read_mask(file: &Path, item: &Item) -> Result<Vec<bool>> {
    let mask = decode_file(file)?;
    if [mask.height() as usize, mask.width() as usize] != item.size {
        bail!(
            "{} is {}x{} pixels and its image {} is {}x{}; make the mask at the size of the image",
            file.display(),
            mask.width(),
            mask.height(),
            item.path.display(),
            item.size[1],
            item.size[0]
        );
    }
    let channels = mask.channels();
    Ok(match mask.pixels() {
        Pixels::Gray8(v) | Pixels::Rgb8(v) => {
            v.iter().step_by(channels).map(|v| *v > 127).collect()
        }
        Pixels::Gray16(v) | Pixels::Rgb16(v) => {
            v.iter().step_by(channels).map(|v| *v > 32767).collect()
        }
    })
}

/// Random weights in the shape of `encoder`.
fn random_encoder(encoder: &Encoder) -> Result<Encoder> {
    let folder = tempfile::tempdir().context("cannot make a folder for the random encoder")?;
    let path = folder.path().join("random.sslb");
    let manifest = encoder.manifest();
    ssl_edge::export::random_bundle(
        manifest.name(),
        0,
        encoder.preprocess().height,
        manifest.pooling,
        &path,
    )
    .context(
        "no random encoder of this shape can be made; leave the baselines out with --no-baselines",
    )?;
    Ok(Encoder::open(
        &path,
        &Options {
            engine: EngineKind::Native,
            threads: 1,
            ..Options::default()
        },
    )?)
}

fn all_tokens(
    encoder: &Encoder,
    random: Option<&Encoder>,
    image: &Image,
    tiles: usize,
) -> Result<Vec<FrameTokens>> {
    let frame = image.frame();
    let learned = frame_tokens(encoder, &frame, tiles)?;
    let size = learned.size;
    let Some(random) = random else {
        return Ok(vec![learned]);
    };
    let of = |values: Vec<f32>| FrameTokens {
        dim: values.len() / (size[0] * size[1]),
        values,
        size,
    };
    let texture = of(texture_grid(&frame, size)?);
    let pixels = of(raw_grid(&frame, size, RAW_SIDE)?);
    let (with_texture, with_pixels) = (beside(&learned, &texture), beside(&learned, &pixels));
    let random = frame_tokens(random, &frame, tiles)?;
    Ok(vec![
        learned,
        with_texture,
        with_pixels,
        random,
        texture,
        pixels,
    ])
}

fn beside(a: &FrameTokens, b: &FrameTokens) -> FrameTokens {
    let mut values = Vec::with_capacity(a.values.len() + b.values.len());
    for (a, b) in a
        .values
        .chunks_exact(a.dim)
        .zip(b.values.chunks_exact(b.dim))
    {
        for part in [a, b] {
            let start = values.len();
            values.extend(part);
            l2_normalize(&mut values[start..]);
        }
    }
    FrameTokens {
        values,
        size: a.size,
        dim: a.dim + b.dim,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_numbered_by_the_last_digits() {
        assert_eq!(number(Path::new("a/cam2_017.jpg")).unwrap(), 17);
        assert_eq!(number(Path::new("a/9b.jpg")).unwrap(), 9);
        assert!(
            number(Path::new("12/no.jpg"))
                .unwrap_err()
                .to_string()
                .contains("12/no.jpg")
        );
    }

    #[test]
    fn masks_are_looked_for_beside_the_defect_type() {
        let files = mask_files(
            Path::new("gt"),
            Path::new("test"),
            Path::new("test/cut/000.jpg"),
        );
        assert_eq!(files[0], Path::new("gt/cut/000_mask.png"));
        assert_eq!(files[1], Path::new("gt/cut/000.png"));
        let direct = mask_files(
            Path::new("gt"),
            Path::new("test/cut"),
            Path::new("test/cut/000.jpg"),
        );
        assert!(direct.contains(&PathBuf::from("gt/cut/000_mask.png")));
        assert!(direct.contains(&PathBuf::from("gt/000_mask.png")));
    }
}
