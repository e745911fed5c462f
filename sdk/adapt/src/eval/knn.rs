//! Weighted k-NN accuracy as in DINO's `eval_knn.py` (Caron et al. 2021; Wu et al. 2018): features are L2-normalised, the `k` training
//! features with the largest cosine vote for their class with weight `exp(cos / T)`.

use super::LabelledSet;
use crate::blocks;
use crate::error::AdaptError;
use crate::fitted::Confusion;
use crate::support::normalised_rows;

/// Result of [`knn_accuracy`].
#[derive(Clone, Debug, PartialEq)]
pub struct KnnScore {
    /// Share of the validation features whose class wins the vote.
    pub accuracy: f64,
    /// Mean over the classes of that share.
    pub balanced_accuracy: f64,
    /// What every class was taken for.
    pub confusion: Confusion,
}

/// Classifies `val` by the `k` nearest of `train`; DINO uses `k` = 20 and `temperature` = 0.07. Equal cosines go to the earlier training row,
/// equal votes to the lower class.
///
/// Runs in the current rayon pool; memory for each thread: 256 rows of cosines to all of `train`.
///
/// # Errors
///
/// Sets of different dimensions; `k` of 0 or above the training set's size; a temperature that is not above 0.
pub fn knn_accuracy(
    train: &LabelledSet,
    val: &LabelledSet,
    k: usize,
    temperature: f64,
) -> Result<KnnScore, AdaptError> {
    if train.dim != val.dim {
        return Err(AdaptError::Shape {
            what: "dimension of the validation features",
            expected: train.dim,
            got: val.dim,
        });
    }
    if k == 0 || k > train.len() {
        return Err(AdaptError::BadOption {
            name: "k",
            value: k.to_string(),
            range: "from 1 to the number of training images",
        });
    }
    if !(temperature > 0.0 && temperature.is_finite()) {
        return Err(AdaptError::BadOption {
            name: "temperature",
            value: temperature.to_string(),
            range: "above 0 and finite",
        });
    }
    let n_classes = train.n_classes().max(val.n_classes());
    let train_unit = normalised_rows(train.rows(), train.len(), train.dim);
    let val_unit = normalised_rows(val.rows(), val.len(), val.dim);
    let work = |rows: std::ops::Range<usize>| {
        let cosines = val_unit.rows_times_transposed(rows.clone(), &train_unit);
        (0..rows.len())
            .map(|i| vote(cosines.row(i), train.labels, k, temperature, n_classes))
            .collect::<Vec<_>>()
    };
    let predictions = rayon::scope(|_| blocks::map(val.len(), work)).concat();
    let mut confusion = Confusion::new(n_classes);
    for (&label, predicted) in val.labels.iter().zip(predictions) {
        confusion.add(label, predicted);
    }
    let (accuracy, balanced_accuracy) = confusion.accuracies().unwrap_or_default();
    Ok(KnnScore {
        accuracy,
        balanced_accuracy,
        confusion,
    })
}

/// The class with the largest vote of the `k` largest cosines.
fn vote(cosines: &[f32], labels: &[usize], k: usize, temperature: f64, n_classes: usize) -> usize {
    let mut order: Vec<u32> = (0..cosines.len() as u32).collect();
    let by_cosine = |a: &u32, b: &u32| {
        cosines[*b as usize]
            .total_cmp(&cosines[*a as usize])
            .then(a.cmp(b))
    };
    if k < order.len() {
        order.select_nth_unstable_by(k - 1, by_cosine);
        order.truncate(k);
    }
    order.sort_unstable_by(by_cosine);
    let nearest = f64::from(cosines[order[0] as usize]);
    let mut votes = vec![0.0; n_classes];
    for &i in &order {
        // Relative to the nearest one, so that a small temperature does not overflow.
        votes[labels[i as usize]] +=
            ((f64::from(cosines[i as usize]) - nearest) / temperature).exp();
    }
    crate::fitted::argmax(&votes)
}
