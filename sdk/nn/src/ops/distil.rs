//! What DINO computes on logits, where [`has_losses`](super::has_losses) holds; on the CPU its crate has kernels of its own.

#[cfg(not(feature = "cuda"))]
use candle_core::bail;
use candle_core::{D, Result, Tensor};

use super::is_composed;

/// Added to a sum of squares: its root is the smallest norm that is divided by.
const SMALLEST_SQUARE: f64 = 1e-24;

/// The teacher's side of a step.
pub struct Teacher {
    /// Probabilities, `[R, K]`.
    pub targets: Tensor,
    /// Mean entropy of the rows, in nats.
    pub entropy: f64,
    /// Sums of the logits' columns, `[K]`.
    pub column_sums: Vec<f64>,
}

#[cfg(not(feature = "cuda"))]
fn unavailable<T>(tensor: &Tensor) -> Result<T> {
    bail!(
        "a tensor on {:?} cannot be computed on in this build",
        tensor.device()
    )
}

/// Each row of `x [R, D]` over its Euclidean norm, at least 1e-12.
pub fn unit_rows(x: &Tensor) -> Result<Tensor> {
    if is_composed(x.device()) {
        return unit_rows_reference(x);
    }
    #[cfg(feature = "cuda")]
    return x.contiguous()?.apply_op1(crate::gpu::distil::UnitRows);
    #[cfg(not(feature = "cuda"))]
    unavailable(x)
}

/// The same in plain tensors; a norm near 1e-12 is blended into it.
pub fn unit_rows_reference(x: &Tensor) -> Result<Tensor> {
    let squares = x.sqr()?.sum_keepdim(D::Minus1)?;
    x.broadcast_div(&(squares + SMALLEST_SQUARE)?.sqrt()?)
}

/// `softmax((logits - centre) * inverse_temperature)` of every row of `logits [R, K]`.
pub fn teacher_softmax(
    logits: &Tensor,
    centre: &[f32],
    inverse_temperature: f32,
) -> Result<Teacher> {
    #[cfg(feature = "cuda")]
    return crate::gpu::distil::teacher(logits, centre, inverse_temperature);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = (centre, inverse_temperature);
        unavailable(logits)
    }
}

/// Mean over samples and pairs (teacher crop q, student crop v ≠ q) of `-Σ_k teacher_q[k] log softmax(student_v / temperature)[k]`, for
/// `student [V·B, K]` and `teacher [globals·B, K]`, crop by crop. A scalar; no gradient flows to the teacher.
pub fn crops_cross_entropy(
    student: &Tensor,
    teacher: &Tensor,
    globals: usize,
    temperature: f64,
) -> Result<Tensor> {
    if is_composed(student.device()) {
        return crops_cross_entropy_reference(student, teacher, globals, temperature);
    }
    #[cfg(feature = "cuda")]
    return crate::gpu::distil::cross_entropy(student, teacher, globals, temperature);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = (teacher, globals, temperature);
        unavailable(student)
    }
}

/// The same in plain tensors.
pub fn crops_cross_entropy_reference(
    student: &Tensor,
    teacher: &Tensor,
    globals: usize,
    temperature: f64,
) -> Result<Tensor> {
    let (rows, _) = student.dims2()?;
    let batch = teacher.dim(0)? / globals.max(1);
    let views = rows / batch.max(1);
    if batch == 0 || rows != views * batch || views < globals || teacher.dim(0)? != globals * batch
    {
        candle_core::bail!(
            "student {:?} and teacher {:?} do not hold crops of one batch",
            student.dims(),
            teacher.dims()
        )
    }
    let teacher = teacher.detach();
    let crops = (0..globals).map(|q| teacher.narrow(0, q * batch, batch));
    let crops = crops.collect::<Result<Vec<_>>>()?;
    // What each student row is compared with, summed: [V·B, K].
    let targets = (0..views).map(|v| {
        let others = crops.iter().enumerate().filter(|(q, _)| *q != v);
        let sum = others.map(|(_, crop)| crop.clone());
        sum.map(Ok)
            .reduce(|a, b| a? + b?)
            .unwrap_or_else(|| crops[0].zeros_like())
    });
    let targets = Tensor::cat(&targets.collect::<Result<Vec<_>>>()?, 0)?;
    let logits = (student / temperature)?;
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?;
    let log_softmax = shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)?;
    let terms = globals * (views - 1) * batch;
    (targets * log_softmax)?.sum_all()? / -(terms as f64)
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::super::check::{kernel_equals_reference, random};
    use super::super::composed;
    use super::*;

    /// Every pair of crops for itself.
    fn pairs(student: &Tensor, teacher: &Tensor, batch: usize, temperature: f64) -> Result<Tensor> {
        let views = student.dim(0)? / batch;
        let globals = teacher.dim(0)? / batch;
        let (mut sum, mut terms) = (Tensor::new(0f64, student.device())?, 0.0);
        for q in 0..globals {
            for v in (0..views).filter(|&v| v != q) {
                let s = (student.narrow(0, v * batch, batch)? / temperature)?;
                let normaliser = s.exp()?.sum_keepdim(1)?.log()?;
                let t = teacher.narrow(0, q * batch, batch)?;
                let loss = (t.detach() * s.broadcast_sub(&normaliser)?)?;
                sum = (sum - (loss.sum_all()? / batch as f64)?)?;
                terms += 1.0;
            }
        }
        sum / terms
    }

    #[test]
    fn compositions_equal_definitions_in_f64() -> Result<()> {
        let (batch, views, globals, width) = (3, 5, 2, 37);
        let raw = random(&[globals * batch, width], 2)?.exp()?;
        let teacher = raw.broadcast_div(&raw.sum_keepdim(1)?)?;
        let student = random(&[views * batch, width], 1)?;
        kernel_equals_reference(
            &|a| composed(|| crops_cross_entropy(&a[0], &teacher, globals, 0.1)),
            &|a| pairs(&a[0], &teacher.to_dtype(DType::F64)?, batch, 0.1),
            std::slice::from_ref(&student),
            2e-6,
        )?;
        kernel_equals_reference(
            &|a| composed(|| unit_rows(&a[0])),
            &|a| a[0].broadcast_div(&a[0].sqr()?.sum_keepdim(1)?.sqrt()?),
            std::slice::from_ref(&student),
            2e-6,
        )?;
        let zero = composed(|| unit_rows(&student.zeros_like()?))?;
        assert_eq!(zero.sum_all()?.to_scalar::<f32>()?, 0.0);
        Ok(())
    }

    #[test]
    fn crops_that_do_not_belong_together_are_an_error() -> Result<()> {
        let (student, teacher) = (random(&[5, 4], 1)?, random(&[4, 4], 2)?);
        composed(|| assert!(crops_cross_entropy(&student, &teacher, 2, 0.1).is_err()));
        Ok(())
    }
}
