//! Folders of images and folders of classes. What cannot be used is named, never dropped in silence.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::decode::decode_file;
use crate::picture::Image;

/// File name extensions taken for images, lower case; upper case is accepted too.
pub const IMAGE_EXTENSIONS: [&str; 9] = [
    "bmp", "jpeg", "jpg", "pgm", "png", "pnm", "ppm", "tif", "tiff",
];

/// Least pixels a side that an image of a data set may have: half a patch of an encoder shows nothing that could be judged.
pub const MIN_SIDE: u32 = 8;

/// A file or folder that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// File or folder.
    pub path: PathBuf,
    /// Why, with the remedy.
    pub reason: String,
}

/// Why a folder is not a data set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// No folder was named.
    #[error("no folder given; name at least one folder of images")]
    NoPath,
    /// The path does not exist.
    #[error("{} does not exist; check the path", path.display())]
    Missing {
        /// Path given.
        path: PathBuf,
    },
    /// The folder cannot be listed.
    #[error("cannot list {}: {source}", path.display())]
    Read {
        /// Folder.
        path: PathBuf,
        /// Reason.
        source: io::Error,
    },
    /// The folder holds no file at all.
    #[error("{} is empty; put images into it or name another folder", path.display())]
    Empty {
        /// Folder.
        path: PathBuf,
    },
    /// The folder holds files, but none with the name of an image.
    #[error(
        "{} holds {files} files, none an image ({}); convert them or name another folder",
        path.display(),
        IMAGE_EXTENSIONS.join(", ")
    )]
    NoImages {
        /// Folder.
        path: PathBuf,
        /// Files seen.
        files: usize,
    },
    /// The folder has no sub-folders to be classes.
    #[error("{} has no class folders; put the images of each class into a folder of its own", path.display())]
    NoClasses {
        /// Folder.
        path: PathBuf,
    },
    /// A class folder holds no image.
    #[error(
        "class `{class}` has no image ({}); add images or remove the folder",
        path.display()
    )]
    EmptyClass {
        /// Class.
        class: String,
        /// Its folder.
        path: PathBuf,
    },
    /// A class folder has a name that is not Unicode.
    #[error("the folder name {} is not valid UTF-8; rename it", path.display())]
    ClassName {
        /// Folder.
        path: PathBuf,
    },
}

/// Image files found below one or more folders.
#[derive(Clone, Debug)]
pub struct ImageFolder {
    /// Files with an image extension, sorted by path, each once.
    pub files: Vec<PathBuf>,
    /// Folders below the roots that could not be listed.
    pub skipped: Vec<Skipped>,
}

impl ImageFolder {
    /// Lists every root recursively; a root may also be a file. Names that begin with a dot are ignored. Files are not opened:
    /// [`decode_all`] finds the broken ones.
    ///
    /// # Errors
    /// [`DatasetError`] if a root is missing, cannot be listed, is empty, or holds no image.
    pub fn scan(roots: &[PathBuf]) -> Result<Self, DatasetError> {
        if roots.is_empty() {
            return Err(DatasetError::NoPath);
        }
        let mut all = Listing::default();
        for root in roots {
            let listing = Listing::of(root)?;
            if listing.images.is_empty() {
                return Err(match listing.files {
                    0 => DatasetError::Empty { path: root.clone() },
                    files => DatasetError::NoImages {
                        path: root.clone(),
                        files,
                    },
                });
            }
            all.images.extend(listing.images);
            all.skipped.extend(listing.skipped);
        }
        all.images.sort();
        all.images.dedup();
        Ok(Self {
            files: all.images,
            skipped: all.skipped,
        })
    }
}

/// One folder per class.
#[derive(Clone, Debug)]
pub struct ClassFolder {
    /// The folder that holds the class folders.
    pub root: PathBuf,
    /// Class names, the names of the sub-folders, sorted.
    pub classes: Vec<String>,
    /// Image file and index into [`classes`](Self::classes), sorted by class, then path.
    pub samples: Vec<(PathBuf, usize)>,
    /// Folders below the class folders that could not be listed.
    pub skipped: Vec<Skipped>,
}

