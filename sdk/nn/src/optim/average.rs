//! AdamW and the moving average of its weights in one pass.

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, Layout, Result, Tensor};
use rayon::prelude::*;

use super::rule::{AdamWOp, Rates};
use super::{AdamW, BLOCK, Update, slice, slice_mut};
use crate::ema::{self, Ema};
use crate::ops::is_composed;
use crate::params::Params;

impl AdamW {
    /// [`AdamW::step`], and then [`ema`](crate::ema::ema()) of the new `params` into `teacher` with momentum `m`. On the CPU a block of
    /// weights is averaged while it is in the cache; the bits are those of one after the other.
    ///
    /// # Errors
    /// Those of both; nothing has changed then.
    pub fn step_and_average(
        &mut self,
        params: &Params,
        grads: &GradStore,
        update: &Update,
        teacher: &Params,
        m: f64,
    ) -> Result<()> {
        let pairs = ema::pairs(teacher, params)?;
        if !params.device().is_cpu() || is_composed(params.device()) {
            self.step(params, grads, update)?;
            return ema::ema(teacher, params, m);
        }
        let rates = Rates::of(self.config, update);
        let average = Ema::new(m);
        let mut work = self.work(params, grads, update)?;
        let together = pairs.into_iter().map(|(name, teacher, student)| {
            let found = work.iter().position(|(of, _)| *of == name);
            (teacher, student, found.map(|i| work.swap_remove(i).1))
        });
        let together: Vec<_> = together.collect();
        together
            .into_par_iter()
            .try_for_each(|(teacher, student, work)| match work {
                None => teacher.inplace_op2(student, &average),
                Some((param, slot, grad, factor)) => teacher.inplace_op1(&Both {
                    average: &average,
                    update: AdamWOp::new(rates, param, slot, factor),
                    weights: param.var.as_tensor(),
                    grad: grad.contiguous()?,
                }),
            })?;
        // What the teacher lacks.
        work.into_par_iter()
            .try_for_each(|(_, (param, slot, grad, factor))| {
                let op = AdamWOp::new(rates, param, slot, factor);
                param.var.inplace_op2(&grad.contiguous()?, &op)
            })
    }
}

/// Changes a teacher's parameter, and before it, block by block, the student's.
struct Both<'a> {
    average: &'a Ema,
    update: AdamWOp<'a>,
    weights: &'a Tensor,
    grad: Tensor,
}

/// The student's side, with the teacher's values at hand.
struct Inner<'a, 'b> {
    both: &'b Both<'a>,
    teacher: std::cell::RefCell<&'b mut [f32]>,
}

impl InplaceOp1 for Both<'_> {
    fn name(&self) -> &'static str {
        "adamw_and_ema"
    }

    fn cpu_fwd(&self, teacher: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let inner = Inner {
            both: self,
            teacher: std::cell::RefCell::new(slice_mut(teacher, layout)?),
        };
        self.weights.inplace_op2(&self.grad, &inner)
    }
}

impl InplaceOp2 for Inner<'_, '_> {
    fn name(&self) -> &'static str {
        "adamw_and_ema"
    }

    fn cpu_fwd(
        &self,
        weights: &mut CpuStorage,
        weights_layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> Result<()> {
        let weights = slice_mut(weights, weights_layout)?;
        let grad = slice(grad, grad_layout)?;
        let teacher = &mut **self.teacher.borrow_mut();
        let (first, second) = &mut *self.both.update.moments.borrow_mut();
        let (coefficients, average) = (self.both.update.coefficients, self.both.average);
        weights
            .par_chunks_mut(BLOCK)
            .zip(grad.par_chunks(BLOCK))
            .zip(first.par_chunks_mut(BLOCK))
            .zip(second.par_chunks_mut(BLOCK))
            .zip(teacher.par_chunks_mut(BLOCK))
            .for_each(|((((w, g), m), v), t)| {
                coefficients.apply(w, g, m, v);
                average.apply(t, w);
            });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::optim::AdamWConfig;

    /// A large parameter, one without gradient, one that is frozen, one that the teacher lacks.
    const NAMES: [&str; 4] = ["weight", "unused", "frozen", "student.only"];

    fn params(names: &[&str], offset: f32) -> Params {
        let mut params = Params::new();
        for (k, name) in names.iter().enumerate() {
            let values: Vec<f32> = (0..40_000)
                .map(|i| ((i + k) as f32 * 0.7 + offset).sin())
                .collect();
            let var = Var::from_slice(&values, 40_000, &Device::Cpu).unwrap();
            params.insert(name, var, k % 2 == 0).unwrap();
        }
        params
    }

    fn bits(params: &Params) -> Vec<Vec<u32>> {
        let values = params.iter().map(|(_, p)| p.var.to_vec1::<f32>().unwrap());
        values
            .map(|v| v.iter().map(|x| x.to_bits()).collect())
            .collect()
    }

    fn run(fused: bool, m: f64) -> [Vec<Vec<u32>>; 2] {
        let (student, teacher) = (params(&NAMES, 0.3), params(&NAMES[..3], 0.1));
        let mut optimiser = AdamW::new(&student, AdamWConfig::default()).unwrap();
        for _ in 0..4 {
            let squares = NAMES.iter().filter(|name| **name != "unused").map(|name| {
                let var = &student.get(name).unwrap().var;
                var.sqr().unwrap().sum_all().unwrap()
            });
            let loss = squares.reduce(|a, b| (a + b).unwrap()).unwrap();
            let grads = crate::backward(&loss).unwrap();
            let update = Update {
                lr: 1e-2,
                weight_decay: 0.1,
                factor: &|name| (name != "frozen").then_some(0.5),
            };
            if fused {
                let done = optimiser.step_and_average(&student, &grads, &update, &teacher, m);
                done.unwrap();
            } else {
                optimiser.step(&student, &grads, &update).unwrap();
                ema::ema(&teacher, &student, m).unwrap();
            }
        }
        [bits(&student), bits(&teacher)]
    }

    #[test]
    fn gives_the_bits_of_one_after_the_other() {
        for m in [0.9, 1.0] {
            assert_eq!(run(true, m), run(false, m));
        }
    }

    #[test]
    fn what_does_not_fit_is_named_and_nothing_changes() {
        let (student, teacher) = (params(&NAMES[..1], 0.3), params(&["other"], 0.1));
        let mut optimiser = AdamW::new(&student, AdamWConfig::default()).unwrap();
        let loss = student.get("weight").unwrap().var.sqr().unwrap();
        let grads = crate::backward(&loss.sum_all().unwrap()).unwrap();
        let update = Update {
            lr: 0.1,
            weight_decay: 0.1,
            factor: &|_| Some(1.0),
        };
        let before = bits(&student);
        let error = optimiser.step_and_average(&student, &grads, &update, &teacher, 0.9);
        assert!(error.unwrap_err().to_string().contains("`other`"));
        assert_eq!(bits(&student), before);
    }
}
