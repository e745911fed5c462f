//! A job that looks at surfaces grows from good parts alone to classes.

use crate::common::normal;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use ssl_edge_adapt::anomaly::{
    GoodFrame, Method, NeighbourOptions, Normal, NormalOptions, Rates, TokenGrid,
};
use ssl_edge_adapt::{AdaptError, ClassId, EncoderId, FitOptions, Job, SampleMeta, Verdict};

const SIZE: [usize; 2] = [6, 5];
const DIM: usize = 8;

/// A feature and patch tokens of a part; `scratch` puts a token there that no good part has.
struct Part {
    feature: Vec<f32>,
    tokens: Vec<f32>,
}

impl Part {
    fn new(seed: u8, axis: usize, scratch: bool) -> Self {
        let mut rng = ChaCha8Rng::from_seed([seed; 32]);
        let mut noisy = |centre: f32, scale: f64| centre + (scale * normal(&mut rng)) as f32;
        let feature = (0..4)
            .map(|j| noisy(if j == axis { 1.0 } else { 0.0 }, 0.05))
            .collect();
        let mut tokens: Vec<f32> = (0..SIZE[0] * SIZE[1] * DIM)
            .map(|i| noisy((i % DIM) as f32, 0.05))
            .collect();
        if scratch {
            tokens[7 * DIM..8 * DIM].iter_mut().for_each(|x| *x = -*x);
        }
        Self { feature, tokens }
    }

    fn grid(&self) -> TokenGrid<'_> {
        TokenGrid::new(&self.tokens, SIZE, DIM).unwrap()
    }
}

fn job() -> (Job, ClassId) {
    let mut job = Job::new(EncoderId {
        hash: [1; 32],
        dim: 4,
    });
    job.set_surface(Some("pixels")).unwrap();
    let good = job.add_class("good").unwrap();
    (job, good)
}

fn teach(job: &mut Job, class: ClassId, part: &Part) {
    let id = job
        .add_sample(class, &part.feature, SampleMeta::default())
        .unwrap();
    job.set_sample_tokens(id, &part.grid()).unwrap();
}

fn judge(job: &Job, part: &Part) -> Verdict {
    job.inspect_with(&part.feature, Some(&part.grid())).unwrap()
}

fn fit(job: &mut Job) {
    let options = FitOptions {
        unknown_rate: 0.2,
        ..FitOptions::default()
    };
    job.fit(&options).unwrap();
}

#[test]
fn good_parts_alone_tell_where_a_part_is_unlike_them() {
    let (mut job, good) = job();
    for seed in 0..8 {
        teach(&mut job, good, &Part::new(seed, 0, false));
    }
    fit(&mut job);
    assert!(job.needs_tokens() && job.surface_report().unwrap().frames == 8);
    let fine = judge(&job, &Part::new(100, 0, false));
    let scratched = judge(&job, &Part::new(100, 0, true));
    let (fine_heat, heat) = (
        fine.anomaly.unwrap().heat,
        scratched.anomaly.as_ref().unwrap().heat.clone(),
    );
    assert!(scratched.anomaly.unwrap().anomalous && scratched.ok == Some(false));
    let hottest = (0..heat.values.len()).max_by(|a, b| heat.values[*a].total_cmp(&heat.values[*b]));
    assert_eq!(hottest, Some(7));
    assert!(heat.values[7] > 1.0 && fine_heat.values[7] < heat.values[7]);
    // as a model of the same tokens in half precision says
    let halved = |part: &Part| -> Vec<f32> {
        part.tokens
            .iter()
            .map(|x| half::f16::from_f32(*x).to_f32())
            .collect()
    };
    let tokens: Vec<Vec<f32>> = (0..8)
        .map(|seed| halved(&Part::new(seed, 0, false)))
        .collect();
    let frames: Vec<GoodFrame> = tokens
        .iter()
        .enumerate()
        .map(|(part, tokens)| GoodFrame {
            grid: TokenGrid::new(tokens, SIZE, DIM).unwrap(),
            part,
            copy_of: None,
        })
        .collect();
    let options = NormalOptions {
        method: Method::Neighbours(NeighbourOptions::default()),
        ..NormalOptions::default()
    };
    // half of what is allowed, the other half is for the distance
    let rates = Rates {
        frame: 0.1,
        ..Rates::default()
    };
    let alone = Normal::fit(&frames, &options, &rates).unwrap();
    let part = Part::new(100, 0, true);
    assert_eq!(
        judge(&job, &part).anomaly,
        Some(alone.inspect(&part.grid()).unwrap())
    );
}

