//! Models of good parts against dense decompositions, fresh fits and simulated lines.

use faer::Mat;
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use ssl_edge_adapt::AdaptError;
use ssl_edge_adapt::anomaly::{
    GoodFrame, HoldOut, Method, NeighbourOptions, Normal, NormalModel, NormalOptions, PcaOptions,
    Prepare, Rates, Storage, ThresholdSource, TokenGrid, TokenStatistics, frame_statistics,
};

const SIZE: [usize; 2] = [4, 5];
const DIM: usize = 6;

fn uniform(rng: &mut ChaCha8Rng) -> f32 {
    rng.next_u32() as f32 / u32::MAX as f32
}

/// Tokens with values of different variances around 2.
fn frame(rng: &mut ChaCha8Rng) -> Vec<f32> {
    (0..SIZE[0] * SIZE[1] * DIM)
        .map(|i| 2.0 + (uniform(rng) + uniform(rng) - 1.0) / (1 + i % DIM) as f32)
        .collect()
}

fn frames(seed: u8, n: usize) -> Vec<Vec<f32>> {
    let mut rng = ChaCha8Rng::from_seed([seed; 32]);
    (0..n).map(|_| frame(&mut rng)).collect()
}

fn grid(tokens: &[f32]) -> TokenGrid<'_> {
    TokenGrid::new(tokens, SIZE, DIM).unwrap()
}

fn grids(frames: &[Vec<f32>]) -> Vec<TokenGrid<'_>> {
    frames.iter().map(|f| grid(f)).collect()
}

fn good(frames: &[Vec<f32>]) -> Vec<GoodFrame<'_>> {
    let each = frames.iter().enumerate();
    each.map(|(part, f)| GoodFrame {
        grid: grid(f),
        part,
        copy_of: None,
    })
    .collect()
}

fn pca(explained_variance: f64) -> NormalOptions {
    NormalOptions {
        method: Method::Pca(PcaOptions {
            explained_variance,
            max_components: None,
        }),
        prepare: Prepare {
            window: 1,
            unit_norm: false,
        },
        top_share: 0.01,
    }
}

fn neighbours() -> NormalOptions {
    NormalOptions {
        method: Method::Neighbours(NeighbourOptions {
            storage: Storage::F32,
            ..NeighbourOptions::default()
        }),
        ..NormalOptions::default()
    }
}

#[test]
fn residuals_are_those_of_a_dense_svd() {
    let good = frames(1, 3);
    let tested = frames(2, 1).remove(0);
    for share in [0.5, 0.9, 0.99] {
        let model = NormalModel::fit(&grids(&good), &pca(share)).unwrap();
        let rows: Vec<&[f32]> = good.iter().flat_map(|f| f.chunks_exact(DIM)).collect();
        let n = rows.len();
        let mean: Vec<f64> = (0..DIM)
            .map(|j| rows.iter().map(|r| f64::from(r[j])).sum::<f64>() / n as f64)
            .collect();
        let centred = Mat::from_fn(n, DIM, |i, j| f64::from(rows[i][j]) - mean[j]);
        let svd = centred.svd().unwrap();
        let variance: Vec<f64> = (0..DIM)
            .map(|i| svd.S().column_vector()[i].powi(2))
            .collect();
        let total: f64 = variance.iter().sum();
        let rank = (1..=DIM)
            .find(|r| variance[..*r].iter().sum::<f64>() >= share * total)
            .unwrap();
        assert_eq!(model.pca().unwrap().components(), rank);
        let scores = model.score(&grid(&tested)).unwrap();
        for (token, score) in tested.chunks_exact(DIM).zip(&scores.values) {
            let d: Vec<f64> = token
                .iter()
                .zip(&mean)
                .map(|(x, m)| f64::from(*x) - m)
                .collect();
            let inside: f64 = (0..rank)
                .map(|i| {
                    (0..DIM)
                        .map(|j| d[j] * svd.V()[(j, i)])
                        .sum::<f64>()
                        .powi(2)
                })
                .sum();
            let want = d.iter().map(|x| x * x).sum::<f64>() - inside;
            assert!(
                (f64::from(*score) - want).abs() < 1e-5 * want + 1e-9,
                "{score} {want}"
            );
        }
    }
}

