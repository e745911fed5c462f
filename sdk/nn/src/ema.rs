//! Exponential moving average of parameters.

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, Var, bail};
use rayon::prelude::*;

use crate::ops::is_composed;
use crate::optim::{BLOCK, slice, slice_mut};
use crate::params::{Param, Params};

/// `teacher = m * teacher + (1 - m) * student` for every parameter of `teacher`, in place, in f32.
///
/// The student may have more parameters; one that the teacher has and the student lacks, or of another shape, is an
/// error that names it. Computed as `teacher + (1 - m) * (student - teacher)`, which is exact for equal values and for
/// `m` = 1.
pub fn ema(teacher: &Params, student: &Params, m: f64) -> Result<()> {
    let op = Ema::new(m);
    #[cfg(feature = "cuda")]
    let mut on_gpu = Vec::new();
    for (_, teacher, student) in pairs(teacher, student)? {
        #[cfg(feature = "cuda")]
        if teacher.device().is_cuda() {
            on_gpu.push((teacher.as_tensor(), student));
            continue;
        }
        if is_composed(teacher.device()) {
            let before = teacher.as_detached_tensor();
            let change = (student.detach() - &before)?;
            teacher.set(&(before + (change * f64::from(op.weight))?)?)?;
            continue;
        }
        teacher.inplace_op2(student, &op)?;
    }
    #[cfg(feature = "cuda")]
    crate::gpu::update::ema(&on_gpu, op.weight)?;
    Ok(())
}

/// Every parameter of `teacher` with the student's of its name.
///
/// # Errors
/// Names one that the student lacks or has in another shape.
pub(crate) fn pairs<'a>(
    teacher: &'a Params,
    student: &'a Params,
) -> Result<Vec<(&'a str, &'a Var, &'a Tensor)>> {
    let pair = |(name, param): (&'a str, &'a Param)| {
        let Some(source) = student.get(name) else {
            bail!("the student has no parameter `{name}` to average into the teacher")
        };
        if source.var.shape() != param.var.shape() {
            bail!(
                "`{name}` is {:?} in the student and {:?} in the teacher",
                source.var.dims(),
                param.var.dims()
            )
        }
        Ok((name, &param.var, source.var.as_tensor()))
    };
    teacher.iter().map(pair).collect()
}

pub(crate) struct Ema {
    weight: f32,
}

impl Ema {
    pub(crate) fn new(m: f64) -> Self {
        Self {
            weight: (1.0 - m) as f32,
        }
    }

    /// Averages one block.
    pub(crate) fn apply(&self, teacher: &mut [f32], student: &[f32]) {
        for (t, s) in teacher.iter_mut().zip(student) {
            *t += self.weight * (*s - *t);
        }
    }
}

impl InplaceOp2 for Ema {
    fn name(&self) -> &'static str {
        "ema"
    }

    fn cpu_fwd(
        &self,
        teacher: &mut CpuStorage,
        teacher_layout: &Layout,
        student: &CpuStorage,
        student_layout: &Layout,
    ) -> Result<()> {
        let teacher = slice_mut(teacher, teacher_layout)?;
        let student = slice(student, student_layout)?;
        teacher
            .par_chunks_mut(BLOCK)
            .zip(student.par_chunks(BLOCK))
            .for_each(|(teacher, student)| self.apply(teacher, student));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor, Var};

    use super::*;

    fn params(values: &[f32]) -> Params {
        let mut params = Params::default();
        let var = Var::from_slice(values, values.len(), &Device::Cpu).unwrap();
        params.insert("w", var, true).unwrap();
        params
    }

    fn values(params: &Params) -> Vec<f32> {
        params.get("w").unwrap().var.to_vec1().unwrap()
    }

    #[test]
    fn averages_in_place_and_is_seen_through_shared_tensors() {
        let (teacher, student) = (params(&[1.0, -2.0, 0.5]), params(&[3.0, 2.0, 0.5]));
        let view: Tensor = teacher.get("w").unwrap().var.as_detached_tensor();
        ema(&teacher, &student, 0.75).unwrap();
        assert_eq!(values(&teacher), [1.5, -1.0, 0.5]);
        assert_eq!(view.to_vec1::<f32>().unwrap(), [1.5, -1.0, 0.5]);
        assert_eq!(values(&student), [3.0, 2.0, 0.5]);
    }

    #[test]
    fn endpoints_are_exact() {
        let (teacher, student) = (params(&[0.1, 0.7]), params(&[0.3, 1e-9]));
        ema(&teacher, &student, 1.0).unwrap();
        assert_eq!(values(&teacher), [0.1, 0.7]);
        ema(&teacher, &student, 0.0).unwrap();
        for (t, s) in values(&teacher).iter().zip(values(&student)) {
            assert!((t - s).abs() <= f32::EPSILON * 0.7);
        }
    }

    #[test]
    fn names_what_does_not_fit() {
        let error = ema(&params(&[1.0]), &Params::default(), 0.9).unwrap_err();
        assert!(error.to_string().contains("`w`"), "{error}");
        let error = ema(&params(&[1.0]), &params(&[1.0, 2.0]), 0.9).unwrap_err();
        assert!(error.to_string().contains("`w`"), "{error}");
    }
}
