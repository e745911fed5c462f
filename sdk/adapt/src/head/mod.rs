//! Heads with a closed form, their leave-one-out scores included.

pub mod discriminant;
pub mod prototype;
pub mod ridge;
pub mod statistics;

/// Candidates for λ: 25 values from 10⁻⁴ to 10⁴ times `unit`, evenly spaced in the logarithm, rising.
///
/// `unit` is [`discriminant::DiscriminantProblem::unit`] or [`ridge::RidgeProblem::unit`].
pub fn lambda_grid(unit: f64) -> Vec<f64> {
    (0..25)
        .map(|i| unit * 10f64.powf(f64::from(i - 12) / 3.0))
        .collect()
}
