use crate::common::Data;
use ssl_edge_adapt::{
    AdaptError, DeviceInput, DeviceOptions, FitOptions, HeadKind, Job, Layout, Part, UnknownRule,
};
use ssl_edge_head::HeadImage;

const ALL: DeviceOptions = DeviceOptions {
    job_number: 7,
    max_bytes: None,
    input: DeviceInput::Fitted,
};

fn fitted(data: &Data, head: HeadKind) -> Job {
    let mut job = data.job();
    job.fit(&FitOptions {
        head: Some(head),
        ..FitOptions::default()
    })
    .unwrap();
    job
}

/// Verdicts of the integers on frames that were not taught agree with those of the job.
#[test]
fn the_device_says_what_the_job_says() {
    for (head, seed) in [
        (HeadKind::Discriminant, 60),
        (HeadKind::Ridge, 61),
        (HeadKind::Prototype, 62),
        (HeadKind::Lda, 69),
        (HeadKind::Logistic, 70),
    ] {
        // The last 200 of each class are not taught, and nothing of the fourth; the classes overlap.
        let all = Data::clusters(seed, &[212, 215, 210, 40], 48, 0.25);
        let taught = |i: &usize| {
            let first = all
                .labels
                .iter()
                .position(|label| *label == all.labels[*i])
                .unwrap();
            let size = [12, 15, 10, 0][all.labels[*i]];
            *i < first + size
        };
        let pick = |wanted: bool| -> Vec<usize> {
            (0..all.rows.len())
                .filter(|i| taught(i) == wanted)
                .collect()
        };
        let data = Data {
            rows: pick(true).iter().map(|i| all.rows[*i].clone()).collect(),
            labels: pick(true).iter().map(|i| all.labels[*i]).collect(),
            n_classes: 3,
        };
        // A rate at which both answers are frequent.
        let mut job = data.job();
        job.fit(&FitOptions {
            head: Some(head),
            unknown_rate: 0.3,
            ..FitOptions::default()
        })
        .unwrap();
        let device = job.device_head(&ALL).unwrap();
        let image = HeadImage::parse(&device.image).unwrap();
        assert_eq!(
            (image.job(), image.dim(), image.n_classes(), image.n_rows()),
            (7, 48, 3, 37)
        );
        assert_eq!((image.encoder(), device.rows), (&[0xab; 32], 37));
        assert_eq!(
            Some(&device.unknown),
            job.report().map(|report| &report.unknown)
        );
        let (mut n, mut class, mut unknown, mut unknowns, mut nearest, mut score) =
            (0.0, 0.0, 0.0, 0.0, 0.0, 0.0f64);
        for i in pick(false) {
            let own = job.inspect(&all.rows[i]).unwrap();
            let mut values = vec![0; 48];
            image.quantise(&all.rows[i], &mut values).unwrap();
            let verdict = image.inspect(&values).unwrap();
            let same_class = image.class_id(verdict.class.into()) == Some(own.class.0);
            n += 1.0;
            class += f64::from(u8::from(same_class));
            unknown += f64::from(u8::from(verdict.unknown == own.unknown));
            unknowns += f64::from(u8::from(own.unknown));
            let row = image.row(verdict.nearest.unwrap().row.into()).unwrap().0;
            nearest += f64::from(u8::from(row == own.nearest.0));
            let index = job
                .classes()
                .iter()
                .position(|class| class.id == own.class)
                .unwrap();
            let own_score = f64::from(image.scores(&values).unwrap()[index]) / 32768.0;
            score = score.max((own_score - f64::from(own.score)).abs());
        }
        println!(
            "{head:?}: class {}, unknown {} ({unknowns} unknown), nearest {}, score {score}",
            class / n,
            unknown / n,
            nearest / n
        );
        assert!(
            n == 640.0 && (50.0..590.0).contains(&unknowns),
            "{unknowns} of {n} are unknown"
        );
        assert!(class / n > 0.985, "{head:?}: {}", class / n);
        assert!(unknown / n > 0.985, "{head:?}: {}", unknown / n);
        assert!(nearest / n > 0.97, "{head:?}: {}", nearest / n);
        assert!(score < 0.03, "{head:?}: {score}");
        let parity = device.parity;
        assert_eq!((parity.n, parity.cut_values), (37, 0));
        assert!(
            parity.same_class >= 36 && parity.same_unknown >= 36,
            "{parity:?}"
        );
        assert!(
            parity.score_difference < 0.03 && parity.distance_difference < 0.01,
            "{parity:?}"
        );
    }
}