proptest! {
    /// Added in any order, with frames added and forgotten in between, and merged from two stations.
    #[test]
    fn adding_and_forgetting_equal_a_fresh_fit(seed in any::<u8>(), kept in 1usize..5, extra in 1usize..4) {
        let all = frames(seed, kept + extra);
        let prepare = Prepare::default();
        let of = |f: &[f32]| frame_statistics(&grid(f), &prepare).unwrap();
        let mut station = [TokenStatistics::new(DIM), TokenStatistics::new(DIM)];
        for (i, f) in all.iter().enumerate().rev() {
            station[i % 2].merge(&of(f)).unwrap();
        }
        let [mut statistics, other] = station;
        statistics.merge(&other).unwrap();
        for f in &all[kept..] {
            statistics.subtract(&of(f)).unwrap();
        }
        let options = NormalOptions { prepare, ..pca(0.9) };
        let grown = NormalModel::of_statistics(&statistics, &options).unwrap();
        let fresh = NormalModel::fit(&grids(&all[..kept]), &options).unwrap();
        let tested = frames(seed.wrapping_add(1), 1).remove(0);
        let (a, b) = (grown.score(&grid(&tested)).unwrap(), fresh.score(&grid(&tested)).unwrap());
        for (a, b) in a.values.iter().zip(&b.values) {
            prop_assert!((a - b).abs() <= 1e-6 * b.abs() + 1e-9, "{} {}", a, b);
        }
    }
}

#[test]
fn left_out_scores_are_those_of_a_fresh_fit_without_the_frame() {
    let all = frames(5, 6);
    for options in [pca(0.9), neighbours()] {
        let normal = Normal::fit(&good(&all), &options, &Rates::default()).unwrap();
        let mut want: Vec<f64> = (0..6)
            .map(|i| {
                let others: Vec<_> = (0..6).filter(|&j| j != i).map(|j| grid(&all[j])).collect();
                let model = NormalModel::fit(&others, &options).unwrap();
                model.image_score(&model.score(&grid(&all[i])).unwrap())
            })
            .collect();
        want.sort_by(f64::total_cmp);
        for (a, b) in normal.good_scores().scores().iter().zip(want) {
            assert!((a - b).abs() < 1e-6 * b + 1e-9, "{a} {b}");
        }
        assert_eq!(normal.report().hold_out, HoldOut::Parts);
        assert_eq!(
            (normal.report().frames, normal.report().floor),
            (6, 1.0 / 7.0)
        );
    }
}

/// Frames of one part, and turned copies, are left out together: a copy of the frame itself would give it a distance of 0.
#[test]
fn parts_and_copies_are_left_out_whole() {
    let all = frames(6, 4);
    let mut known = good(&all);
    known[1].part = 0;
    known[3].part = 2;
    let alone = Normal::fit(&known, &neighbours(), &Rates::default()).unwrap();
    for i in 0..4 {
        known.push(GoodFrame {
            copy_of: Some(i),
            ..known[i]
        });
    }
    let with_copies = Normal::fit(&known, &neighbours(), &Rates::default()).unwrap();
    assert_eq!(alone.good_scores(), with_copies.good_scores());
    assert!(alone.good_scores().scores()[0] > 1e-3);
    assert_eq!(with_copies.report().parts, 2);
    known[4].copy_of = Some(5);
    assert!(Normal::fit(&known, &neighbours(), &Rates::default()).is_err());
    known.truncate(4);
    known.iter_mut().for_each(|f| f.part = 7);
    let one = Normal::fit(&known, &neighbours(), &Rates::default()).unwrap();
    assert_eq!(one.report().hold_out, HoldOut::FramesOfOnePart);
    assert!(
        one.report()
            .notes()
            .iter()
            .any(|note| note.contains("one part"))
    );
    let many = frames(7, 40);
    let folds = Normal::fit(&good(&many), &pca(0.9), &Rates::default()).unwrap();
    assert_eq!(
        (folds.report().hold_out, folds.report().frames),
        (HoldOut::Folds, 40)
    );
}

#[test]
fn one_good_frame_is_scored_by_quarters() {
    let all = frames(8, 1);
    for options in [pca(0.9), neighbours()] {
        let normal = Normal::fit(&good(&all), &options, &Rates::default()).unwrap();
        let report = normal.report();
        assert_eq!((report.hold_out, report.floor), (HoldOut::Quarters, 0.5));
        assert_eq!(report.frame.source, ThresholdSource::Prediction);
        assert!(report.token.value > 0.0);
        assert!(
            report
                .notes()
                .iter()
                .any(|note| note.contains("only one good frame"))
        );
        assert!(!normal.inspect(&grid(&all[0])).unwrap().anomalous);
    }
    let single = [1.0f32, 2.0];
    let frame = GoodFrame {
        grid: TokenGrid::new(&single, [1, 1], 2).unwrap(),
        part: 0,
        copy_of: None,
    };
    assert!(Normal::fit(&[frame], &pca(0.9), &Rates::default()).is_ok());
    assert!(matches!(
        Normal::fit(&[], &pca(0.9), &Rates::default()),
        Err(AdaptError::NoGoodFrame)
    ));
}