impl ClassFolder {
    /// Lists the sub-folders of `root` as classes, each recursively. Names that begin with a dot are ignored.
    ///
    /// # Errors
    /// [`DatasetError`] if `root` is missing or has no sub-folder, or if a class has no image.
    pub fn scan(root: &Path) -> Result<Self, DatasetError> {
        let mut folders: Vec<PathBuf> = list(root)?.into_iter().filter(|p| p.is_dir()).collect();
        folders.sort();
        if folders.is_empty() {
            return Err(DatasetError::NoClasses {
                path: root.to_owned(),
            });
        }
        let mut set = Self {
            root: root.to_owned(),
            classes: Vec::with_capacity(folders.len()),
            samples: Vec::new(),
            skipped: Vec::new(),
        };
        for (class, folder) in folders.into_iter().enumerate() {
            let name = folder.file_name().and_then(|n| n.to_str());
            let Some(name) = name.map(str::to_owned) else {
                return Err(DatasetError::ClassName { path: folder });
            };
            let mut listing = Listing::of(&folder)?;
            if listing.images.is_empty() {
                return Err(DatasetError::EmptyClass {
                    class: name,
                    path: folder,
                });
            }
            listing.images.sort();
            set.classes.push(name);
            set.samples
                .extend(listing.images.into_iter().map(|path| (path, class)));
            set.skipped.extend(listing.skipped);
        }
        Ok(set)
    }
}

/// Decodes files in parallel. Returns each image with the index of its file, in the order of `files`, and the files that
/// could not be used with the reason: broken ones, and those with a side below [`MIN_SIDE`].
///
/// `shorter_side` bounds memory: an image whose shorter side has more pixels is scaled down ([`Image::shrink`]).
pub fn decode_all(
    files: &[PathBuf],
    shorter_side: Option<u32>,
) -> (Vec<(usize, Image)>, Vec<Skipped>) {
    let decoded: Vec<Result<Image, String>> = files
        .par_iter()
        .map(|file| {
            let image = large_enough(decode_file(file).map_err(|e| e.to_string())?, file)?;
            Ok(match shorter_side {
                Some(side) => image.shrink(side.max(1)),
                None => image,
            })
        })
        .collect();
    let mut images = Vec::with_capacity(files.len());
    let mut skipped = Vec::new();
    for (index, result) in decoded.into_iter().enumerate() {
        match result {
            Ok(image) => images.push((index, image)),
            Err(reason) => skipped.push(Skipped {
                path: files[index].clone(),
                reason,
            }),
        }
    }
    (images, skipped)
}

fn large_enough(image: Image, file: &Path) -> Result<Image, String> {
    let (width, height) = (image.width(), image.height());
    if width.min(height) >= MIN_SIDE {
        return Ok(image);
    }
    Err(format!(
        "{} is {width}x{height} pixels and at least {MIN_SIDE}x{MIN_SIDE} are needed; \
         take the photo again or remove it from the folder",
        file.display()
    ))
}

#[derive(Default)]
struct Listing {
    images: Vec<PathBuf>,
    skipped: Vec<Skipped>,
    files: usize,
    // resolved, so that a link to a parent folder ends the walk
    seen: BTreeSet<PathBuf>,
}

impl Listing {
    fn of(root: &Path) -> Result<Self, DatasetError> {
        let mut listing = Self::default();
        if root.is_file() {
            listing.file(root.to_owned());
            return Ok(listing);
        }
        let mut open = vec![root.to_owned()];
        while let Some(folder) = open.pop() {
            if let Ok(resolved) = folder.canonicalize()
                && !listing.seen.insert(resolved)
            {
                continue;
            }
            match list(&folder) {
                Ok(entries) => {
                    let (folders, files): (Vec<_>, Vec<_>) =
                        entries.into_iter().partition(|p| p.is_dir());
                    open.extend(folders);
                    files.into_iter().for_each(|file| listing.file(file));
                }
                Err(error) if folder == root => return Err(error),
                Err(error) => listing.skipped.push(Skipped {
                    path: folder,
                    reason: error.to_string(),
                }),
            }
        }
        Ok(listing)
    }

    fn file(&mut self, path: PathBuf) {
        self.files += 1;
        let extension = path.extension().and_then(|e| e.to_str());
        let is_image = |e: &str| {
            IMAGE_EXTENSIONS
                .iter()
                .any(|known| known.eq_ignore_ascii_case(e))
        };
        if extension.is_some_and(is_image) {
            self.images.push(path);
        }
    }
}