#[test]
fn an_embedding_alone_is_not_enough() {
    let (mut job, good) = job();
    for seed in 0..3 {
        teach(&mut job, good, &Part::new(seed, 0, false));
    }
    fit(&mut job);
    let part = Part::new(9, 0, false);
    assert!(matches!(
        job.inspect(&part.feature),
        Err(AdaptError::TokensNeeded)
    ));
    let other = [1.0; 3];
    let grid = TokenGrid::new(&other, [1, 1], 3).unwrap();
    assert!(matches!(
        job.inspect_with(&part.feature, Some(&grid)),
        Err(AdaptError::WrongDimension { .. })
    ));
}

#[test]
fn it_grows_to_classes_and_survives_the_file() {
    let (mut job, good) = job();
    for seed in 0..6 {
        teach(&mut job, good, &Part::new(seed, 0, false));
    }
    let bad = job.add_class("dent").unwrap();
    for seed in 20..24 {
        teach(&mut job, bad, &Part::new(seed, 1, true));
    }
    fit(&mut job);
    // tokens of bad samples are not learned as good
    assert_eq!(job.surface_report().unwrap().frames, 6);
    let dent = judge(&job, &Part::new(60, 1, false));
    assert!(dent.name == "dent" && dent.ok == Some(false));
    let scratched = judge(&job, &Part::new(61, 0, true));
    assert!(scratched.name == "good" && scratched.ok == Some(false));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("job.sslj");
    job.save(&path).unwrap();
    let mut loaded = Job::load(&path).unwrap();
    assert_eq!(judge(&loaded, &Part::new(61, 0, true)), scratched);
    fit(&mut loaded);
    let again = judge(&loaded, &Part::new(61, 0, true));
    assert_eq!(again.anomaly, scratched.anomaly);
}

#[test]
fn forgetting_and_undoing_take_the_tokens_along() {
    let (mut job, good) = job();
    for seed in 0..5 {
        teach(&mut job, good, &Part::new(seed, 0, false));
    }
    fit(&mut job);
    let before = judge(&job, &Part::new(50, 0, true)).anomaly;
    let odd = Part::new(70, 0, true);
    teach(&mut job, good, &odd);
    fit(&mut job);
    assert_ne!(judge(&job, &Part::new(50, 0, true)).anomaly, before);
    let id = job.samples().last().unwrap().id;
    job.remove_sample(id).unwrap();
    fit(&mut job);
    assert_eq!(judge(&job, &Part::new(50, 0, true)).anomaly, before);
    job.undo().unwrap();
    assert!(job.sample(id).unwrap().tokens.is_some());
}

#[test]
fn merging_keeps_tokens_and_refuses_other_kinds() {
    let (mut one, good) = job();
    teach(&mut one, good, &Part::new(1, 0, false));
    let (mut two, good) = job();
    teach(&mut two, good, &Part::new(2, 0, false));
    one.merge(&two).unwrap();
    fit(&mut one);
    assert_eq!(one.surface_report().unwrap().frames, 2);
    let mut other = Job::new(*one.encoder());
    other.set_surface(Some("encoder")).unwrap();
    let good = other.add_class("good").unwrap();
    teach(&mut other, good, &Part::new(3, 0, false));
    assert!(matches!(
        one.merge(&other),
        Err(AdaptError::BadOption { .. })
    ));
    assert!(matches!(
        other.set_surface(None),
        Err(AdaptError::BadOption { .. })
    ));
}

#[test]
fn tokens_that_do_not_fit_are_refused() {
    let (mut job, good) = job();
    teach(&mut job, good, &Part::new(1, 0, false));
    let id = job.samples()[0].id;
    let huge = [1e30f32, 1.0];
    let grid = TokenGrid::new(&huge, [1, 2], 1).unwrap();
    assert!(matches!(
        job.set_sample_tokens(id, &grid),
        Err(AdaptError::WrongDimension { .. })
    ));
    let mut fresh = job.clone_empty();
    let good = fresh.add_class("good").unwrap();
    let id = fresh
        .add_sample(good, &[1.0; 4], SampleMeta::default())
        .unwrap();
    assert!(matches!(
        fresh.set_sample_tokens(id, &grid),
        Err(AdaptError::NotFinite { .. })
    ));
    let mut plain = Job::new(*fresh.encoder());
    let good = plain.add_class("good").unwrap();
    let id = plain
        .add_sample(good, &[1.0; 4], SampleMeta::default())
        .unwrap();
    assert!(matches!(
        plain.set_sample_tokens(id, &Part::new(1, 0, false).grid()),
        Err(AdaptError::BadOption { .. })
    ));
}