/// The parity report is not blind: with a step that is far too coarse it says so.
#[test]
fn parity_notices_a_bad_input_scale() {
    let job = fitted(
        &Data::clusters(63, &[12, 12], 16, 0.6),
        HeadKind::Discriminant,
    );
    let good = job.device_head(&ALL).unwrap().parity;
    let coarse = DeviceOptions {
        input: DeviceInput::Given {
            scale: 2.5,
            zero_point: -3,
        },
        ..ALL
    };
    let coarse = job.device_head(&coarse).unwrap().parity;
    assert!(
        coarse.distance_difference > 10.0 * good.distance_difference,
        "{coarse:?} {good:?}"
    );
    let fine = DeviceOptions {
        input: DeviceInput::Given {
            scale: 0.001,
            zero_point: 0,
        },
        ..ALL
    };
    assert!(job.device_head(&fine).unwrap().parity.cut_values > 100);
    let exact = DeviceOptions {
        input: DeviceInput::Given {
            scale: 0.04,
            zero_point: 5,
        },
        ..ALL
    };
    let exact = job.device_head(&exact).unwrap().parity;
    assert!(exact.same_class >= 23, "{exact:?}");
}

/// With room for fewer rows than samples: a row of each class at least, and a threshold that keeps the promised rate on the samples.
#[test]
fn a_budget_keeps_the_rate() {
    let data = Data::clusters(64, &[60, 50, 3], 32, 0.3);
    let job = fitted(&data, HeadKind::Discriminant);
    let full = job.device_head(&ALL).unwrap();
    let budget = DeviceOptions {
        max_bytes: Some(full.image.len() / 3),
        ..ALL
    };
    let small = job.device_head(&budget).unwrap();
    assert!(
        small.image.len() <= full.image.len() / 3 && small.image.len() > full.image.len() / 3 - 80
    );
    let image = HeadImage::parse(&small.image).unwrap();
    assert!(image.n_rows() == small.rows && small.rows < 40);
    let kept: Vec<u64> = (0..small.rows)
        .map(|row| image.row(row).unwrap().0)
        .collect();
    for class in 0..3u16 {
        assert!((0..small.rows).any(|row| image.row(row).unwrap().1 == class));
    }
    // Brute force: distance of each sample to the nearest row other than itself.
    let cosine = |a: usize, b: usize| {
        let product = |a: usize, b: usize| {
            data.rows[a]
                .iter()
                .zip(&data.rows[b])
                .map(|(x, y)| f64::from(*x) * f64::from(*y))
                .sum::<f64>()
        };
        product(a, b) / (product(a, a) * product(b, b)).sqrt()
    };
    let distance = |i: usize| {
        let others = kept.iter().map(|row| *row as usize).filter(|row| *row != i);
        others
            .map(|row| 1.0 - cosine(i, row))
            .fold(f64::INFINITY, f64::min)
    };
    let rule = UnknownRule::new((0..data.rows.len()).map(distance).collect(), 0.05).unwrap();
    assert!((rule.threshold.unwrap() - small.unknown.threshold.unwrap()).abs() < 1e-6);
    assert!(
        small.unknown.threshold > full.unknown.threshold,
        "fewer rows are farther away"
    );
    assert!(small.parity.same_unknown >= 110, "{:?}", small.parity);
}

#[test]
fn what_cannot_be_put_on_a_device_is_named() {
    let data = Data::clusters(65, &[12, 12], 16, 1.0);
    assert!(matches!(
        data.job().device_head(&ALL),
        Err(AdaptError::NotFitted)
    ));
    let job = fitted(&data, HeadKind::Ridge);
    let given = 200;
    let Err(AdaptError::DeviceTooSmall { needed, .. }) = job.device_head(&DeviceOptions {
        max_bytes: Some(given),
        ..ALL
    }) else {
        panic!("a budget of {given} bytes was enough");
    };
    let least = job
        .device_head(&DeviceOptions {
            max_bytes: Some(needed),
            ..ALL
        })
        .unwrap();
    assert_eq!((least.image.len(), least.rows), (needed, 2));
    let scale = DeviceInput::Given {
        scale: -1.0,
        zero_point: 0,
    };
    let error = job
        .device_head(&DeviceOptions {
            input: scale,
            ..ALL
        })
        .unwrap_err();
    assert!(error.to_string().contains("step"), "{error}");
    let many = fitted(&Data::clusters(66, &[2; 129], 8, 1.0), HeadKind::Prototype);
    let error = many.device_head(&ALL).unwrap_err();
    assert!(error.to_string().contains("classes: 129"), "{error}");
}

#[test]
fn heads_that_a_device_does_not_run_are_named_with_the_remedy() {
    let data = Data::clusters(67, &[8, 8], 8, 1.0);
    let error = fitted(&data, HeadKind::Knn).device_head(&ALL).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("knn") && text.contains("lda"), "{text}");
    let mut job = fitted(&data, HeadKind::Prototype);
    job.set_cost(job.classes()[1].id, 5.0).unwrap();
    let text = job.device_head(&ALL).unwrap_err().to_string();
    assert!(text.contains("cost") && text.contains("ridge"), "{text}");
    for class in [0, 1] {
        job.set_cost(job.classes()[class].id, 5.0).unwrap();
    }
    assert!(job.device_head(&ALL).is_ok());
}