/// Good frames to come are like those taught, so that false alarms are a binomial count whose rate is at most the promised one. The band is
/// 4 standard deviations wide; below, left-out scores are a little higher than new ones.
#[test]
fn false_alarms_stay_within_the_promise() {
    for (options, rate) in [(pca(0.9), 0.1), (neighbours(), 0.2)] {
        let (trials, mut alarms) = (600, 0);
        let mut rng = ChaCha8Rng::from_seed([9; 32]);
        for _ in 0..trials {
            let all: Vec<_> = (0..10).map(|_| frame(&mut rng)).collect();
            let rates = Rates {
                frame: rate,
                ..Rates::default()
            };
            let normal = Normal::fit(&good(&all[..9]), &options, &rates).unwrap();
            assert_eq!(normal.report().frame.source, ThresholdSource::Conformal);
            let verdict = normal.inspect(&grid(&all[9])).unwrap();
            assert_eq!(verdict.anomalous, verdict.p_value <= rate + 1e-9);
            alarms += u32::from(verdict.anomalous);
        }
        let n = f64::from(trials);
        let (share, deviation) = (f64::from(alarms) / n, (rate * (1.0 - rate) / n).sqrt());
        assert!(share < rate + 4.0 * deviation, "{share} for {rate}");
        assert!(share > 0.4 * rate, "{share} for {rate}");
    }
}

#[test]
fn heat_has_one_scale_and_masked_tokens_say_nothing() {
    let all = frames(10, 8);
    let normal = Normal::fit(&good(&all), &pca(0.9), &Rates::default()).unwrap();
    let mut bad = frames(11, 1).remove(0);
    bad[7 * DIM + 5] += 2.0;
    let open = normal.inspect(&grid(&bad)).unwrap();
    let unit = normal.report().token.value;
    let score = normal.model().score(&grid(&bad)).unwrap().values[7];
    assert!((f64::from(open.heat.values[7]) - f64::from(score) / unit).abs() < 1e-3);
    assert!(open.anomalous && open.heat.values[7] > 1.0);
    let keep: Vec<bool> = (0..20).map(|i| i != 7).collect();
    let masked = normal
        .inspect(&grid(&bad).with_mask(&keep).unwrap())
        .unwrap();
    assert_eq!(masked.heat.values[7], 0.0);
    assert!(masked.score < open.score);
}

#[test]
fn frames_that_are_all_the_same_are_no_failure() {
    let same = vec![vec![1.5f32; SIZE[0] * SIZE[1] * DIM]; 3];
    for options in [pca(0.99), neighbours()] {
        let normal = Normal::fit(&good(&same), &options, &Rates::default()).unwrap();
        assert!(!normal.inspect(&grid(&same[0])).unwrap().anomalous);
        let mut other = same[0].clone();
        other[0] = -4.0;
        let verdict = normal.inspect(&grid(&other)).unwrap();
        assert!(verdict.anomalous && verdict.heat.values.iter().all(|v| v.is_finite()));
    }
}

#[test]
fn wrong_tokens_and_options_are_refused() {
    let all = frames(12, 2);
    let model = NormalModel::fit(&grids(&all), &pca(0.9)).unwrap();
    let other = TokenGrid::new(&all[0], [4, 6], 5).unwrap();
    assert!(matches!(
        model.score(&other),
        Err(AdaptError::WrongDimension { .. })
    ));
    assert!(NormalModel::fit(&[grid(&all[0]), other], &pca(0.9)).is_err());
    for share in [0.0, 1.0, f64::NAN] {
        assert!(matches!(
            NormalModel::fit(&grids(&all), &pca(share)),
            Err(AdaptError::BadOption { .. })
        ));
    }
    let mut statistics = frame_statistics(&grid(&all[0]), &Prepare::default()).unwrap();
    let held = statistics.clone();
    statistics.subtract(&held).unwrap();
    assert!(matches!(
        statistics.subtract(&held),
        Err(AdaptError::NotLearned { .. })
    ));
    assert!(matches!(
        NormalModel::of_statistics(&statistics, &pca(0.9)),
        Err(AdaptError::NoGoodFrame)
    ));
    assert!(NormalModel::of_statistics(&held, &neighbours()).is_err());
}

/// What a file holds is checked before it is used: cutting any number of values from a model is found.
#[test]
fn a_model_survives_a_file_and_damage_is_found() {
    let all = frames(13, 5);
    let eight_bit = NormalOptions {
        method: Method::Neighbours(NeighbourOptions::default()),
        ..neighbours()
    };
    for options in [pca(0.9), neighbours(), eight_bit] {
        let normal = Normal::fit(&good(&all), &options, &Rates::default()).unwrap();
        let bytes = postcard::to_stdvec(&normal).unwrap();
        let read: Normal = postcard::from_bytes(&bytes).unwrap();
        read.check().unwrap();
        assert_eq!(read, normal);
        assert_eq!(
            read.inspect(&grid(&all[0])).unwrap(),
            normal.inspect(&grid(&all[0])).unwrap()
        );
        let mut found = 0;
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x15;
            let Ok(read) = postcard::from_bytes::<Normal>(&damaged) else {
                continue;
            };
            match read.check() {
                // What passes may be wrong by a value, which a checksum finds, but must not bring anything down.
                Ok(()) => drop(read.inspect(&grid(&all[0]))),
                Err(_) => found += 1,
            }
        }
        assert!(found > 0);
    }
}
