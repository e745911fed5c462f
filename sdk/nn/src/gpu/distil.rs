//! DINO's operations on CUDA tensors, see `ops/distil.rs`.

use std::sync::{Mutex, PoisonError};

use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail,
};

use super::losses::{self, Crops};
use super::ops::{Output, machine, view, view_of};
use super::{Kind, Machine, Memory, OrCandle, kernels, machine_of};
use crate::ops::Teacher;

pub(crate) struct UnitRows;

impl CustomOp1 for UnitRows {
    fn name(&self) -> &'static str {
        "unit_rows"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("unit_rows is an operation on CUDA tensors")
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (_, width) = layout.shape().dims2()?;
        let machine = machine_of(&x.device)?;
        let x = view(x, layout)?;
        let y = Output::new(&machine, x.len)?;
        losses::unit_rows(&*machine, x, y.view(), width).or_candle()?;
        Ok((y.storage(&machine), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, width) = x.dims2()?;
        let machine = machine(x)?;
        let (x, grad) = (x.contiguous()?, grad.contiguous()?);
        let dx = Output::new(&machine, x.elem_count())?;
        let (xv, gv) = (view_of(&x)?, view_of(&grad)?);
        losses::unit_rows_grad(&*machine, xv, gv, dx.view(), width).or_candle()?;
        Ok(Some(dx.tensor(&machine, x.shape())))
    }
}

pub(crate) fn teacher(logits: &Tensor, centre: &[f32], by: f32) -> Result<Teacher> {
    let machine = machine(logits)?;
    let logits = logits.contiguous()?;
    let x = view_of(&logits)?;
    let bytes: Vec<u8> = centre.iter().flat_map(|v| v.to_ne_bytes()).collect();
    let there = machine.upload(Kind::F32, &bytes).or_candle()?;
    let targets = Output::new(&machine, x.len)?;
    let entropy = losses::teacher_rows(&*machine, x, there.view, by, targets.view()).or_candle()?;
    let sums = machine.alloc(Kind::F32, centre.len()).or_candle()?;
    kernels::column_sums(&*machine, x, sums.view, false).or_candle()?;
    let entropies = machine.download(entropy.view).or_candle()?;
    let total: f64 = entropies.iter().map(|&v| f64::from(v)).sum();
    Ok(Teacher {
        targets: targets.tensor(&machine, logits.shape()),
        entropy: total / entropies.len() as f64,
        column_sums: machine
            .download(sums.view)
            .or_candle()?
            .into_iter()
            .map(f64::from)
            .collect(),
    })
}

struct CrossEntropy {
    crops: Crops,
    by: f32,
    factor: f32,
    log_sums: Mutex<Option<Memory>>,
}

pub(crate) fn cross_entropy(
    student: &Tensor,
    teacher: &Tensor,
    globals: usize,
    temperature: f64,
) -> Result<Tensor> {
    let (student_rows, width) = student.dims2()?;
    let (teacher_rows, teacher_width) = teacher.dims2()?;
    let batch = teacher_rows / globals.max(1);
    if batch == 0
        || !teacher_rows.is_multiple_of(globals)
        || !student_rows.is_multiple_of(batch)
        || student_rows <= teacher_rows.min(batch)
        || width != teacher_width
    {
        bail!(
            "student {:?} and teacher {:?} do not hold crops of one batch",
            student.dims(),
            teacher.dims()
        )
    }
    let views = student_rows / batch;
    let pairs = (0..globals)
        .map(|q| views - usize::from(q < views))
        .sum::<usize>();
    let op = CrossEntropy {
        crops: Crops {
            batch,
            globals,
            width,
        },
        by: (1.0 / temperature) as f32,
        factor: (1.0 / (pairs * batch) as f64) as f32,
        log_sums: Mutex::new(None),
    };
    student
        .contiguous()?
        .apply_op2(&teacher.contiguous()?.detach(), op)
}

impl CustomOp2 for CrossEntropy {
    fn name(&self) -> &'static str {
        "crops_cross_entropy"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        bail!("crops_cross_entropy is an operation on CUDA tensors")
    }

    fn cuda_fwd(
        &self,
        student: &CudaStorage,
        sl: &Layout,
        teacher: &CudaStorage,
        tl: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let machine = machine_of(&student.device)?;
        let loss = Output::new(&machine, 1)?;
        let views = [view(student, sl)?, view(teacher, tl)?];
        let log_sums = losses::cross_entropy(
            &*machine,
            views,
            self.crops,
            self.by,
            self.factor,
            loss.view(),
        )
        .or_candle()?;
        *self.log_sums.lock().unwrap_or_else(PoisonError::into_inner) = Some(log_sums);
        Ok((loss.storage(&machine), Shape::from(())))
    }

    fn bwd(
        &self,
        student: &Tensor,
        teacher: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let machine = machine(student)?;
        let grad = grad.contiguous()?;
        let out = Output::new(&machine, student.elem_count())?;
        let log_sums = self.log_sums.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(log_sums) = &*log_sums else {
            bail!("crops_cross_entropy: a gradient before the loss")
        };
        let views = [view_of(student)?, view_of(teacher)?];
        let at = losses::CrossEntropyGrad {
            log_sums: log_sums.view,
            upstream: view_of(&grad)?,
        };
        losses::cross_entropy_grad(
            &*machine,
            views,
            self.crops,
            [self.by, self.factor],
            &at,
            out.view(),
        )
        .or_candle()?;
        Ok((Some(out.tensor(&machine, student.shape())), None))
    }
}
