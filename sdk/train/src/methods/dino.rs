//! Self-distillation with no labels (Caron et al. 2021, arXiv:2104.14294).
//!
//! A student sees two global and several local crops of an image, a teacher the global ones; the teacher's parameters
//! are a moving average of the student's. With `P_s = softmax(student / tau_s)` and
//! `P_t = softmax((teacher - c) / tau_t)`, the loss is the mean cross-entropy `H(P_t, P_s)` over pairs of different
//! crops. The centre `c` is a moving average of the teacher's mean logits, updated after the loss.
//!
//! Shapes: global crops `[2 * B, 3, S, S]` and local ones `[L * B, 3, s, s]`, crop by crop; logits `[rows, K]`.
//! The exported encoder is the teacher's.
//!
//! Deviation: GELU in encoder and head follows the encoder's configuration (tanh for encoders trained here).

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor};
use rand_chacha::rand_core::Rng;
use serde::{Deserialize, Serialize};
use ssl_edge_nn::ema::ema;
use ssl_edge_nn::ops::{PathFactors, Teacher, teacher_softmax};
use ssl_edge_nn::optim::{AdamW, Update};
use ssl_edge_nn::schedule::{cosine, linear};
use ssl_edge_nn::{Init, Params, Vit, VitConfig};
use ssl_edge_vision::{MultiCrop, stream};

use super::dino_head::{Head, LAST_LAYER};
use super::{Batch, ENCODER, Method, StepContext, init_rng, purpose, redraw, strip};
use crate::checkpoint::Tensors;
use crate::collective::Collective;
use crate::config::rejected;
use crate::error::Result;
use crate::ops::{multi_crop_cross_entropy, softmax_rows};

/// Settings of DINO.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DinoConfig {
    /// Temperature of the student, tau_s.
    pub student_temperature: f64,
    /// Temperature of the teacher at the start, tau_t.
    pub teacher_temperature_start: f64,
    /// Temperature of the teacher after its warm-up.
    pub teacher_temperature: f64,
    /// Part of the run over which the teacher's temperature rises, 0 to 1.
    pub temperature_warmup: f64,
    /// Momentum of the teacher at the start; it rises to 1 along a half cosine.
    pub momentum: f64,
    /// Momentum of the centre.
    pub center_momentum: f64,
    /// Epochs at the start in which the last layer of the head keeps its weights.
    pub freeze_last_layer_epochs: u64,
    /// Largest probability with which a residual branch of the student is dropped; it grows linearly over the blocks.
    pub drop_path: f64,
    /// Shape of the head.
    pub head: HeadConfig,
    /// How crops are made of an image.
    pub crops: MultiCrop,
}

/// Shape of the projection head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadConfig {
    /// Prototypes K.
    pub out_dim: usize,
    /// Width of the two hidden layers.
    pub hidden: usize,
    /// Width of the L2-normalised bottleneck.
    pub bottleneck: usize,
}

/// Student and teacher in training.
pub struct Dino {
    config: DinoConfig,
    student: Network,
    teacher: Network,
    center: Vec<f32>, // [K]
    /// Steps in a row in which the teacher said the same of every image.
    n_collapsed: u32,
    figures: BTreeMap<&'static str, f64>,
}

/// Parameters with the modules that compute on them.
struct Network {
    params: Params,
    encoder: Vit,
    head: Head,
}

impl DinoConfig {
    /// Checks that the settings fit each other.
    pub fn validate(&self) -> Result<()> {
        let fractions = [
            ("temperature_warmup", self.temperature_warmup),
            ("momentum", self.momentum),
            ("center_momentum", self.center_momentum),
        ];
        let temperatures = [
            ("student_temperature", self.student_temperature),
            ("teacher_temperature_start", self.teacher_temperature_start),
            ("teacher_temperature", self.teacher_temperature),
        ];
        let mut message = None;
        for (key, value) in fractions {
            if !(0.0..=1.0).contains(&value) {
                message = Some(format!("dino.{key} is {value}; it must be from 0 to 1"));
            }
        }
        for (key, value) in temperatures {
            if !(value > 0.0 && value.is_finite()) {
                message = Some(format!("dino.{key} is {value}; it must be greater than 0"));
            }
        }
        if !(0.0..1.0).contains(&self.drop_path) {
            message = Some(format!(
                "dino.drop_path is {}; it must be from 0 to below 1",
                self.drop_path
            ));
        }
        let HeadConfig {
            out_dim,
            hidden,
            bottleneck,
        } = self.head;
        if out_dim < 2 || hidden == 0 || bottleneck == 0 {
            message = Some(
                "dino.head: out_dim must be at least 2, hidden and bottleneck at least 1".into(),
            );
        }
        match message {
            Some(message) => Err(rejected(message)),
            None => Ok(()),
        }
    }
}

impl Network {
    fn new(encoder: &VitConfig, params: Params, tensors: &Tensors) -> Result<Self> {
        Ok(Self {
            encoder: Vit::load(encoder, &strip(tensors, ENCODER))?,
            head: Head::over(tensors, encoder.gelu),
            params,
        })
    }

