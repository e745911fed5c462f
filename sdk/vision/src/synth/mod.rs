//! Procedural photos of metal surfaces, as a fixed camera above a line would take them.
//!
//! A surface is a height map and an albedo map ([`texture`]), changed by at most one kind of defect ([`defect`]), lit by a
//! lamp and photographed ([`light`]). A [`Station`] fixes material, finish, lamp and lens within tolerances; parts differ
//! in grain, in how they lie, in exposure and noise. None of that depends on the kind, so nothing but the defect tells the
//! classes apart.

mod defect;
mod light;
mod noise;
mod stroke;
mod texture;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rand_chacha::rand_core::Rng;
use rayon::prelude::*;

use self::light::Light;
use self::texture::Texture;
use crate::encode::encode_png;
use crate::picture::{Image, Pixels};
use crate::stream::stream;

/// What is on a surface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Surface {
    /// Nothing but the texture.
    Clean,
    /// Four to nine long grooves with raised edges, straight or slightly bent.
    Scratch,
    /// Twelve to 27 craters.
    Pit,
    /// Two to four flat patches of another brightness with irregular outlines.
    Stain,
    /// Two or three thin, dark, jagged lines with branches.
    Crack,
}

impl Surface {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Surface; 5] = [
        Surface::Clean,
        Surface::Scratch,
        Surface::Pit,
        Surface::Stain,
        Surface::Crack,
    ];

    /// The class name, also the folder name of [`write_surfaces`].
    pub fn name(self) -> &'static str {
        match self {
            Surface::Clean => "clean",
            Surface::Scratch => "scratch",
            Surface::Pit => "pit",
            Surface::Stain => "stain",
            Surface::Crack => "crack",
        }
    }
}

/// Why surfaces could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SurfaceError {
    /// A size outside 16..=4096.
    #[error("surfaces of {size} pixels cannot be generated; use 16 to 4096")]
    Size {
        /// Size asked for.
        size: u32,
    },
    /// A file or folder cannot be written.
    #[error("cannot write {}: {source}; free space or name another folder", path.display())]
    Write {
        /// File or folder.
        path: PathBuf,
        /// Reason.
        source: io::Error,
    },
}

const PURPOSE_PART: u64 = u64::from_le_bytes(*b"surface\0");
const PURPOSE_DEFECT: u64 = PURPOSE_PART + (1 << 56);
const PURPOSE_SEED: u64 = PURPOSE_PART + (2 << 56);
const PURPOSE_STATION: u64 = PURPOSE_PART + (3 << 56);

/// One place on one line: what all its photos have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Station {
    texture: Texture,
    light: Light,
}

/// Maps in preparation, `[size, size]` each.
struct Maps {
    size: usize,
    /// In pixels, positive towards the camera.
    height: Vec<f32>,
    /// Reflectance relative to the bare metal.
    albedo: Vec<f32>,
}

impl Maps {
    /// Lengths that scale with the image are given for 128 pixels.
    fn unit(&self) -> f32 {
        self.size as f32 / 128.0
    }
}

impl Station {
    /// Draws the material (brushed, rolled, cast or turned metal), its finish, the lamp and the lens.
    pub fn new(seed: u64) -> Station {
        let mut rng = stream(seed, 0, 0, PURPOSE_STATION);
        Station {
            texture: Texture::draw(&mut rng),
            light: Light::draw(&mut rng),
        }
    }

    /// One grey photo of `size` x `size` pixels. Kinds with the same `part` share grain, light and camera.
    ///
    /// # Panics
    /// If `size` is not in 16..=4096.
    pub fn photo(&self, kind: Surface, size: u32, part: u64) -> Image {
        assert!((16..=4096).contains(&size), "size {size} not in 16..=4096");
        let mut rng = stream(part, 0, 0, PURPOSE_PART);
        let mut maps = self.texture.maps(size as usize, &mut rng);
        let mut own = stream(part, kind as u64, 0, PURPOSE_DEFECT);
        match kind {
            Surface::Clean => {}
            Surface::Scratch => defect::scratch(&mut maps, &mut own),
            Surface::Pit => defect::pit(&mut maps, &mut own),
            Surface::Stain => defect::stain(&mut maps, &mut own),
            Surface::Crack => defect::crack(&mut maps, &mut own),
        }
        let photo = self.light.photograph(maps, &mut rng);
        Image::tight(size, size, Pixels::Gray8(photo))
    }

