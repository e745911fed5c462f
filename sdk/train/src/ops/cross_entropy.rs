//! DINO's loss as one fused operation.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
use ssl_edge_nn::ops::has_losses;

use super::slice;

/// Global crops, which are the teacher's.
const GLOBALS: usize = 2;

/// DINO's loss (Caron et al. 2021, eq. 1-2) in one pass:
/// the mean over samples and over all pairs (teacher global crop q, student crop v), v ≠ q, of
/// `-Σ_k teacher_q[k] · log softmax(student_v / temperature)[k]`.
///
/// `student [V * B, K]` holds logits, crop by crop, the two globals first; `teacher [2 * B, K]` holds probabilities
/// and gets no gradient. Gives a scalar. Softmax and sums are in f32 per element, accumulated in f64.
pub(crate) fn multi_crop_cross_entropy(
    student: &Tensor,
    teacher: &Tensor,
    temperature: f64,
) -> Result<Tensor> {
    if has_losses(student.device()) {
        return ssl_edge_nn::ops::crops_cross_entropy(student, teacher, GLOBALS, temperature);
    }
    let op = CrossEntropy {
        inverse_temperature: (1.0 / temperature) as f32,
    };
    student
        .contiguous()?
        .apply_op2(&teacher.contiguous()?.detach(), op)
}

/// `softmax((logits - centre) * inverse_temperature)` of every row, and the mean entropy of the rows in nats.
pub(crate) fn softmax_rows(
    logits: &[f32],
    centre: &[f32],
    inverse_temperature: f32,
) -> (Vec<f32>, f64) {
    let width = centre.len();
    let mut probabilities = vec![0f32; logits.len()];
    let entropies: Vec<f64> = probabilities
        .par_chunks_exact_mut(width)
        .zip(logits.par_chunks_exact(width))
        .map(|(p, logits)| {
            for ((p, x), c) in p.iter_mut().zip(logits).zip(centre) {
                *p = (x - c) * inverse_temperature;
            }
            let log_sum = log_sum_exp(p);
            let mut entropy = 0.0;
            for p in p.iter_mut() {
                let log = *p - log_sum;
                *p = log.exp();
                entropy -= f64::from(*p) * f64::from(log);
            }
            entropy
        })
        .collect();
    let mean = entropies.iter().sum::<f64>() / entropies.len() as f64;
    (probabilities, mean)
}

fn log_sum_exp(row: &[f32]) -> f32 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|v| f64::from((v - max).exp())).sum();
    max + sum.ln() as f32
}

struct CrossEntropy {
    inverse_temperature: f32,
}

struct CrossEntropyGrad {
    inverse_temperature: f32,
    upstream: f32,
}

/// The sizes of a batch and which teacher rows a student row is compared with.
struct Pairs {
    width: usize,
    batch: usize,
    terms: f64,
}

impl Pairs {
    fn new(student: &Layout, teacher: &Layout) -> Result<Self> {
        let (student_rows, width) = student.shape().dims2()?;
        let (teacher_rows, teacher_width) = teacher.shape().dims2()?;
        let batch = teacher_rows / GLOBALS;
        if batch == 0
            || teacher_rows % GLOBALS != 0
            || student_rows % batch != 0
            || student_rows < teacher_rows
            || width != teacher_width
        {
            bail!(
                "student {:?} and teacher {:?} do not hold crops of one batch",
                student.dims(),
                teacher.dims()
            )
        }
        let views = student_rows / batch;
        let terms = (GLOBALS * (views - 1) * batch) as f64;
        Ok(Self {
            width,
            batch,
            terms,
        })
    }

    fn targets<'a>(&self, teacher: &'a [f32], row: usize) -> impl Iterator<Item = &'a [f32]> {
        let (view, sample) = (row / self.batch, row % self.batch);
        let (width, batch) = (self.width, self.batch);
        (0..GLOBALS)
            .filter(move |&q| q != view)
            .map(move |q| &teacher[(q * batch + sample) * width..][..width])
    }
}

