//! Views of many images in parallel. Each view has its own random stream, so the number of threads changes nothing.

use rayon::prelude::*;

use crate::augment::config::{AugmentConfig, MultiCrop};
use crate::picture::Image;
use crate::stream::{PURPOSE_VIEW, stream};

/// One `[B, 3, H, W]` buffer for each of the `2 + n_locals` views of `crops`.
///
/// View `v` of image `i` is drawn from `stream(seed, step, sample_ids[i], PURPOSE_VIEW + v)`.
///
/// # Panics
/// If `sample_ids` and `images` differ in length.
pub fn multi_crop_batch(
    images: &[&Image],
    crops: &MultiCrop,
    mean: [f32; 3],
    std: [f32; 3],
    seed: u64,
    step: u64,
    sample_ids: &[u64],
) -> Vec<Vec<f32>> {
    let configs: Vec<_> = crops.views().collect();
    batch(images, &configs, mean, std, [seed, step], sample_ids)
}

/// One view of every image, `[B, 3, H, W]`, drawn as view 0 of [`multi_crop_batch`].
///
/// # Panics
/// If `sample_ids` and `images` differ in length.
pub fn view_batch(
    images: &[&Image],
    config: &AugmentConfig,
    mean: [f32; 3],
    std: [f32; 3],
    seed: u64,
    step: u64,
    sample_ids: &[u64],
) -> Vec<f32> {
    batch(images, &[config], mean, std, [seed, step], sample_ids).swap_remove(0)
}

fn batch(
    images: &[&Image],
    configs: &[&AugmentConfig],
    mean: [f32; 3],
    std: [f32; 3],
    [seed, step]: [u64; 2],
    sample_ids: &[u64],
) -> Vec<Vec<f32>> {
    assert_eq!(images.len(), sample_ids.len(), "one sample id per image");
    let mut buffers: Vec<Vec<f32>> = configs
        .iter()
        .map(|config| vec![0.0; images.len() * config.len()])
        .collect();
    let mut tasks = Vec::with_capacity(images.len() * configs.len());
    for (view, (config, buffer)) in configs.iter().zip(&mut buffers).enumerate() {
        for (index, out) in buffer.chunks_exact_mut(config.len()).enumerate() {
            tasks.push((index, view, *config, out));
        }
    }
    // views of one image next to each other, so that its pixels stay in the cache
    tasks.sort_unstable_by_key(|&(index, view, ..)| (index, view));
    tasks
        .into_par_iter()
        .for_each(|(index, view, config, out)| {
            let mut rng = stream(seed, step, sample_ids[index], PURPOSE_VIEW + view as u64);
            config.view(images[index], &mut rng, out, mean, std);
        });
    buffers
}