    /// Writes `n_per_class` photos of every kind to `dir/<name>/<number>.png` and returns the paths, by kind, then number.
    /// Every photo shows another part; another `seed` gives other parts. Files with the same names are replaced.
    ///
    /// # Errors
    /// [`SurfaceError`] if `size` is not in 16..=4096 or a file cannot be written; no partial file is left.
    pub fn write(
        &self,
        dir: &Path,
        kinds: &[Surface],
        n_per_class: usize,
        size: u32,
        seed: u64,
    ) -> Result<Vec<PathBuf>, SurfaceError> {
        if !(16..=4096).contains(&size) {
            return Err(SurfaceError::Size { size });
        }
        let mut jobs = Vec::with_capacity(kinds.len() * n_per_class);
        for &kind in kinds {
            let folder = dir.join(kind.name());
            fs::create_dir_all(&folder).map_err(|source| SurfaceError::Write {
                path: folder.clone(),
                source,
            })?;
            let files =
                (0..n_per_class).map(|n| (kind, n as u64, folder.join(format!("{n:05}.png"))));
            jobs.extend(files);
        }
        jobs.into_par_iter()
            .map(|(kind, n, path)| {
                let part = stream(seed, kind as u64, n, PURPOSE_SEED).next_u64();
                let png = encode_png(&self.photo(kind, size, part));
                match fs::write(&path, png) {
                    Ok(()) => Ok(path),
                    Err(source) => {
                        // half a file is worse than none; the first error is the one to report
                        let _ = fs::remove_file(&path);
                        Err(SurfaceError::Write { path, source })
                    }
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{ClassFolder, decode_all};

    fn samples(kind: Surface, size: u32, seed: u64) -> Vec<u8> {
        match Station::new(seed).photo(kind, size, seed).pixels() {
            Pixels::Gray8(v) => v.clone(),
            other => panic!("{:?}", other.format()),
        }
    }

    #[test]
    fn surfaces_are_a_function_of_kind_size_and_seed() {
        for kind in Surface::ALL {
            assert_eq!(samples(kind, 48, 3), samples(kind, 48, 3));
            assert_ne!(samples(kind, 48, 3), samples(kind, 48, 4));
        }
    }

    #[test]
    fn every_defect_shows_and_is_local() {
        for kind in &Surface::ALL[1..] {
            let (mut changed, mut visible) = (0.0, 0);
            for seed in 0..40 {
                let (clean, defect) = (samples(Surface::Clean, 96, seed), samples(*kind, 96, seed));
                let differs = |threshold: u8| {
                    let pairs = clean.iter().zip(&defect);
                    pairs.filter(|(a, b)| a.abs_diff(**b) > threshold).count()
                };
                changed += differs(6) as f64 / clean.len() as f64;
                visible += usize::from(differs(16) >= 12);
            }
            assert!(visible >= 38, "{kind:?}: {visible} of 40 visible");
            assert!(changed / 40.0 < 0.35, "{kind:?}: {}", changed / 40.0);
        }
    }

    #[test]
    fn photos_use_the_range_without_clipping_much() {
        let mut means = Vec::new();
        for seed in 0..60 {
            let photo = samples(Surface::Clean, 64, seed);
            let clipped = photo.iter().filter(|v| matches!(v, 0 | 255)).count();
            assert!(clipped * 10 < photo.len(), "seed {seed}: {clipped} clipped");
            means.push(photo.iter().map(|&v| f64::from(v)).sum::<f64>() / photo.len() as f64);
        }
        let (low, high) = means
            .iter()
            .fold((255.0f64, 0.0f64), |(l, h), &m| (l.min(m), h.max(m)));
        assert!(
            low > 40.0 && high < 220.0 && high - low > 60.0,
            "{low} {high}"
        );
    }

    #[test]
    fn folders_hold_distinct_readable_photos() {
        let dir = tempfile::tempdir().unwrap();
        let kinds = [Surface::Pit, Surface::Clean];
        let station = Station::new(2);
        let paths = station.write(dir.path(), &kinds, 3, 32, 9).unwrap();
        let set = ClassFolder::scan(dir.path()).unwrap();
        assert_eq!(set.classes, ["clean", "pit"]);
        assert_eq!((paths.len(), set.samples.len()), (6, 6));
        let (images, skipped) = decode_all(&paths, None);
        assert_eq!(skipped, []);
        for (i, (_, image)) in images.iter().enumerate() {
            assert_eq!((image.width(), image.height()), (32, 32));
            assert!(images[..i].iter().all(|(_, other)| other != image));
        }
        let blocked = dir.path().join("file");
        fs::write(&blocked, "").unwrap();
        let error = station.write(&blocked, &kinds, 1, 32, 9).unwrap_err();
        assert!(error.to_string().contains("file"), "{error}");
        let error = station.write(dir.path(), &kinds, 1, 8, 9).unwrap_err();
        assert!(matches!(error, SurfaceError::Size { size: 8 }));
    }
}
