//! What DINO computes on logits, as operations on CUDA tensors; elsewhere its crate has kernels of its own.

#[cfg(not(feature = "cuda"))]
use candle_core::bail;
use candle_core::{Result, Tensor};

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
    #[cfg(feature = "cuda")]
    return x.contiguous()?.apply_op1(crate::gpu::distil::UnitRows);
    #[cfg(not(feature = "cuda"))]
    unavailable(x)
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
    #[cfg(feature = "cuda")]
    return crate::gpu::distil::cross_entropy(student, teacher, globals, temperature);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = (teacher, globals, temperature);
        unavailable(student)
    }
}