impl CustomOp2 for CrossEntropy {
    fn name(&self) -> &'static str {
        "multi_crop_cross_entropy"
    }

    fn cpu_fwd(
        &self,
        student: &CpuStorage,
        student_layout: &Layout,
        teacher: &CpuStorage,
        teacher_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let pairs = Pairs::new(student_layout, teacher_layout)?;
        let student = slice(student, student_layout)?;
        let teacher = slice(teacher, teacher_layout)?;
        let losses: Vec<f64> = student
            .par_chunks_exact(pairs.width)
            .enumerate()
            .map(|(row, logits)| {
                let scaled: Vec<f32> = logits
                    .iter()
                    .map(|x| x * self.inverse_temperature)
                    .collect();
                let log_sum = log_sum_exp(&scaled);
                let mut loss = 0.0;
                for target in pairs.targets(teacher, row) {
                    for (t, s) in target.iter().zip(&scaled) {
                        loss += f64::from(t * (log_sum - s));
                    }
                }
                loss
            })
            .collect();
        let loss = losses.iter().sum::<f64>() / pairs.terms;
        Ok((CpuStorage::F32(vec![loss as f32]), Shape::from(())))
    }

    fn bwd(
        &self,
        student: &Tensor,
        teacher: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let op = CrossEntropyGrad {
            inverse_temperature: self.inverse_temperature,
            upstream: grad.to_scalar()?,
        };
        Ok((Some(student.apply_op2_no_bwd(teacher, &op)?), None))
    }
}

