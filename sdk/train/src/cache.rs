//! Decoded images that memory has no room for: in a temporary file of the run folder, mapped into memory, so that nothing is
//! decoded twice and the system keeps what it can.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use ssl_edge_vision::{Image, PixelFormat, Pixels};

use crate::error::{Result, TrainError};

/// Where one image lies in the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    offset: u64,
    width: u32,
    height: u32,
    format: PixelFormat,
}

/// The file while it is written. It has no name where the system allows that, and is gone with the process in any case.
pub(crate) struct CacheWriter {
    folder: PathBuf,
    file: BufWriter<File>,
    written: u64,
}

/// The file to read from.
pub(crate) struct Cache {
    map: Mmap,
}

impl CacheWriter {
    /// An empty file in `folder`, which is made if it is not there.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        let failed = |source| failed(folder, source);
        fs::create_dir_all(folder).map_err(failed)?;
        Ok(Self {
            folder: folder.into(),
            file: BufWriter::new(tempfile::tempfile_in(folder).map_err(failed)?),
            written: 0,
        })
    }

    pub(crate) fn push(&mut self, image: &Image) -> Result<Place> {
        let place = Place {
            offset: self.written,
            width: image.width(),
            height: image.height(),
            format: image.pixels().format(),
        };
        let words: Vec<u8>;
        let bytes = match image.pixels() {
            Pixels::Gray8(v) | Pixels::Rgb8(v) => v.as_slice(),
            Pixels::Gray16(v) | Pixels::Rgb16(v) => {
                words = v.iter().flat_map(|word| word.to_le_bytes()).collect();
                &words
            }
        };
        self.file
            .write_all(bytes)
            .map_err(|source| failed(&self.folder, source))?;
        self.written += bytes.len() as u64;
        Ok(place)
    }

    pub(crate) fn finish(self) -> Result<Cache> {
        let failed = |source| failed(&self.folder, source);
        let file = self.file.into_inner().map_err(|e| failed(e.into_error()))?;
        // SAFETY: the file has no name and this process has its only handle, so that nobody else can change or cut it.
        let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
        Ok(Cache { map })
    }
}

impl Cache {
    /// A copy of an image.
    pub(crate) fn image(&self, place: &Place) -> Image {
        let samples = place.width as usize * place.height as usize;
        let bytes = |per_pixel: usize| {
            let start = place.offset as usize;
            &self.map[start..start + samples * per_pixel]
        };
        let words = |per_pixel: usize| -> Vec<u16> {
            let (pairs, _) = bytes(per_pixel).as_chunks::<2>();
            pairs.iter().map(|pair| u16::from_le_bytes(*pair)).collect()
        };
        let pixels = match place.format {
            PixelFormat::Gray8 => Pixels::Gray8(bytes(1).to_vec()),
            PixelFormat::Gray16 => Pixels::Gray16(words(2)),
            PixelFormat::Rgb16 => Pixels::Rgb16(words(6)),
            // decoded images have no other format
            _ => Pixels::Rgb8(bytes(3).to_vec()),
        };
        Image::new(place.width, place.height, pixels).expect("sizes and samples were an image's")
    }
}

fn failed(folder: &Path, source: std::io::Error) -> TrainError {
    TrainError::Cache {
        path: folder.into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_image_comes_back_and_no_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        let images = [
            Image::new(3, 2, Pixels::Gray8((0..6).collect())).unwrap(),
            Image::new(1, 2, Pixels::Rgb16(vec![1, 500, 65_535, 4, 5, 600])).unwrap(),
            Image::new(2, 2, Pixels::Rgb8((10..22).collect())).unwrap(),
            Image::new(2, 1, Pixels::Gray16(vec![40_000, 7])).unwrap(),
        ];
        let mut writer = CacheWriter::new(&run).unwrap();
        let places: Vec<Place> = images
            .iter()
            .map(|image| writer.push(image).unwrap())
            .collect();
        let cache = writer.finish().unwrap();
        for (image, place) in images.iter().zip(&places).rev() {
            assert_eq!(&cache.image(place), image);
        }
        drop(cache);
        assert_eq!(fs::read_dir(&run).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_cannot_be_made_names_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = CacheWriter::new(&file.join("run"))
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("data.cache_mib"), "{error}");
    }
}
