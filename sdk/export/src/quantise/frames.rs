//! Which frames calibrate and which are held out to measure, chosen so that the calibration sees as much variety as there is.

use std::path::{Path, PathBuf};

use ssl_edge_vision::{ImageFolder, Preprocess, decode_all};

use super::QuantizeError;

/// Fewest usable images to calibrate with and to measure on.
const FEWEST: usize = 32;
/// Fewest usable images to measure on alone.
const FEWEST_MEASURED: usize = 8;
/// Images that are embedded to choose from, per calibration frame.
const CANDIDATES: usize = 4;
/// Held-out frames at most.
const HELD_OUT: usize = 256;
/// Every so many candidates one is held out.
const STRIDE: usize = 3;
/// Files that are decoded together.
const AT_ONCE: usize = 32;

/// Preprocessed frames, `[F, 3, H, W]` each.
pub(super) struct Frames {
    pub(super) calibration: Vec<f32>,
    pub(super) held_out: Vec<f32>,
}

/// Decodes and preprocesses `files` in portions: `visit(index of the file, input)`, in order. Returns files that cannot be decoded.
pub(super) fn each_input(
    files: &[PathBuf],
    preprocess: &Preprocess,
    mut visit: impl FnMut(usize, &[f32]) -> Result<(), QuantizeError>,
) -> Result<usize, QuantizeError> {
    let mut input = vec![0.0; preprocess.len()];
    let mut broken = 0;
    for (portion, files) in files.chunks(AT_ONCE).enumerate() {
        let (images, skipped) = decode_all(files, None);
        broken += skipped.len();
        for (index, image) in images {
            preprocess.apply(&image.frame(), &mut input)?;
            visit(portion * AT_ONCE + index, &input)?;
        }
    }
    Ok(broken)
}

impl Frames {
    /// Chooses `count` calibration frames from `folder` by k-centre over the features that `embed` gives.
    ///
    /// # Errors
    /// A folder that cannot be read, or too few images in it.
    pub(super) fn choose(
        folder: &Path,
        count: usize,
        preprocess: &Preprocess,
        mut embed: impl FnMut(&[f32]) -> Result<Vec<f32>, QuantizeError>,
    ) -> Result<Self, QuantizeError> {
        let all = ImageFolder::scan(&[folder.to_owned()])?.files;
        let files = spread(&all, CANDIDATES * count);
        let mut features = Vec::new();
        let mut usable = Vec::new();
        each_input(&files, preprocess, |index, input| {
            features.push(embed(input)?);
            usable.push(files[index].clone());
            Ok(())
        })?;
        enough(folder, usable.len(), FEWEST)?;
        let is_held_out = |index: usize| index % STRIDE == STRIDE - 1;
        let pool: Vec<usize> = (0..usable.len()).filter(|i| !is_held_out(*i)).collect();
        let pool_features: Vec<&[f32]> = pool.iter().map(|i| features[*i].as_slice()).collect();
        let chosen = k_centre(&pool_features, count);
        let chosen: Vec<PathBuf> = chosen.iter().map(|i| usable[pool[*i]].clone()).collect();
        let held_out: Vec<PathBuf> = (0..usable.len())
            .filter(|i| is_held_out(*i))
            .map(|i| usable[i].clone())
            .collect();
        let read = |files: &[PathBuf]| -> Result<Vec<f32>, QuantizeError> {
            let mut inputs = Vec::with_capacity(files.len() * preprocess.len());
            each_input(files, preprocess, |_, input| {
                inputs.extend(input);
                Ok(())
            })?;
            Ok(inputs)
        };
        Ok(Self {
            calibration: read(&chosen)?,
            held_out: read(&spread(&held_out, HELD_OUT))?,
        })
    }
}

/// Frames of `folder` to measure on, `[F, 3, H, W]`, where nothing is calibrated.
///
/// # Errors
/// A folder that cannot be read, or too few images in it.
pub(super) fn measured(folder: &Path, preprocess: &Preprocess) -> Result<Vec<f32>, QuantizeError> {
    let files = ImageFolder::scan(&[folder.to_owned()])?.files;
    let mut inputs = Vec::new();
    each_input(&spread(&files, HELD_OUT), preprocess, |_, input| {
        inputs.extend(input);
        Ok(())
    })?;
    enough(folder, inputs.len() / preprocess.len(), FEWEST_MEASURED)?;
    Ok(inputs)
}

fn enough(folder: &Path, found: usize, needed: usize) -> Result<(), QuantizeError> {
    if found >= needed {
        return Ok(());
    }
    Err(QuantizeError::TooFewFrames {
        folder: folder.to_owned(),
        found,
        needed,
    })
}

/// At most `count` of the files, evenly spread.
fn spread(files: &[PathBuf], count: usize) -> Vec<PathBuf> {
    let count = count.min(files.len());
    (0..count)
        .map(|i| files[i * files.len() / count].clone())
        .collect()
}

/// Greedy k-centre (Gonzalez 1985) over vectors of norm 1: first the one nearest to the mean, then always the one farthest from all chosen.
fn k_centre(features: &[&[f32]], count: usize) -> Vec<usize> {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    let dim = features.first().map_or(0, |f| f.len());
    let mut sum = vec![0.0_f32; dim];
    for feature in features {
        sum.iter_mut().zip(*feature).for_each(|(s, f)| *s += f);
    }
    let nearest =
        |a: &usize, b: &usize| dot(features[*a], &sum).total_cmp(&dot(features[*b], &sum));
    let Some(first) = (0..features.len()).max_by(nearest) else {
        return Vec::new();
    };
    let mut chosen = vec![first];
    let mut distance: Vec<f64> = features
        .iter()
        .map(|f| 1.0 - dot(f, features[first]))
        .collect();
    while chosen.len() < count.min(features.len()) {
        let rest = (0..features.len()).filter(|i| !chosen.contains(i));
        let Some(next) = rest.max_by(|a, b| distance[*a].total_cmp(&distance[*b])) else {
            break;
        };
        chosen.push(next);
        for (distance, feature) in distance.iter_mut().zip(features) {
            *distance = distance.min(1.0 - dot(feature, features[next]));
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k_centre_takes_one_of_each_cluster_first() {
        let angle = |degrees: f32| {
            let (sin, cos) = degrees.to_radians().sin_cos();
            vec![cos, sin]
        };
        let points: Vec<Vec<f32>> = [0.0, 1.0, 2.0, 90.0, 91.0, 180.0, 181.0, 270.0]
            .into_iter()
            .map(angle)
            .collect();
        let points: Vec<&[f32]> = points.iter().map(Vec::as_slice).collect();
        let mut clusters: Vec<usize> = k_centre(&points, 4)
            .iter()
            .map(|i| [0, 0, 0, 1, 1, 2, 2, 3][*i])
            .collect();
        clusters.sort();
        assert_eq!(clusters, [0, 1, 2, 3]);
        let mut all = k_centre(&points, 50);
        all.sort();
        assert_eq!(all, [0, 1, 2, 3, 4, 5, 6, 7], "each once, and no more");
        assert!(k_centre(&[], 3).is_empty());
    }

    #[test]
    fn files_are_spread_evenly() {
        let files: Vec<PathBuf> = (0..10).map(|i| PathBuf::from(i.to_string())).collect();
        let names: Vec<String> = spread(&files, 4)
            .iter()
            .map(|f| f.display().to_string())
            .collect();
        assert_eq!(names, ["0", "2", "5", "7"]);
        assert_eq!(spread(&files, 99).len(), 10);
    }
}