/// The visible entries of a folder.
fn list(folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let read = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => DatasetError::Missing {
            path: folder.to_owned(),
        },
        _ => DatasetError::Read {
            path: folder.to_owned(),
            source,
        },
    };
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        let entry = entry.map_err(read)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            entries.push(entry.path());
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::Pixels;

    const PGM: &[u8] = b"P5 2 1 255\n\x01\x02";

    fn put(root: &Path, name: &str, bytes: &[u8]) -> PathBuf {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn scanning_is_recursive_sorted_and_by_extension() {
        let dir = tempfile::tempdir().unwrap();
        let b = put(dir.path(), "b/2.PGM", PGM);
        let a = put(dir.path(), "a/deep/1.pgm", PGM);
        let c = put(dir.path(), "c.tiff", PGM);
        put(dir.path(), "a/notes.txt", b"hello");
        put(dir.path(), "a/._1.pgm", b"resource fork");
        let roots = [dir.path().to_owned(), b.clone()];
        let set = ImageFolder::scan(&roots).unwrap();
        assert_eq!(set.files, [a, b, c]);
        assert_eq!(set.skipped, []);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_a_parent_ends_the_walk() {
        let dir = tempfile::tempdir().unwrap();
        let image = put(dir.path(), "a/1.pgm", PGM);
        std::os::unix::fs::symlink(dir.path(), dir.path().join("a/loop")).unwrap();
        let set = ImageFolder::scan(&[dir.path().to_owned()]).unwrap();
        assert_eq!(set.files, [image]);
    }

    #[test]
    fn useless_folders_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("line4");
        let scan = || ImageFolder::scan(std::slice::from_ref(&root)).unwrap_err();
        assert!(matches!(ImageFolder::scan(&[]), Err(DatasetError::NoPath)));
        let error = scan();
        assert!(matches!(error, DatasetError::Missing { .. }), "{error}");
        fs::create_dir_all(root.join("sub")).unwrap();
        let error = scan();
        assert!(matches!(error, DatasetError::Empty { .. }), "{error}");
        put(&root, "sub/a.txt", b"x");
        put(&root, "b.csv", b"x");
        let error = scan();
        assert!(matches!(error, DatasetError::NoImages { files: 2, .. }));
        let text = error.to_string();
        assert!(text.contains("line4") && text.contains("tiff"), "{text}");
    }

    #[test]
    fn classes_are_the_sorted_folders() {
        let dir = tempfile::tempdir().unwrap();
        let s2 = put(dir.path(), "scratch/2.pgm", PGM);
        let s1 = put(dir.path(), "scratch/1.pgm", PGM);
        let c1 = put(dir.path(), "clean/x/1.pgm", PGM);
        put(dir.path(), "readme.txt", b"x");
        let set = ClassFolder::scan(dir.path()).unwrap();
        assert_eq!(set.classes, ["clean", "scratch"]);
        assert_eq!(set.samples, [(c1, 0), (s1, 1), (s2, 1)]);
        fs::create_dir(dir.path().join("pit")).unwrap();
        let error = ClassFolder::scan(dir.path()).unwrap_err();
        assert!(error.to_string().contains("class `pit`"), "{error}");
        assert!(matches!(error, DatasetError::EmptyClass { .. }));
    }

    #[test]
    fn images_without_class_folders_are_no_classes() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "1.pgm", PGM);
        let error = ClassFolder::scan(dir.path()).unwrap_err();
        assert!(matches!(error, DatasetError::NoClasses { .. }), "{error}");
        let missing = ClassFolder::scan(&dir.path().join("no")).unwrap_err();
        assert!(matches!(missing, DatasetError::Missing { .. }), "{missing}");
    }

    #[test]
    fn broken_files_are_reported_and_the_rest_keeps_its_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut files: Vec<PathBuf> = (0..40u8)
            .map(|i| {
                put(
                    dir.path(),
                    &format!("{i:02}.pgm"),
                    &[b"P5 8 8 255\n", &[i; 64][..]].concat(),
                )
            })
            .collect();
        fs::write(&files[7], b"P5 4 4 255\n\x01").unwrap();
        fs::write(&files[20], b"not an image").unwrap();
        fs::write(&files[30], [b"P5 7 8 255\n", &[0; 56][..]].concat()).unwrap();
        files.push(dir.path().join("gone.pgm"));
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build().unwrap().install(|| decode_all(&files, None))
        };
        let (images, skipped) = run(4);
        assert_eq!((&images, &skipped), (&run(1).0, &run(1).1));
        let broken: Vec<_> = skipped.iter().map(|s| s.path.clone()).collect();
        assert_eq!(broken, [7, 20, 30, 40].map(|i: usize| files[i].clone()));
        assert!(skipped.iter().all(|s| s.reason.contains(".pgm")));
        assert_eq!(images.len(), 37);
        assert!(
            skipped[2].reason.contains("7x8 pixels"),
            "{}",
            skipped[2].reason
        );
        for (index, image) in images {
            assert_eq!(image.pixels(), &Pixels::Gray8(vec![index as u8; 64]));
        }
    }

    #[test]
    fn large_images_are_shrunk_on_load() {
        let dir = tempfile::tempdir().unwrap();
        let big = [b"P5 60 40 255\n", &[9u8; 2400][..]].concat();
        let file = put(dir.path(), "big.pgm", &big);
        let (images, _) = decode_all(&[file], Some(10));
        assert_eq!((images[0].1.width(), images[0].1.height()), (15, 10));
    }
}
