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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::Pixels;
    use crate::preprocess::{IMAGENET_MEAN, IMAGENET_STD};

    fn images() -> Vec<Image> {
        (0..12u32)
            .map(|n| {
                let (w, h) = (20 + 3 * n, 50 - 2 * n);
                let rgb = n % 2 == 0;
                let len = w * h * if rgb { 3 } else { 1 };
                let samples = (0..len).map(|i| (i * (7 + n) % 251) as u8).collect();
                let pixels = if rgb {
                    Pixels::Rgb8(samples)
                } else {
                    Pixels::Gray8(samples)
                };
                Image::new(w, h, pixels).unwrap()
            })
            .collect()
    }

    fn run(threads: usize, images: &[&Image], ids: &[u64]) -> Vec<Vec<f32>> {
        let crops = MultiCrop::dino(24, [0.4, 1.0], 12, [0.05, 0.4], 3);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build()
            .unwrap()
            .install(|| multi_crop_batch(images, &crops, IMAGENET_MEAN, IMAGENET_STD, 9, 4, ids))
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let images = images();
        let refs: Vec<_> = images.iter().collect();
        let ids: Vec<u64> = (100..112).collect();
        let one = run(1, &refs, &ids);
        assert_eq!(one, run(4, &refs, &ids));
        let lens: Vec<_> = one.iter().map(Vec::len).collect();
        let (global, local) = (12 * 3 * 24 * 24, 12 * 3 * 12 * 12);
        assert_eq!(lens, [global, global, local, local, local]);
    }

    #[test]
    fn a_view_depends_on_its_sample_not_on_its_place_in_the_batch() {
        let images = images();
        let refs: Vec<_> = images.iter().collect();
        let ids: Vec<u64> = (100..112).collect();
        let forward = run(2, &refs, &ids);
        let backward = run(
            2,
            &refs.iter().rev().copied().collect::<Vec<_>>(),
            &ids.iter().rev().copied().collect::<Vec<_>>(),
        );
        for (f, b) in forward.iter().zip(&backward) {
            let len = f.len() / 12;
            for i in 0..12 {
                assert_eq!(f[i * len..(i + 1) * len], b[(11 - i) * len..(12 - i) * len]);
            }
        }
        // two views of one size are not the same view
        assert_ne!(forward[2], forward[3]);
    }

    #[test]
    fn single_views_are_the_first_of_a_batch() {
        let images = images();
        let refs: Vec<_> = images.iter().collect();
        let ids: Vec<u64> = (0..12).collect();
        let config = AugmentConfig::mae(16);
        let batch = view_batch(&refs, &config, IMAGENET_MEAN, IMAGENET_STD, 1, 2, &ids);
        for (i, row) in batch.chunks(config.len()).enumerate() {
            let mut out = vec![0.0; config.len()];
            let mut rng = stream(1, 2, i as u64, PURPOSE_VIEW);
            config.view(refs[i], &mut rng, &mut out, IMAGENET_MEAN, IMAGENET_STD);
            assert_eq!(row, out);
        }
        let later = view_batch(&refs, &config, IMAGENET_MEAN, IMAGENET_STD, 1, 3, &ids);
        assert_ne!(batch, later);
    }
}