    /// Logits `[rows, K]` of crops at several resolutions: one pass of the encoder for each, one of the head.
    fn forward(&self, views: &[Tensor], paths: &[Vec<PathFactors>]) -> Result<Tensor> {
        let mut tokens = Vec::with_capacity(views.len());
        for (i, view) in views.iter().enumerate() {
            let paths = paths.get(i).map_or(&[][..], Vec::as_slice);
            tokens.push(self.encoder.forward_cls(view, paths)?);
        }
        self.head.forward(&Tensor::cat(&tokens, 0)?)
    }
}

impl Dino {
    /// A student with weights drawn from `seed` as in the paper (linear layers normal 0.02, biases 0) and a teacher
    /// equal to it.
    pub fn new(encoder: &VitConfig, config: &DinoConfig, seed: u64) -> Result<Self> {
        Self::on(&Device::Cpu, encoder, config, seed)
    }

    /// As [`Dino::new`], on a device.
    pub fn on(
        device: &Device,
        encoder: &VitConfig,
        config: &DinoConfig,
        seed: u64,
    ) -> Result<Self> {
        config.validate()?;
        let mut params = Params::on(device);
        let mut rng = init_rng(seed, 0);
        Vit::init(encoder, &mut params, ENCODER, &mut rng)?;
        Head::init(encoder.dim, &config.head, &mut params, &mut rng)?;
        redraw(&params, seed, |_, dims| {
            (dims.len() >= 2).then_some(Init::Normal(0.02))
        })?;
        let teacher = params.deep_clone()?;
        let variables: Tensors = params
            .iter()
            .map(|(name, param)| (name.to_string(), param.var.as_tensor().clone()))
            .collect();
        let constants = teacher.to_map();
        Ok(Self {
            config: config.clone(),
            student: Network::new(encoder, params, &variables)?,
            teacher: Network::new(encoder, teacher, &constants)?,
            center: vec![0.0; config.head.out_dim],
            n_collapsed: 0,
            figures: BTreeMap::new(),
        })
    }

    /// The teacher's temperature of a step.
    pub fn teacher_temperature(&self, ctx: &StepContext) -> f64 {
        let c = &self.config;
        let warmup = (c.temperature_warmup * ctx.steps as f64) as u64;
        linear(
            c.teacher_temperature_start,
            c.teacher_temperature,
            warmup,
            ctx.step,
        )
    }

    /// The teacher's momentum of a step.
    pub fn momentum(&self, ctx: &StepContext) -> f64 {
        cosine(self.config.momentum, 1.0, 0, ctx.steps, 0.0, ctx.step)
    }

    /// Whether the head's last layer keeps its weights in a step.
    fn is_frozen(&self, ctx: &StepContext) -> bool {
        ctx.step < self.config.freeze_last_layer_epochs * ctx.steps_per_epoch
    }

    /// `c = m c + (1 - m) mean(logits)` over rows of `[rows, K]` on all ranks, from the sums of this rank's columns. Gives the mean of `entropy` over the ranks.
    fn update_center(
        &mut self,
        mut sums: Vec<f64>,
        rows: usize,
        entropy: f64,
        ranks: &dyn Collective,
    ) -> Result<f64> {
        sums.push(entropy);
        ranks.all_reduce_sum_f64(&mut sums)?;
        let entropy = sums.pop().unwrap_or(entropy) / ranks.world() as f64;
        let rows = (rows * ranks.world()) as f64;
        let m = self.config.center_momentum;
        for (c, sum) in self.center.iter_mut().zip(sums) {
            *c = (m * f64::from(*c) + (1.0 - m) * sum / rows) as f32;
        }
        Ok(entropy)
    }

    /// For each resolution and block, whether a row's residual branches are kept.
    fn drops(&self, batch: &Batch, ctx: &StepContext) -> Result<Vec<Vec<PathFactors>>> {
        if self.config.drop_path == 0.0 {
            return Ok(Vec::new());
        }
        let depth = self.student.encoder.blocks().len();
        let n_images = batch.samples.len();
        let mut n_views = 0;
        let mut drops = Vec::with_capacity(batch.views.len());
        for crops in &batch.views {
            let rows = crops.dim(0)?;
            let mut paths: Vec<PathFactors> = vec![[Vec::new(), Vec::new()]; depth];
            for row in 0..rows {
                let view = (n_views + row / n_images) as u64;
                let sample = batch.samples[row % n_images] as u64;
                let mut rng = stream(ctx.seed, ctx.step, sample, purpose::DROP_PATH + view);
                for (block, branches) in paths.iter_mut().enumerate() {
                    let rate = self.config.drop_path * block as f64 / (depth - 1).max(1) as f64;
                    for branch in branches {
                        branch.push(keep_factor(rate, &mut rng));
                    }
                }
            }
            n_views += rows / n_images;
            drops.push(paths);
        }
        Ok(drops)
    }
}

