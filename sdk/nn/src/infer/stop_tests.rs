//! Calls that are stopped: how far they say they came, and what later calls see of them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::tests::{config, floats, run, tensors};
use super::*;
use crate::Gelu;

#[test]
fn a_call_that_is_stopped_anywhere_says_how_far_it_came_and_changes_no_later_bit() {
    let config = config(64, 2, 4, Gelu::Tanh);
    let weights = EncoderWeights::from_tensors(&tensors(&config, 1)).unwrap();
    let images = floats(3 * 3 * 32 * 40, 2);
    let other = floats(3 * 32 * 40, 3);
    for threads in [1, 2, 5] {
        let options = PackedOptions {
            threads,
            images: 2,
            ..PackedOptions::default()
        };
        let encoder = PackedVit::new(&config, weights.clone(), &options).unwrap();
        let want = run(&config, &weights, options, &images);
        let want_other = run(&config, &weights, options, &other).0;
        let mut came = Vec::new();
        let whole = (0..1000).find_map(|allowed| {
            let asked = AtomicUsize::new(0);
            let stop = || asked.fetch_add(1, Ordering::Relaxed) >= allowed;
            let (mut cls, mut patches) = (vec![0.0; 3 * 64], vec![0.0; 3 * 80 * 64]);
            let progress = encoder.run_until(&images, 3, &mut cls, &mut patches, &stop);
            match progress.unwrap() {
                Progress::Done => return Some((cls, patches)),
                Progress::Stopped { images, blocks } => came.push((images, blocks)),
            }
            let (mut cls, mut patches) = (vec![0.0; 64], vec![0.0; 80 * 64]);
            encoder.run(&other, 1, &mut cls, &mut patches).unwrap();
            assert_eq!(cls, want_other, "{threads} threads, asked {allowed} times");
            None
        });
        assert_eq!(whole, Some(want));
        assert_eq!(came[0], (0, 0));
        assert!(came.iter().all(|(_, blocks)| *blocks < 3));
        for reached in [(0, 1), (0, 2), (2, 0), (2, 2)] {
            assert!(came.contains(&reached), "{threads}: {reached:?}");
        }
        if threads == 1 {
            assert!(came.is_sorted(), "{came:?}");
        }
    }
}

#[test]
fn a_call_that_waits_for_its_turn_can_be_stopped() {
    let config = config(64, 2, 4, Gelu::Tanh);
    let weights = EncoderWeights::from_tensors(&tensors(&config, 1)).unwrap();
    let encoder = PackedVit::new(&config, weights.clone(), &PackedOptions::default()).unwrap();
    let images = floats(3 * 32 * 40, 2);
    let call = |stop: &Stop<'_>| {
        let (mut cls, mut patches) = (vec![0.0; 64], vec![0.0; 80 * 64]);
        let progress = encoder.run_until(&images, 1, &mut cls, &mut patches, stop);
        progress.unwrap()
    };
    let (inside, over) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // Holds the turn until the other has given up.
        let holder = scope.spawn(|| {
            call(&|| {
                inside.store(true, Ordering::SeqCst);
                while !over.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                false
            })
        });
        while !inside.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        let asked = AtomicUsize::new(0);
        let waiting = call(&|| asked.fetch_add(1, Ordering::SeqCst) == 2);
        over.store(true, Ordering::SeqCst);
        let expected = Progress::Stopped {
            images: 0,
            blocks: 0,
        };
        assert_eq!(waiting, expected);
        assert_eq!(holder.join().unwrap(), Progress::Done);
    });
}
