//! Whatever was done to a job, it is as one that was taught only what is there now.

use crate::common::{Data, encoder, meta};
use proptest::prelude::*;
use ssl_edge_adapt::{FitOptions, HeadKind, Job};

const DIM: usize = 4;

/// What a job should hold, kept apart from the crate: classes by a key that stays, samples by row of the pool.
#[derive(Clone, Default)]
struct Model {
    classes: Vec<(u32, String, bool, f64)>,
    samples: Vec<(usize, u32)>,
}

impl Model {
    fn class_mut(&mut self, key: u32) -> &mut (u32, String, bool, f64) {
        self.classes
            .iter_mut()
            .find(|class| class.0 == key)
            .unwrap()
    }

    /// A job that was taught this and nothing else.
    fn fresh(&self, pool: &Data) -> Job {
        let mut job = Job::new(encoder(DIM));
        for (_, name, good, cost) in &self.classes {
            let id = job.add_class(name).unwrap();
            job.set_good(id, *good).unwrap();
            job.set_cost(id, *cost).unwrap();
        }
        for (row, key) in &self.samples {
            let at = self
                .classes
                .iter()
                .position(|class| class.0 == *key)
                .unwrap();
            let class = job.classes()[at].id;
            job.add_sample(class, &pool.rows[*row], meta(&row.to_string()))
                .unwrap();
        }
        job
    }
}

/// A job and its model, which see the same changes.
struct Pair<'p> {
    pool: &'p Data,
    job: Job,
    model: Model,
    before: Vec<Model>,
    next_row: usize,
    n_names: usize,
}

impl<'p> Pair<'p> {
    fn new(pool: &'p Data) -> Self {
        let mut pair = Self {
            pool,
            job: Job::new(encoder(DIM)),
            model: Model::default(),
            before: Vec::new(),
            next_row: 0,
            n_names: 0,
        };
        for class in 0..3 {
            pair.add_class();
            (0..3).for_each(|_| pair.add_sample(class));
        }
        pair
    }

    /// One of the operations, with what it works on, by the two numbers.
    fn step(&mut self, kind: u8, pick: usize) {
        let n_classes = self.model.classes.len();
        let n_samples = self.model.samples.len();
        match kind {
            0 => self.add_class(),
            1..=4 if n_classes > 0 => self.add_sample(pick % n_classes),
            5 | 6 if n_samples > 0 => self.remove_sample(pick % n_samples),
            7 | 8 if n_samples > 0 => self.relabel(pick % n_samples, pick / 7 % n_classes),
            9 if n_classes > 1 => self.merge_classes(pick % n_classes, pick / 7 % n_classes),
            10 if n_classes > 2 => self.remove_class(pick % n_classes),
            11 if n_classes > 0 => self.rename(pick % n_classes),
            12 if n_classes > 0 => self.mark(pick % n_classes, pick),
            13 | 14 => self.undo(),
            15 => self.merge_job(pick),
            16 => drop(self.job.fit(&FitOptions::default())),
            _ => {}
        }
    }

    fn changing(&mut self) {
        self.before.push(self.model.clone());
    }

    fn name(&mut self) -> String {
        self.n_names += 1;
        format!("name {}", self.n_names)
    }

    fn key(&self, class: usize) -> u32 {
        self.model.classes[class].0
    }

    fn add_class(&mut self) {
        self.changing();
        let name = self.name();
        let id = self.job.add_class(&name).unwrap();
        self.model.classes.push((id.0, name, false, 1.0));
    }

    fn add_sample(&mut self, class: usize) {
        self.changing();
        let (row, key) = (self.next_row, self.key(class));
        self.next_row += 1;
        let id = self.job.classes()[class].id;
        self.job
            .add_sample(id, &self.pool.rows[row], meta(&row.to_string()))
            .unwrap();
        self.model.samples.push((row, key));
    }

    fn remove_sample(&mut self, sample: usize) {
        self.changing();
        let removed = self
            .job
            .remove_sample(self.job.samples()[sample].id)
            .unwrap();
        let (row, _) = self.model.samples.remove(sample);
        assert_eq!(removed.meta.source, row.to_string());
    }

    fn relabel(&mut self, sample: usize, class: usize) {
        self.changing();
        let (id, to) = (self.job.samples()[sample].id, self.job.classes()[class].id);
        self.job.relabel_sample(id, to).unwrap();
        self.model.samples[sample].1 = self.key(class);
    }

    fn merge_classes(&mut self, from: usize, into: usize) {
        if from == into {
            return;
        }
        self.changing();
        let (a, b) = (self.job.classes()[from].id, self.job.classes()[into].id);
        self.job.merge_classes(a, b).unwrap();
        let (from_key, into_key) = (self.key(from), self.key(into));
        let moved = self.model.samples.iter_mut().filter(|s| s.1 == from_key);
        moved.for_each(|sample| sample.1 = into_key);
        self.model.classes.remove(from);
    }

    fn remove_class(&mut self, class: usize) {
        self.changing();
        self.job.remove_class(self.job.classes()[class].id).unwrap();
        let key = self.key(class);
        self.model.samples.retain(|sample| sample.1 != key);
        self.model.classes.remove(class);
    }

