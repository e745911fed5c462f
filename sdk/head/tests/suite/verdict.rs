use crate::common::{Exact, dot, exact, values};
use proptest::prelude::*;
use ssl_edge_head::{HeadImage, InputError};

/// `f64` logits (scores over temperature) of an embedding.
fn logits(head: &Exact, x: &[f64]) -> Vec<f64> {
    let norm = if head.cosine { dot(x, x).sqrt() } else { 1.0 };
    let weights = head.real_weights();
    let rows = weights.chunks(head.dim).zip(head.real_bias());
    let score = |(w, b): (&[f64], f64)| {
        if norm > 0.0 {
            (dot(w, x) + b) / norm
        } else {
            0.0
        }
    };
    rows.map(score)
        .map(|score| score / head.temperature)
        .collect()
}

fn cosine(x: &[f64], y: &[f64]) -> f64 {
    let norms = (dot(x, x) * dot(y, y)).sqrt();
    if norms > 0.0 { dot(x, y) / norms } else { 0.0 }
}

fn with_frame() -> impl Strategy<Value = (Exact, Vec<i8>)> {
    exact().prop_flat_map(|head| {
        let frame = values(head.dim);
        (Just(head), frame)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The integers' only errors are the rounding of the score to Q15 and, for cosines, of the norm.
    #[test]
    fn class_and_scores_are_those_of_f64((head, frame) in with_frame()) {
        let image = head.image();
        let image = HeadImage::parse(&image).unwrap();
        let x = head.embedding(&frame);
        let logits = logits(&head, &x);
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|z| (z - largest).exp()).sum();
        let verdict = image.inspect(&frame).unwrap();
        let scores = image.scores(&frame).unwrap();
        prop_assert_eq!(scores.len(), head.n_classes());
        prop_assert_eq!(verdict.score, scores[usize::from(verdict.class)]);
        prop_assert!(logits[usize::from(verdict.class)] >= largest - 1e-6 * (1.0 + largest.abs()));
        // The norm is rounded down, by less than a unit of v, of which one STEP is 2^8; and z exp(-z) is below 0.37.
        let norm = dot(&x, &x).sqrt() / crate::common::STEP * 256.0;
        let from_norm = if head.cosine { 32768.0 * 0.37 * head.n_classes() as f64 / norm.max(1.0) } else { 0.0 };
        for (score, logit) in scores.iter().zip(&logits) {
            let exact = (logit - largest).exp() / sum * 32768.0;
            prop_assert!((f64::from(*score) - exact).abs() <= 0.51 + from_norm, "{} against {}", score, exact);
        }
    }

    #[test]
    fn unknown_and_nearest_are_those_of_f64((head, frame) in with_frame()) {
        let image = head.image();
        let image = HeadImage::parse(&image).unwrap();
        let x = head.embedding(&frame);
        let cosines: Vec<f64> = head.rows.iter().map(|row| cosine(&x, &head.embedding(row))).collect();
        let largest = cosines.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let verdict = image.inspect(&frame).unwrap();
        let nearest = verdict.nearest.unwrap();
        prop_assert!(cosines[usize::from(nearest.row)] >= largest - 1e-6);
        prop_assert_eq!(image.row(nearest.row.into()).unwrap().0, 1 << 40 | u64::from(nearest.row));
        prop_assert!((f64::from(nearest.similarity) / 32768.0 - largest).abs() < 2.0 / 32768.0);
        if (largest - head.limit).abs() > 1e-6 {
            prop_assert_eq!(verdict.unknown, largest < head.limit, "{} against {}", largest, head.limit);
        }
        let others = cosines.iter().enumerate().filter(|(i, _)| *i != usize::from(nearest.row));
        let second = others.map(|(_, cosine)| *cosine).fold(f64::NEG_INFINITY, f64::max);
        match image.nearest(&frame, Some(nearest.row)).unwrap() {
            Some((other, _)) => prop_assert!((f64::from(other.similarity) / 32768.0 - second).abs() < 2.0 / 32768.0),
            None => prop_assert_eq!(cosines.len(), 1),
        }
    }

    /// Quantising gives back the values that an embedding was made from, and cuts what is outside.
    #[test]
    fn quantising_inverts((head, frame) in with_frame(), far in 128i32..100_000) {
        let image = head.image();
        let image = HeadImage::parse(&image).unwrap();
        let mut x: Vec<f32> = head.embedding(&frame).iter().map(|x| *x as f32).collect();
        let mut out = vec![0; head.dim];
        prop_assert_eq!(image.quantise(&x, &mut out), Ok(0));
        prop_assert_eq!(&out, &frame);
        x[0] = (head.real_centre()[0] - f64::from(far) * crate::common::STEP) as f32;
        prop_assert_eq!(image.quantise(&x, &mut out), Ok(1));
        prop_assert_eq!((out[0], &out[1..]), (-127, &frame[1..]));
        x[0] = f32::NAN;
        prop_assert_eq!(image.quantise(&x, &mut out), Err(InputError::NotFinite { index: 0 }));
    }
}

#[test]
fn a_taught_frame_is_its_own_nearest() {
    use ssl_edge_head::vectors::{DIM, IMAGE_LENGTH, N_SAMPLES, Vectors};
    for cosine in [false, true] {
        let vectors = Vectors::new(3, cosine);
        let mut image = [0; IMAGE_LENGTH];
        vectors.write(&mut image).unwrap();
        let head = HeadImage::parse(&image).unwrap();
        for i in 0..N_SAMPLES {
            let mut frame = [0; DIM];
            assert_eq!(head.quantise(&vectors.sample(i), &mut frame), Ok(0));
            let nearest = head.inspect(&frame).unwrap().nearest.unwrap();
            assert_eq!(usize::from(nearest.row), i);
            assert!(nearest.similarity >= 32767);
        }
    }
}

#[test]
fn an_embedding_of_another_length_is_refused() {
    let image = crate::image::small();
    let head = HeadImage::parse(&image).unwrap();
    for found in [0, head.dim() - 1, head.dim() + 1] {
        let frame = vec![0; found];
        let error = InputError::Length {
            needed: head.dim() as u16,
            found,
        };
        assert_eq!(head.inspect(&frame), Err(error));
        assert_eq!(head.scores(&frame), Err(error));
        assert_eq!(head.nearest(&frame, None), Err(error));
        assert_eq!(
            head.quantise(&vec![0.0; found], &mut vec![0; head.dim()]),
            Err(error)
        );
        assert_eq!(
            head.quantise(&vec![0.0; head.dim()], &mut vec![0; found]),
            Err(error)
        );
    }
}

/// A frame of zeros has no direction: cosine 0 to everything, all classes alike.
#[test]
fn a_frame_of_zeros_is_unknown_and_undecided() {
    let head = Exact {
        dim: 4,
        weights: vec![vec![127, 1, -3, 5]],
        bias: vec![0],
        centre: vec![0; 4],
        rows: vec![vec![1, 2, 3, 4], vec![0; 4]],
        cosine: true,
        temperature: 0.1,
        limit: 0.5,
    };
    let image = head.image();
    let image = HeadImage::parse(&image).unwrap();
    let verdict = image.inspect(&[0; 4]).unwrap();
    assert_eq!(
        (verdict.class, verdict.score, verdict.unknown),
        (0, 16384, true)
    );
    assert_eq!(verdict.nearest.unwrap().similarity, 0);
    let never = Exact {
        limit: -0.5,
        ..head
    };
    assert!(
        !HeadImage::parse(&never.image())
            .unwrap()
            .inspect(&[0; 4])
            .unwrap()
            .unknown
    );
}
