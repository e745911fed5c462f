//! What a job sees of a frame: poolings of the encoder's tokens, and a texture descriptor that needs no encoder.
//!
//! | part | values | what |
//! |---|---|---|
//! | `cls` | D | the class token |
//! | `mean` | D | mean of the patch tokens |
//! | `salient` | D | mean of the tenth of the patch tokens that is least like the frame's own mean: small defects are not averaged away |
//! | `texture` | 203 | HOG and LBP of the pixels ([`texture`]) |
//!
//! Each part has norm 1 (or is zero), so that parts side by side weigh the same.

use crate::Error;
use crate::encoder::{Embedding, Encoder, Limit, Pooling, l2_normalize};
use crate::vision::{Frame, HOG_LBP_LEN, Image, texture};
use ssl_edge_adapt::{Layout, Part};

/// Share of the patch tokens that `salient` averages.
const SALIENT: f64 = 0.1;

/// The parts above; preferred are the bundle's pooling and the texture, side by side.
pub fn layout(encoder: &Encoder) -> Layout {
    let dim = encoder.dim();
    let parts = vec![
        Part::new("cls", dim),
        Part::new("mean", dim),
        Part::new("salient", dim),
        Part::new("texture", HOG_LBP_LEN),
    ];
    let preferred: &[&str] = match encoder.manifest().pooling {
        Pooling::Cls => &["cls", "texture"],
        Pooling::Mean => &["mean", "texture"],
        Pooling::ClsMean => &["cls", "mean", "texture"],
    };
    Layout::new(parts, preferred).expect("the parts differ, and the preferred ones are among them")
}

/// The parts side by side, for a frame whose embedding is at hand.
///
/// # Errors
/// [`Error::UnknownPart`] for a part that this program does not make.
pub fn feature_of_parts(
    embedding: &Embedding,
    frame: &Frame<'_>,
    parts: &[Part],
) -> Result<Vec<f32>, Error> {
    let mut feature = Vec::with_capacity(parts.iter().map(|part| part.dim).sum());
    for part in parts {
        let mut values = match part.name.as_str() {
            "cls" => embedding.cls.clone(),
            "mean" => embedding.mean.clone(),
            "salient" => salient(embedding),
            "texture" => texture(frame),
            _ => {
                return Err(Error::UnknownPart {
                    name: part.name.clone(),
                });
            }
        };
        l2_normalize(&mut values);
        feature.extend(values);
    }
    Ok(feature)
}

/// The parts of each of the [`copies`](crate::augment::copies) of a frame.
///
/// # Errors
/// As [`Encoder::embed_batch`] and [`feature_of_parts`].
pub fn features_of_copies(
    encoder: &Encoder,
    image: &Image,
    parts: &[Part],
) -> Result<Vec<Vec<f32>>, Error> {
    each_copy(encoder, image, &Limit::default(), |embedding, frame| {
        feature_of_parts(embedding, frame, parts)
    })
}

/// What `make` makes of each of the [`copies`](crate::augment::copies) of a frame.
pub(crate) fn each_copy<T>(
    encoder: &Encoder,
    image: &Image,
    limit: &Limit,
    make: impl Fn(&Embedding, &Frame<'_>) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let copies = crate::augment::copies(image);
    let frames: Vec<Frame<'_>> = copies.iter().map(Image::frame).collect();
    let embeddings = encoder.embed_batch_within(&frames, limit)?;
    let pairs = embeddings.iter().zip(&frames);
    pairs
        .map(|(embedding, frame)| make(embedding, frame))
        .collect()
}

/// Mean of the patch tokens with the smallest cosine to the mean patch token, `[D]`.
fn salient(embedding: &Embedding) -> Vec<f32> {
    let dim = embedding.cls.len();
    let cosine = |token: &[f32]| {
        let (mut product, mut square) = (0.0f64, 0.0f64);
        for (t, m) in token.iter().zip(&embedding.mean) {
            product += f64::from(*t) * f64::from(*m);
            square += f64::from(*t).powi(2);
        }
        if square > 0.0 {
            product / square.sqrt()
        } else {
            f64::INFINITY
        }
    };
    let mut order: Vec<(f64, &[f32])> = embedding
        .patches
        .chunks_exact(dim)
        .map(|token| (cosine(token), token))
        .collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let n = ((order.len() as f64 * SALIENT) as usize).max(1);
    let mut sum = vec![0.0f64; dim];
    for (_, token) in &order[..n.min(order.len())] {
        sum.iter_mut()
            .zip(*token)
            .for_each(|(s, t)| *s += f64::from(*t));
    }
    sum.into_iter().map(|s| (s / n as f64) as f32).collect()
}