impl CustomOp2 for CrossEntropyGrad {
    fn name(&self) -> &'static str {
        "multi_crop_cross_entropy_grad"
    }

    /// `(Σ_q |teacher_q|₁ · softmax(student / τ) - Σ_q teacher_q) / (τ · terms)`.
    fn cpu_fwd(
        &self,
        student: &CpuStorage,
        student_layout: &Layout,
        teacher: &CpuStorage,
        teacher_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let pairs = Pairs::new(student_layout, teacher_layout)?;
        let student = slice(student, student_layout)?;
        let teacher = slice(teacher, teacher_layout)?;
        let scale = f64::from(self.inverse_temperature) * f64::from(self.upstream) / pairs.terms;
        let scale = scale as f32;
        let mut out = vec![0f32; student.len()];
        out.par_chunks_exact_mut(pairs.width)
            .zip(student.par_chunks_exact(pairs.width))
            .enumerate()
            .for_each(|(row, (out, logits))| {
                for (o, x) in out.iter_mut().zip(logits) {
                    *o = x * self.inverse_temperature;
                }
                let log_sum = log_sum_exp(out);
                let mass: f64 = pairs
                    .targets(teacher, row)
                    .flatten()
                    .map(|&t| f64::from(t))
                    .sum();
                let mass = mass as f32;
                for o in out.iter_mut() {
                    *o = mass * (*o - log_sum).exp();
                }
                for target in pairs.targets(teacher, row) {
                    for (o, t) in out.iter_mut().zip(target) {
                        *o -= t;
                    }
                }
                for o in out.iter_mut() {
                    *o *= scale;
                }
            });
        Ok((CpuStorage::F32(out), student_layout.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{D, DType, Device, Var};

    use super::*;

    fn logits(rows: usize, width: usize, seed: f32) -> Vec<f32> {
        (0..rows * width)
            .map(|i| ((i as f32 + seed) * 2.399).sin())
            .collect()
    }

    fn tensor(values: &[f32], width: usize) -> Tensor {
        Tensor::from_slice(values, (values.len() / width, width), &Device::Cpu).unwrap()
    }

    /// The double loop of DINO's `DINOLoss.forward`, in f64.
    fn reference(student: &Tensor, teacher: &Tensor, batch: usize, temperature: f64) -> Tensor {
        let views = student.dim(0).unwrap() / batch;
        let (mut total, mut terms) = (Tensor::new(0f64, &Device::Cpu).unwrap(), 0.0);
        for q in 0..2 {
            for v in (0..views).filter(|&v| v != q) {
                let s = student
                    .narrow(0, v * batch, batch)
                    .unwrap()
                    .affine(1.0 / temperature, 0.0)
                    .unwrap();
                let log_sum = s
                    .exp()
                    .unwrap()
                    .sum_keepdim(D::Minus1)
                    .unwrap()
                    .log()
                    .unwrap();
                let log_softmax = s.broadcast_sub(&log_sum).unwrap();
                let t = teacher.narrow(0, q * batch, batch).unwrap();
                let ce = (t * log_softmax)
                    .unwrap()
                    .sum(D::Minus1)
                    .unwrap()
                    .neg()
                    .unwrap();
                total = (total + ce.mean_all().unwrap()).unwrap();
                terms += 1.0;
            }
        }
        (total / terms).unwrap()
    }

    #[test]
    fn value_and_gradient_equal_the_f64_double_loop() {
        let (batch, views, width) = (3, 5, 37);
        let (teacher, _) = softmax_rows(
            &logits(2 * batch, width, 7.0),
            &vec![0.1; width],
            1.0 / 0.07,
        );
        let teacher = tensor(&teacher, width);
        let student = Var::from_tensor(&tensor(&logits(views * batch, width, 0.0), width)).unwrap();
        let loss = multi_crop_cross_entropy(&student, &teacher, 0.1).unwrap();
        let grads = loss.affine(3.0, 0.0).unwrap().backward().unwrap();

        let student64 = Var::from_tensor(&student.to_dtype(DType::F64).unwrap()).unwrap();
        let expected = reference(
            &student64,
            &teacher.to_dtype(DType::F64).unwrap(),
            batch,
            0.1,
        );
        let grads64 = expected.affine(3.0, 0.0).unwrap().backward().unwrap();

        let (got, want) = (
            loss.to_scalar::<f32>().unwrap(),
            expected.to_scalar::<f64>().unwrap(),
        );
        assert!((f64::from(got) / want - 1.0).abs() < 1e-6, "{got} {want}");
        let got: Vec<f32> = grads
            .get(&student)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap();
        let want: Vec<f64> = grads64
            .get(&student64)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap();
        let scale = want.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        assert!(scale > 0.0);
        for (got, want) in got.iter().zip(want) {
            assert!(
                (f64::from(*got) - want).abs() < 2e-6 * scale,
                "{got} {want}"
            );
        }
        assert!(grads.get(&teacher).is_none());
    }

    #[test]
    fn zero_logits_give_ln_k() {
        for width in [1024usize, 4096] {
            let zeros = vec![0f32; 4 * width];
            let (teacher, entropy) = softmax_rows(&zeros, &vec![0.0; width], 25.0);
            let student = tensor(&[zeros.clone(), zeros].concat(), width);
            let loss = multi_crop_cross_entropy(&student, &tensor(&teacher, width), 0.1).unwrap();
            let loss = f64::from(loss.to_scalar::<f32>().unwrap());
            let expected = (width as f64).ln();
            assert!(
                (loss - expected).abs() < 1e-5 && (entropy - expected).abs() < 1e-5,
                "{loss} {entropy}"
            );
        }
    }

    #[test]
    fn equal_student_and_teacher_give_the_entropy() {
        let width = 64;
        let one = logits(1, width, 3.0);
        let (teacher, entropy) = softmax_rows(
            &[one.clone(), one.clone()].concat(),
            &vec![0.0; width],
            10.0,
        );
        let student = tensor(&[one.clone(), one.clone(), one].concat(), width);
        let loss = multi_crop_cross_entropy(&student, &tensor(&teacher, width), 0.1).unwrap();
        assert!((f64::from(loss.to_scalar::<f32>().unwrap()) - entropy).abs() < 1e-5);
    }

    #[test]
    fn crops_that_do_not_belong_together_are_an_error() {
        let student = tensor(&[0.0; 5 * 4], 4);
        let teacher = tensor(&[0.25; 4 * 4], 4);
        assert!(multi_crop_cross_entropy(&student, &teacher, 0.1).is_err());
    }
}