/// Classes of different cost: the device decides as the job does, and not as it would without costs.
#[test]
fn costs_decide_on_the_device_too() {
    let all = Data::clusters(72, &[400, 400, 400], 24, 0.25);
    let taught = |i: usize| i % 400 < 12;
    let pick =
        |wanted: bool| -> Vec<usize> { (0..1200).filter(|i| taught(*i) == wanted).collect() };
    let data = Data {
        rows: pick(true).iter().map(|i| all.rows[*i].clone()).collect(),
        labels: pick(true).iter().map(|i| all.labels[*i]).collect(),
        n_classes: 3,
    };
    for head in [HeadKind::Lda, HeadKind::Ridge, HeadKind::Logistic] {
        let mut job = fitted(&data, head);
        let plain = job.clone();
        for (class, cost) in [(0, 0.2), (2, 30.0)] {
            job.set_cost(job.classes()[class].id, cost).unwrap();
        }
        let device = job.device_head(&ALL).unwrap();
        let image = HeadImage::parse(&device.image).unwrap();
        let (mut same, mut moved, mut score, mut n) = (0, 0, 0.0f64, 0);
        for i in pick(false) {
            let own = job.inspect(&all.rows[i]).unwrap();
            let mut values = vec![0; 24];
            image.quantise(&all.rows[i], &mut values).unwrap();
            let verdict = image.inspect(&values).unwrap();
            n += 1;
            same += usize::from(image.class_id(verdict.class.into()) == Some(own.class.0));
            moved += usize::from(plain.inspect(&all.rows[i]).unwrap().class != own.class);
            // p · cost over the sum of p · cost
            let costs = [0.2, 1.0, 30.0];
            let weighed = |c: usize| f64::from(own.scores[c]) * costs[c];
            let sum: f64 = (0..3).map(weighed).sum();
            let best = usize::from(verdict.class);
            let found = f64::from(verdict.score) / 32768.0;
            score = score.max((weighed(best) / sum - found).abs());
        }
        assert!(moved > 60, "{head:?}: costs move {moved} of {n}");
        assert!(same * 100 >= n * 98, "{head:?}: {same} of {n}");
        assert!(score < 0.05, "{head:?}: {score}");
        assert!(device.parity.same_class >= 35, "{:?}", device.parity);
    }
}

/// Of several parts, the device holds those that the head sees, as it sees them.
#[test]
fn parts_are_seen_as_the_head_sees_them() {
    let data = Data::clusters(71, &[15, 15], 12, 0.8);
    let layout = Layout::new(
        vec![Part::new("a", 4), Part::new("b", 5), Part::new("c", 3)],
        &["a", "c"],
    )
    .unwrap();
    let mut job = Job::with_layout(crate::common::encoder(12), layout).unwrap();
    let ids = ["x", "y"].map(|name| job.add_class(name).unwrap());
    for (row, label) in data.rows.iter().zip(&data.labels) {
        // The third part is measured in another unit.
        let scaled: Vec<f32> = row
            .iter()
            .enumerate()
            .map(|(d, x)| if d < 9 { *x } else { 1000.0 * x })
            .collect();
        job.add_sample(ids[*label], &scaled, Default::default())
            .unwrap();
    }
    job.fit(&FitOptions::default()).unwrap();
    let device = job.device_head(&ALL).unwrap();
    let image = HeadImage::parse(&device.image).unwrap();
    assert_eq!((image.dim(), device.parity.same_class), (7, 30));
    assert!(device.parity.score_difference < 0.05, "{:?}", device.parity);
    for (i, sample) in job.samples().iter().enumerate() {
        let mut values = vec![0; 7];
        image
            .quantise(
                &job.device_embedding(&sample.embedding).unwrap(),
                &mut values,
            )
            .unwrap();
        assert_eq!(
            image
                .inspect(&values)
                .unwrap()
                .nearest
                .map(|nearest| nearest.row as usize),
            Some(i)
        );
    }
    let given = DeviceOptions {
        input: DeviceInput::Given {
            scale: 0.1,
            zero_point: 0,
        },
        ..ALL
    };
    let error = job.device_head(&given).unwrap_err();
    assert!(error.to_string().contains("several parts"), "{error}");
}

/// A job of one class: nothing to tell apart, but what is unlike it.
#[test]
fn a_job_of_good_parts_only_finds_strangers() {
    let data = Data::clusters(68, &[30, 10], 24, 0.6);
    let mut job = Job::new(crate::common::encoder(24));
    let good = job.add_class("good").unwrap();
    for row in &data.rows[..25] {
        job.add_sample(good, row, Default::default()).unwrap();
    }
    job.fit(&FitOptions::default()).unwrap();
    let device = job.device_head(&ALL).unwrap();
    let image = HeadImage::parse(&device.image).unwrap();
    for row in &data.rows[25..] {
        let mut values = vec![0; 24];
        image
            .quantise(&job.device_embedding(row).unwrap(), &mut values)
            .unwrap();
        let (own, verdict) = (job.inspect(row).unwrap(), image.inspect(&values).unwrap());
        assert_eq!((verdict.unknown, verdict.score), (own.unknown, 1 << 15));
    }
}
