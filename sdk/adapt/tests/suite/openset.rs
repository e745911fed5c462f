use crate::common::{Data, dot, in_pool, wide};
use ssl_edge_adapt::eval::{HeadChoice, LabelledSet, OpensetOptions, OpensetScore, auroc, openset};
use ssl_edge_adapt::{AdaptError, HeadKind};

const HEADS: [HeadChoice; 2] = [
    HeadChoice::One(HeadKind::Lda),
    HeadChoice::One(HeadKind::Knn),
];

fn options(shots: &[usize], draws: usize) -> OpensetOptions {
    OpensetOptions {
        shots: shots.to_vec(),
        draws,
        seed: 3,
        heads: HEADS.to_vec(),
    }
}

/// Classes below `known` and the others.
fn halves(data: &Data, known: usize) -> [Data; 2] {
    let pick = |is_known: bool| {
        let kept = (0..data.rows.len()).filter(|i| (data.labels[*i] < known) == is_known);
        let kept: Vec<usize> = kept.collect();
        Data {
            rows: kept.iter().map(|i| data.rows[*i].clone()).collect(),
            labels: kept.iter().map(|i| data.labels[*i]).collect(),
            n_classes: data.n_classes,
        }
    };
    [pick(true), pick(false)]
}

fn run(
    known: &Data,
    unknown: &Data,
    options: &OpensetOptions,
) -> Result<Vec<OpensetScore>, AdaptError> {
    let (a, b) = (known.flat(), unknown.flat());
    let known_set = LabelledSet::new(&a, &known.labels, known.dim())?;
    let unknown_set = LabelledSet::new(&b, &unknown.labels, unknown.dim())?;
    openset(&known_set, &unknown_set, options)
}

#[test]
fn kinds_far_away_are_told_from_known_ones() {
    let [known, unknown] = halves(&Data::clusters(1, &[20, 20, 20, 20], 16, 4.0), 2);
    for score in run(&known, &unknown, &options(&[5], 6)).unwrap() {
        assert!(score.auroc > 0.999 && score.fpr95 < 0.01, "{score:?}");
        assert_eq!(score.accuracy_known, 1.0);
    }
}

/// Unknown ones that are drawn as the known ones are: an area of ½, and 95 % of them pass.
#[test]
fn the_same_kinds_are_not_told_apart() {
    let all = Data::clusters(2, &[400, 400], 8, 1.0);
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    (0..800).for_each(|i| {
        if i % 2 == 0 {
            known.push(i)
        } else {
            unknown.push(i)
        }
    });
    let pick = |rows: &[usize]| Data {
        rows: rows.iter().map(|i| all.rows[*i].clone()).collect(),
        labels: rows.iter().map(|i| all.labels[*i]).collect(),
        n_classes: 2,
    };
    for score in run(&pick(&known), &pick(&unknown), &options(&[10], 8)).unwrap() {
        assert!((score.auroc - 0.5).abs() < 0.05, "{score:?}");
        assert!((score.fpr95 - 0.95).abs() < 0.03, "{score:?}");
    }
}

/// With all but one image of each class in the support there is one query of each; distances by brute force over the possible supports.
#[test]
fn the_area_is_that_of_the_distances() {
    let [known, unknown] = halves(&Data::clusters(3, &[3, 3, 9], 5, 0.4), 2);
    let cosine = |x: &[f32], y: &[f32]| {
        let (a, b) = (wide(x), wide(y));
        dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
    };
    // All nine draws of one query a class, each with its area.
    let mut areas = Vec::new();
    for (a, b) in (0..9).map(|i| (i / 3, 3 + i % 3)) {
        let support: Vec<usize> = (0..6).filter(|i| *i != a && *i != b).collect();
        let distance = |x: &[f32]| {
            let cosines = support.iter().map(|i| cosine(x, &known.rows[*i]));
            1.0 - cosines.fold(f64::MIN, f64::max)
        };
        let rows = [&known.rows[a], &known.rows[b]]
            .into_iter()
            .chain(&unknown.rows);
        let scores: Vec<f64> = rows.map(|row| distance(row)).collect();
        let positive: Vec<bool> = (0..scores.len()).map(|i| i >= 2).collect();
        areas.push(auroc(&scores, &positive).unwrap());
    }
    let least = areas.iter().copied().fold(f64::MAX, f64::min);
    let most = areas.iter().copied().fold(f64::MIN, f64::max);
    let mean = areas.iter().sum::<f64>() / 9.0;
    assert!(least < most, "the draws must differ");
    let score = &run(&known, &unknown, &options(&[2], 400)).unwrap()[0];
    assert!(
        (score.auroc - mean).abs() < 3.0 * score.ci95,
        "{score:?} {mean}"
    );
    assert!(score.ci95 > 0.0 && score.ci95 < 0.05);
}

#[test]
fn threads_change_nothing_and_input_is_checked() {
    let [known, unknown] = halves(&Data::clusters(4, &[9, 9, 9], 6, 0.6), 2);
    let scores = || run(&known, &unknown, &options(&[1, 4], 5)).unwrap();
    let alone = in_pool(1, scores);
    assert!(alone == in_pool(3, scores) && alone.len() == 4);
    assert_eq!(
        (alone[1].shots, alone[1].head, alone[2].shots),
        (1, HEADS[1], 4)
    );
    let other = Data::clusters(5, &[3], 5, 1.0);
    let is_shape = |e: AdaptError| {
        matches!(
            e,
            AdaptError::Shape {
                expected: 6,
                got: 5,
                ..
            }
        )
    };
    assert!(is_shape(
        run(&known, &other, &options(&[1], 5)).unwrap_err()
    ));
    let small = run(&known, &unknown, &options(&[9], 5)).unwrap_err();
    assert!(
        matches!(small, AdaptError::ClassTooSmall { n: 9, shots: 9, .. }),
        "{small}"
    );
    let once = run(&known, &unknown, &options(&[1], 1)).unwrap_err();
    assert!(
        matches!(once, AdaptError::BadOption { name: "draws", .. }),
        "{once}"
    );
}
