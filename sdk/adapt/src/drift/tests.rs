//! Simulated lines: nothing changes, or one thing does.

use super::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

const DIM: usize = 8;

struct Line {
    rng: ChaCha8Rng,
}

impl Line {
    fn new(seed: u8) -> Self {
        Self {
            rng: ChaCha8Rng::from_seed([seed; 32]),
        }
    }

    fn uniform(&mut self) -> f64 {
        ((self.rng.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Box and Muller.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    fn camera(&mut self) -> CameraNumbers {
        CameraNumbers {
            brightness: 0.5 + 0.02 * self.normal(),
            focus: (6.0 + 0.1 * self.normal()).exp(),
            saturated: 0.02 + 0.005 * self.normal(),
        }
    }

    fn embedding(&mut self, shift: f64) -> Vec<f32> {
        (0..DIM).map(|_| (shift + self.normal()) as f32).collect()
    }

    fn monitor(&mut self, frames: usize, run_length: f64) -> DriftMonitor {
        let camera: Vec<_> = (0..frames).map(|_| self.camera()).collect();
        let embeddings: Vec<_> = (0..frames).map(|_| self.embedding(0.0)).collect();
        let views: Vec<&[f32]> = embeddings.iter().map(Vec::as_slice).collect();
        DriftMonitor::new(&camera, &views, 0.02, run_length).unwrap()
    }

    /// Frames until the alarm.
    fn run(
        &mut self,
        monitor: &mut DriftMonitor,
        most: usize,
        mut change: impl FnMut(&mut Self, &mut CameraNumbers, &mut Vec<f32>, &mut f64, &mut bool),
    ) -> Option<(usize, DriftAlarm)> {
        for frame in 1..=most {
            let (mut camera, mut embedding) = (self.camera(), self.embedding(0.0));
            let (mut p_value, mut unknown) = (self.uniform(), self.uniform() < 0.02);
            change(
                self,
                &mut camera,
                &mut embedding,
                &mut p_value,
                &mut unknown,
            );
            let observation = Observation {
                camera,
                embedding: &embedding,
                p_value,
                unknown,
            };
            if let Some(alarm) = monitor.observe(&observation).unwrap() {
                return Some((frame, alarm));
            }
        }
        None
    }
}

#[test]
fn a_steady_line_gives_no_more_alarms_than_designed() {
    let mut frames = 0;
    let runs = 60;
    for seed in 0..runs {
        let mut line = Line::new(seed);
        let mut monitor = line.monitor(200, 500.0);
        frames += line
            .run(&mut monitor, 100_000, |_, _, _, _, _| {})
            .map_or(100_000, |(n, _)| n);
    }
    let mean = frames as f64 / f64::from(runs);
    assert!(mean > 500.0, "{mean}");
}

#[test]
fn each_change_is_found_soon_and_named() {
    type Change = fn(&mut Line, &mut CameraNumbers, &mut Vec<f32>, &mut f64, &mut bool);
    let changes: [(Change, DriftCause); 6] = [
        (
            |_, camera, embedding, p, _| {
                camera.brightness -= 0.15;
                embedding.iter_mut().for_each(|x| *x += 3.0);
                *p = 0.02;
            },
            DriftCause::CameraChanged(CameraChange::Brightness),
        ),
        // A light of two thirds, which the focus measure sees squared.
        (
            |_, camera, _, _, _| {
                camera.brightness *= 0.67;
                camera.focus *= 0.67 * 0.67;
            },
            DriftCause::CameraChanged(CameraChange::Brightness),
        ),
        (
            |_, camera, _, _, _| camera.focus *= 0.4,
            DriftCause::CameraChanged(CameraChange::Focus),
        ),
        (
            |_, camera, _, _, _| camera.saturated += 0.1,
            DriftCause::CameraChanged(CameraChange::Saturation),
        ),
        (
            |_, _, embedding, p, unknown| {
                embedding.iter_mut().for_each(|x| *x += 3.0);
                *p = 0.02;
                *unknown = true;
            },
            DriftCause::ProductChanged,
        ),
        (
            |line, _, embedding, p, unknown| {
                if line.uniform() < 0.25 {
                    embedding[0] += 12.0;
                    *p = 0.005;
                    *unknown = true;
                }
            },
            DriftCause::NewKindOfDefect,
        ),
    ];
    for (i, (change, cause)) in changes.into_iter().enumerate() {
        let mut right = 0;
        for seed in 0..20 {
            let mut line = Line::new(100 + seed);
            let mut monitor = line.monitor(60, 10_000.0);
            let (frames, alarm) = line
                .run(&mut monitor, 400, change)
                .expect("the change is found");
            assert!(frames < 150, "{i}: {frames} frames");
            right += u32::from(alarm.cause == cause);
        }
        assert!(right >= 18, "{cause:?} was named {right} of 20 times");
        assert!(!cause.action().is_empty());
    }
}

#[test]
fn erfc_has_its_known_values() {
    for (x, want) in [
        (0.0, 1.0),
        (0.5, 0.479_500_122),
        (1.0, 0.157_299_207),
        (2.0, 0.004_677_735),
        (4.0, 1.541_726e-8),
    ] {
        assert!((erfc(x) / want - 1.0).abs() < 2e-6, "{x}: {}", erfc(x));
    }
}

/// Against statistics of the other frames alone.
#[test]
fn left_out_distances_are_those_of_a_fresh_baseline() {
    let mut line = Line::new(3);
    let all: Vec<_> = (0..7).map(|_| line.embedding(0.5)).collect();
    let views: Vec<&[f32]> = all.iter().map(Vec::as_slice).collect();
    let baseline = EmbeddingBaseline::fit(&views).unwrap();
    let mut want: Vec<f64> = (0..7)
        .map(|i| {
            let others: Vec<&[f32]> = (0..7).filter(|&j| j != i).map(|j| views[j]).collect();
            let fresh = EmbeddingBaseline::fit(&others).unwrap();
            distance(&fresh.sum, &fresh.squares, 6, views[i])
        })
        .collect();
    want.sort_by(f64::total_cmp);
    for (a, b) in baseline.left_out.scores().iter().zip(want) {
        assert!((a - b).abs() < 1e-9 * b, "{a} {b}");
    }
}

#[test]
fn bad_input_is_refused() {
    let mut line = Line::new(1);
    let mut monitor = line.monitor(10, 1000.0);
    let camera = line.camera();
    let observe = |monitor: &mut DriftMonitor, embedding: &[f32], brightness: f64| {
        let camera = CameraNumbers {
            brightness,
            ..camera
        };
        monitor.observe(&Observation {
            camera,
            embedding,
            p_value: 1.0,
            unknown: false,
        })
    };
    assert!(observe(&mut monitor, &[0.0; DIM - 1], 0.5).is_err());
    assert!(observe(&mut monitor, &[f32::NAN; DIM], 0.5).is_err());
    assert!(observe(&mut monitor, &[0.0; DIM], f64::NAN).is_err());
    let few = vec![camera; 4];
    let embedding = line.embedding(0.0);
    let views = vec![embedding.as_slice(); 4];
    assert!(DriftMonitor::new(&few, &views, 0.02, 1000.0).is_err());
    assert!(DriftMonitor::new(&[camera; 5], &[embedding.as_slice(); 5], 0.0, 1000.0).is_err());
    assert!(DriftMonitor::new(&[camera; 5], &[embedding.as_slice(); 5], 0.02, 1000.0).is_ok());
}