impl Method for Dino {
    fn name(&self) -> &'static str {
        "dino"
    }

    fn params(&self) -> &Params {
        &self.student.params
    }

    fn is_trained(&self, name: &str, ctx: &StepContext) -> bool {
        name != LAST_LAYER || !self.is_frozen(ctx)
    }

    fn loss(&mut self, batch: &Batch, ctx: &StepContext) -> Result<Tensor> {
        let globals = &batch.views[..1];
        let teacher = self.teacher.forward(globals, &[])?;
        let temperature = self.teacher_temperature(ctx);
        let Teacher {
            targets,
            entropy,
            column_sums,
        } = teacher_of(&teacher, &self.center, (1.0 / temperature) as f32)?;
        let student = self
            .student
            .forward(&batch.views, &self.drops(batch, ctx)?)?;
        let loss = multi_crop_cross_entropy(&student, &targets, self.config.student_temperature)?;
        let entropy = self.update_center(column_sums, targets.dim(0)?, entropy, ctx.ranks)?;
        let uniform = entropy > UNIFORM * (self.center.len() as f64).ln();
        self.n_collapsed = if uniform { self.n_collapsed + 1 } else { 0 };
        self.figures = BTreeMap::from([
            ("teacher_entropy", entropy),
            ("teacher_temperature", temperature),
        ]);
        Ok(loss)
    }

    /// Weights and teacher in one pass.
    fn update(
        &mut self,
        optimizer: &mut AdamW,
        grads: &GradStore,
        update: &Update<'_>,
        ctx: &StepContext,
    ) -> Result<()> {
        let momentum = self.momentum(ctx);
        self.figures.insert("momentum", momentum);
        let (student, teacher) = (&self.student.params, &self.teacher.params);
        Ok(optimizer.step_and_average(student, grads, update, teacher, momentum)?)
    }

    fn after_step(&mut self, ctx: &StepContext) -> Result<()> {
        let momentum = self.momentum(ctx);
        self.figures.insert("momentum", momentum);
        Ok(ema(&self.teacher.params, &self.student.params, momentum)?)
    }

    fn encoder(&self) -> Tensors {
        strip(&self.teacher.params.to_map(), ENCODER)
    }

    fn state(&self) -> Result<Tensors> {
        let mut state = self.teacher.params.to_map();
        let center = Tensor::from_slice(&self.center, self.center.len(), &Device::Cpu)?;
        state.insert(CENTER.into(), center);
        Ok(state)
    }

    fn restore(&mut self, model: &Tensors, state: &Tensors) -> Result<()> {
        let mut teacher = state.clone();
        let center = match teacher.remove(CENTER) {
            Some(center) if center.dims() == [self.center.len()] => center.to_vec1()?,
            _ => {
                return Err(rejected(format!(
                    "the state of DINO lacks a `{CENTER}` of {} values",
                    self.center.len()
                )));
            }
        };
        self.student.params.assign(model)?;
        self.teacher.params.assign(&teacher)?;
        self.center = center;
        Ok(())
    }

    fn warning(&self) -> Option<String> {
        (self.n_collapsed >= COLLAPSE_STEPS).then(|| {
            let k = self.center.len();
            format!(
                "DINO has collapsed: for {COLLAPSE_STEPS} steps the teacher has said the same of every image (entropy at ln {k} = {:.2}); \
                 lower dino.teacher_temperature or dino.teacher_temperature_start, show more images, or train with --method mae",
                (k as f64).ln()
            )
        })
    }

    fn figures(&self) -> BTreeMap<&'static str, f64> {
        self.figures.clone()
    }
}

/// The teacher's probabilities and what becomes of its centre.
fn teacher_of(logits: &Tensor, center: &[f32], inverse_temperature: f32) -> Result<Teacher> {
    if logits.device().is_cuda() {
        return Ok(teacher_softmax(logits, center, inverse_temperature)?);
    }
    let values: Vec<f32> = logits.flatten_all()?.to_vec1()?;
    let (targets, entropy) = softmax_rows(&values, center, inverse_temperature);
    let mut column_sums = vec![0f64; center.len()];
    for row in values.chunks_exact(center.len()) {
        for (sum, x) in column_sums.iter_mut().zip(row) {
            *sum += f64::from(*x);
        }
    }
    Ok(Teacher {
        targets: Tensor::from_vec(targets, logits.shape(), logits.device())?,
        entropy,
        column_sums,
    })
}

const CENTER: &str = "center";

/// Share of ln K from which the teacher's entropy counts as uniform, and for how many steps before it is called a collapse.
const UNIFORM: f64 = 0.99;
const COLLAPSE_STEPS: u32 = 50;

/// Factor of one image's residual branch: 0 with probability `rate`, else 1 / (1 - rate).
fn keep_factor(rate: f64, rng: &mut impl Rng) -> f32 {
    let uniform = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    if uniform < rate {
        0.0
    } else {
        (1.0 / (1.0 - rate)) as f32
    }
}
