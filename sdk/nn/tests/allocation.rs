//! The packed encoder allocates nothing for a frame, on any of its threads.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use ssl_edge_nn::infer::{EncoderWeights, PackedOptions, PackedVit, Progress, Stored};
use ssl_edge_nn::{Params, Vit, VitConfig};

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn int8(weights: &EncoderWeights, config: &VitConfig) -> EncoderWeights {
    let mut weights = weights.clone();
    for name in EncoderWeights::layer_names(config) {
        let stored = weights.0.get_mut(&format!("{name}.weight")).unwrap();
        let dims = [stored.dims()[0], stored.dims()[1]];
        *stored = Stored::I8 {
            dims,
            values: stored.to_f32().iter().map(|v| (v * 500.0) as i8).collect(),
            scale: vec![2e-3; dims[0]],
        };
    }
    weights
}

#[test]
fn a_frame_costs_no_allocation() {
    let config = VitConfig {
        image_size: [64, 64],
        ..VitConfig::named("vit_n16").unwrap()
    };
    let mut params = Params::new();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    Vit::init(&config, &mut params, "", &mut rng).unwrap();
    let float = EncoderWeights::from_tensors(&params.to_map()).unwrap();
    for weights in [int8(&float, &config), float] {
        for threads in [1, 3] {
            let options = PackedOptions {
                threads,
                images: 2,
                ..PackedOptions::default()
            };
            let encoder = PackedVit::new(&config, weights.clone(), &options).unwrap();
            let images = vec![0.5; 3 * 3 * 64 * 64];
            let (mut cls, mut patches) = (vec![0.0; 3 * 192], vec![0.0; 3 * 16 * 192]);
            encoder.run(&images, 3, &mut cls, &mut patches).unwrap();
            let before = ALLOCATIONS.load(Ordering::SeqCst);
            assert!(before > 0, "the allocator counts");
            for _ in 0..50 {
                encoder.run(&images, 3, &mut cls, &mut patches).unwrap();
                let asked = AtomicUsize::new(0);
                let stop = || asked.fetch_add(1, Ordering::Relaxed) > 5;
                let progress = encoder.run_until(&images, 3, &mut cls, &mut patches, &stop);
                assert!(matches!(progress, Ok(Progress::Stopped { .. })));
            }
            let count = ALLOCATIONS.load(Ordering::SeqCst) - before;
            assert_eq!(count, 0, "{threads} threads");
        }
    }
}