    fn rename(&mut self, class: usize) {
        self.changing();
        let (name, key) = (self.name(), self.key(class));
        self.job
            .rename_class(self.job.classes()[class].id, &name)
            .unwrap();
        self.model.class_mut(key).1 = name;
    }

    fn mark(&mut self, class: usize, pick: usize) {
        self.changing();
        let (id, key) = (self.job.classes()[class].id, self.key(class));
        if pick.is_multiple_of(2) {
            self.job.set_good(id, pick.is_multiple_of(4)).unwrap();
            self.model.class_mut(key).2 = pick.is_multiple_of(4);
        } else {
            self.job.set_cost(id, pick as f64).unwrap();
            self.model.class_mut(key).3 = pick as f64;
        }
    }

    fn undo(&mut self) {
        let undone = self.job.undo().is_some();
        assert_eq!(undone, !self.before.is_empty());
        if let Some(before) = self.before.pop() {
            self.model = before;
        }
    }

    /// Another station's job: a class of the same name, a new one, a sample that is known and two that are not.
    fn merge_job(&mut self, pick: usize) {
        let mut other = Job::new(encoder(DIM));
        let new_name = self.name();
        let ours = self
            .model
            .classes
            .get(pick % self.model.classes.len().max(1))
            .cloned();
        let new = other.add_class(&new_name).unwrap();
        let mut rows = vec![(new, None)];
        if let Some((key, name, ..)) = &ours {
            let known = other.add_class(name).unwrap();
            rows.push((known, Some(*key)));
            if let Some((row, _)) = self.model.samples.iter().find(|s| s.1 == *key) {
                other
                    .add_sample(known, &self.pool.rows[*row], meta("there"))
                    .unwrap();
            }
        }
        let mut added = Vec::new();
        for (class, key) in rows {
            let row = self.next_row;
            self.next_row += 1;
            other
                .add_sample(class, &self.pool.rows[row], meta(&row.to_string()))
                .unwrap();
            added.push((row, key));
        }
        assert_eq!(self.job.merge(&other).unwrap(), added.len());
        let id = self.job.class_named(&new_name).unwrap().id.0;
        self.model.classes.push((id, new_name, false, 1.0));
        if let Some((key, ..)) = ours {
            // The other one is not good and costs 1.
            let class = self.model.class_mut(key);
            (class.2, class.3) = (false, class.3.max(1.0));
        }
        let new = added.into_iter().map(|(row, key)| (row, key.unwrap_or(id)));
        self.model.samples.extend(new);
        self.before.clear();
    }

    fn compare(&mut self, head: HeadKind) -> Result<(), TestCaseError> {
        let mut fresh = self.model.fresh(self.pool);
        let shown = |job: &Job| {
            let classes = job.classes().iter();
            classes
                .map(|c| (c.name.clone(), c.good, c.cost))
                .collect::<Vec<_>>()
        };
        prop_assert_eq!(shown(&self.job), shown(&fresh));
        let options = FitOptions {
            head: Some(head),
            ..FitOptions::default()
        };
        let (mine, theirs) = match (self.job.fit(&options), fresh.fit(&options)) {
            (Ok(mine), Ok(theirs)) => (mine, theirs),
            (mine, theirs) => {
                prop_assert_eq!(
                    mine.unwrap_err().to_string(),
                    theirs.unwrap_err().to_string()
                );
                return Ok(());
            }
        };
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-6 * a.abs().max(b.abs()).max(1e-9);
        prop_assert_eq!(
            (mine.n, mine.head, mine.loo_accuracy),
            (theirs.n, theirs.head, theirs.loo_accuracy)
        );
        prop_assert_eq!(
            (&mine.confusion, mine.needs_more),
            (&theirs.confusion, theirs.needs_more)
        );
        prop_assert!(close(mine.temperature, theirs.temperature));
        prop_assert!(close(
            mine.lambda.unwrap_or(1.0),
            theirs.lambda.unwrap_or(1.0)
        ));
        prop_assert!(close(
            mine.unknown.threshold.unwrap_or(1.0),
            theirs.unknown.threshold.unwrap_or(1.0)
        ));
        for row in &self.pool.rows[..60] {
            let (a, b) = (self.job.inspect(row).unwrap(), fresh.inspect(row).unwrap());
            prop_assert_eq!((a.name, a.ok, a.unknown), (b.name, b.ok, b.unknown));
            let scores = a.scores.iter().zip(&b.scores);
            prop_assert!(scores.into_iter().all(|(p, q)| (p - q).abs() < 1e-6));
            let sources = [(&self.job, a.nearest), (&fresh, b.nearest)]
                .map(|(job, id)| job.sample(id).unwrap().meta.source.clone());
            prop_assert_eq!(&sources[0], &sources[1]);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_job_forgets_without_a_trace(
        seed in 0u8..250,
        steps in prop::collection::vec((0u8..17, 0usize..1000), 1..60),
    ) {
        let pool = Data::clusters(seed, &[200], DIM, 0.8);
        let mut pair = Pair::new(&pool);
        for (kind, pick) in steps {
            // Beyond this many changes the oldest cannot be taken back.
            if pair.before.len() > 60 {
                break;
            }
            pair.step(kind, pick);
        }
        for head in [HeadKind::Lda, HeadKind::Discriminant, HeadKind::Ridge, HeadKind::Prototype, HeadKind::Knn] {
            pair.compare(head)?;
        }
    }
}
