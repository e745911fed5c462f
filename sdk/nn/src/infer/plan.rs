//! The memory of a pass and the tasks that it is cut into.
//!
//! A task is some rows (tokens) of one image. Phase 0 makes tokens of patches; phase p > 0 runs block p - 1 from its attention to its end. Each phase
//! ends with the norm, queries, keys and values of the next block, or with the final norm. Keys and values have two buffers in turns, so that a task
//! may write the next block's while others still read this block's.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Stop;
use super::attention::scatter;
use super::buffer::{Aligned, Shared};
use super::layer::{Rows, Target};
use super::quantise::Quantised;
use super::team::Team;
use super::vit::{Model, Norm};
use crate::Error;
use crate::ops::layer_norm::norm_rows;

/// Rows of a task at most: enough for a layer's weights to be read from far away rarely, little enough for the near cache.
const TASK_ROWS: usize = 64;

/// Distance beyond a row's values, so that rows do not fall on the same cache sets.
const GAP: usize = 16;

/// Memory that every pass uses again.
pub(super) struct Workspace {
    images: usize,
    /// Tokens, `[image][T][D]`.
    tokens: Aligned<f32>,
    /// Queries, as the tokens.
    queries: Aligned<f32>,
    /// Transposed keys, `[image]` of [`super::attention::Heads::keys_len`].
    keys: [Aligned<f32>; 2],
    /// Values, `[image]` of [`super::attention::Heads::values_len`].
    values: [Aligned<f32>; 2],
    /// One for each thread, which alone locks it.
    scratch: Vec<Mutex<Scratch>>,
    /// Tasks of each phase that were taken.
    taken: Vec<AtomicUsize>,
    rows: usize,
}

/// Where one thread works.
struct Scratch {
    /// `[rows, D + GAP]`, or patches where those are wider.
    narrow: Aligned<f32>,
    narrow_stride: usize,
    /// `[rows, max(3 D, hidden) + GAP]`.
    wide: Aligned<f32>,
    wide_stride: usize,
    scores: Aligned<f32>,
    quantised: Quantised,
}

/// Where the tokens go.
pub(super) struct Outputs<'a> {
    pub(super) cls: &'a mut [f32],
    pub(super) patches: &'a mut [f32],
}

/// What all threads see of a pass.
struct Pass<'a> {
    model: &'a Model,
    images: &'a [f32],
    tokens: Shared<'a, f32>,
    queries: Shared<'a, f32>,
    keys: [Shared<'a, f32>; 2],
    values: [Shared<'a, f32>; 2],
    cls: Shared<'a, f32>,
    patches: Shared<'a, f32>,
    tasks_per_image: usize,
}

/// Rows of one image.
#[derive(Clone, Copy)]
struct Task {
    image: usize,
    first: usize,
    rows: usize,
}

impl Workspace {
    /// # Errors
    /// Memory that is refused.
    pub(super) fn new(model: &Model, images: usize, threads: usize) -> Result<Self, Error> {
        let heads = &model.heads;
        let rows = heads.tokens.min(TASK_ROWS);
        let reserve = |len: usize| Aligned::zeroed(images.saturating_mul(len));
        let pair = |len: usize| Ok::<_, Error>([reserve(len)?, reserve(len)?]);
        let scratch = || {
            let narrow_stride = model.dim.max(model.embed.k) + GAP;
            let wide_stride = model.hidden.max(3 * model.dim) + GAP;
            Ok::<_, Error>(Mutex::new(Scratch {
                narrow: Aligned::zeroed(rows * narrow_stride)?,
                narrow_stride,
                wide: Aligned::zeroed(rows * wide_stride)?,
                wide_stride,
                scores: Aligned::zeroed(heads.scores_len(rows))?,
                quantised: Quantised::new(rows, model.hidden.max(model.dim), model.kernels.form)?,
            }))
        };
        Ok(Self {
            images,
            tokens: reserve(heads.tokens * model.dim)?,
            queries: reserve(heads.tokens * model.dim)?,
            keys: pair(heads.keys_len())?,
            values: pair(heads.values_len())?,
            scratch: (0..threads).map(|_| scratch()).collect::<Result<_, _>>()?,
            taken: (0..=model.blocks.len())
                .map(|_| AtomicUsize::new(0))
                .collect(),
            rows,
        })
    }

    pub(super) fn images(&self) -> usize {
        self.images
    }

    pub(super) fn bytes(&self) -> usize {
        let shared = [&self.tokens, &self.queries];
        let shared = shared.into_iter().chain(&self.keys).chain(&self.values);
        let scratch = self.scratch.iter().map(|scratch| {
            let scratch = scratch.lock().unwrap_or_else(PoisonError::into_inner);
            let floats = [&scratch.narrow, &scratch.wide, &scratch.scores];
            floats.into_iter().map(|b| size_of_val(&**b)).sum::<usize>() + scratch.quantised.bytes()
        });
        shared.map(|b| size_of_val(&**b)).sum::<usize>() + scratch.sum::<usize>()
    }

    /// Runs the encoder on `images`, as many as there is memory for or fewer, until `stop` says so.
    ///
    /// # Errors
    /// The blocks that were done when it was stopped; the outputs are then unfinished, and nothing of them is in the next pass.
    pub(super) fn run(
        &mut self,
        model: &Model,
        team: &Team,
        images: &[f32],
        out: Outputs<'_>,
        stop: Option<&Stop<'_>>,
    ) -> Result<(), usize> {
        let count = out.cls.len() / model.dim;
        let tokens = model.heads.tokens;
        // A multiple of the threads for a single image, so that none waits for the last task.
        let parts = if count == 1 { team.members() } else { 1 };
        let tasks_per_image = tokens
            .div_ceil(self.rows)
            .next_multiple_of(parts)
            .min(tokens);
        let Self {
            tokens,
            queries,
            keys: [keys0, keys1],
            values: [values0, values1],
            scratch,
            taken,
            ..
        } = self;
        let pass = Pass {
            model,
            images,
            tokens: tokens.share(),
            queries: queries.share(),
            keys: [keys0.share(), keys1.share()],
            values: [values0.share(), values1.share()],
            cls: Shared::of(out.cls),
            patches: Shared::of(out.patches),
            tasks_per_image,
        };
        taken.iter().for_each(|t| t.store(0, Ordering::Relaxed));
        let (taken, scratch) = (&*taken, &*scratch);
        let (stopped, reached) = (AtomicBool::new(false), AtomicUsize::new(0));
        // Asked with a task in hand: who is told to stop leaves that task undone, and the pass is unfinished.
        let ask = || stop.is_some_and(|stop| stop());
        let is_over =
            || stopped.fetch_or(ask(), Ordering::Relaxed) || stopped.load(Ordering::Relaxed);
        team.run(&|member, gate| {
            let mut scratch = scratch[member]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            for (phase, taken) in taken.iter().enumerate() {
                reached.store(phase, Ordering::Relaxed);
                loop {
                    let task = taken.fetch_add(1, Ordering::Relaxed);
                    if task >= count * tasks_per_image || is_over() {
                        break;
                    }
                    pass.work(phase, pass.task(task), &mut scratch);
                }
                // Another thread's panic reaches the caller through the team.
                if phase < model.blocks.len()
                    && gate.wait(|| stopped.load(Ordering::Relaxed)).is_err()
                {
                    return;
                }
            }
        });
        let blocks = reached.into_inner().saturating_sub(1);
        if stopped.into_inner() {
            Err(blocks)
        } else {
            Ok(())
        }
    }
}

impl Pass<'_> {
    fn task(&self, index: usize) -> Task {
        let (parts, tokens) = (self.tasks_per_image, self.model.heads.tokens);
        let (image, part) = (index / parts, index % parts);
        let (first, end) = (part * tokens / parts, (part + 1) * tokens / parts);
        Task {
            image,
            first,
            rows: end - first,
        }
    }

    fn work(&self, phase: usize, task: Task, scratch: &mut Scratch) {
        let model = self.model;
        let start = (task.image * model.heads.tokens + task.first) * model.dim;
        let range = start..start + task.rows * model.dim;
        // SAFETY: a task's rows are its own, and each task of a phase is taken once.
        let tokens = unsafe { self.tokens.write(range.clone()) };
        // SAFETY: as above.
        let queries = unsafe { self.queries.write(range) };
        match phase.checked_sub(1) {
            None => self.embed(task, tokens, scratch),
            Some(block) => self.block(block, task, tokens, queries, scratch),
        }
        match model.blocks.get(phase) {
            Some(_) => self.queries_keys_values(phase, task, tokens, queries, scratch),
            None => self.finish(task, tokens, scratch),
        }
    }

    /// Patches to tokens.
    fn embed(&self, task: Task, tokens: &mut [f32], scratch: &mut Scratch) {
        let model = self.model;
        let table = &model.table[task.first * model.dim..][..tokens.len()];
        tokens.copy_from_slice(table);
        let prefix = model.n_prefix.saturating_sub(task.first).min(task.rows);
        let first = task.first + prefix - model.n_prefix;
        let count = task.rows - prefix;
        let [height, width] = model.size;
        let image = &self.images[task.image * 3 * height * width..][..3 * height * width];
        for row in 0..count {
            let to = &mut scratch.narrow[row * scratch.narrow_stride..][..model.embed.k];
            copy_patch(image, model.size, model.patch, first + row, to);
        }
        let patches = Rows {
            data: &scratch.narrow,
            stride: scratch.narrow_stride,
            count,
        };
        let mut target = Target {
            data: &mut tokens[prefix * model.dim..],
            stride: model.dim,
            add: true,
        };
        model
            .embed
            .apply(&model.kernels, patches, &mut scratch.quantised, &mut target);
    }

    /// A block without its first norm and its queries, keys and values.
    fn block(
        &self,
        index: usize,
        task: Task,
        tokens: &mut [f32],
        queries: &[f32],
        scratch: &mut Scratch,
    ) {
        let (model, block) = (self.model, &self.model.blocks[index]);
        let (kernels, heads, dim) = (&model.kernels, &model.heads, model.dim);
        let (keys, values) = (heads.keys_len(), heads.values_len());
        let source = index % 2;
        // SAFETY: this phase writes to the other pair of buffers, and the gate lies between the phases.
        let keys = unsafe { self.keys[source].read(task.image * keys..(task.image + 1) * keys) };
        // SAFETY: as above.
        let values =
            unsafe { self.values[source].read(task.image * values..(task.image + 1) * values) };
        let Scratch {
            narrow,
            narrow_stride,
            wide,
            wide_stride,
            scores,
            quantised,
        } = scratch;
        let (narrow_stride, wide_stride, count) = (*narrow_stride, *wide_stride, task.rows);
        let mut attended = Target {
            data: narrow,
            stride: narrow_stride,
            add: false,
        };
        heads.attend(kernels, queries, keys, values, scores, &mut attended);
        let mut onto_tokens = Target {
            data: tokens,
            stride: dim,
            add: true,
        };
        block.proj.apply(
            kernels,
            rows(narrow, narrow_stride, count),
            quantised,
            &mut onto_tokens,
        );
        model.norm_rows(&block.norm2, onto_tokens.data, narrow, narrow_stride);
        let mut hidden = Target {
            data: wide,
            stride: wide_stride,
            add: false,
        };
        block.fc1.apply(
            kernels,
            rows(narrow, narrow_stride, count),
            quantised,
            &mut hidden,
        );
        for row in hidden.data.chunks_exact_mut(wide_stride).take(count) {
            model.gelu.in_place(&mut row[..model.hidden]);
        }
        block.fc2.apply(
            kernels,
            rows(wide, wide_stride, count),
            quantised,
            &mut onto_tokens,
        );
    }

    fn queries_keys_values(
        &self,
        index: usize,
        task: Task,
        tokens: &[f32],
        queries: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let (model, block) = (self.model, &self.model.blocks[index]);
        let (heads, dim) = (&model.heads, model.dim);
        let Scratch {
            narrow,
            narrow_stride,
            wide,
            wide_stride,
            quantised,
            ..
        } = scratch;
        model.norm_rows(&block.norm1, tokens, narrow, *narrow_stride);
        let normed = Rows {
            data: narrow,
            stride: *narrow_stride,
            count: task.rows,
        };
        let mut qkv = Target {
            data: wide,
            stride: *wide_stride,
            add: false,
        };
        block.qkv.apply(&model.kernels, normed, quantised, &mut qkv);
        for (to, from) in queries
            .chunks_exact_mut(dim)
            .zip(qkv.data.chunks_exact(qkv.stride))
        {
            to.copy_from_slice(&from[..dim]);
        }
        let keys = task.image * heads.keys_len() + task.first;
        let values = task.image * heads.values_len() + task.first * heads.width;
        let to = index % 2;
        scatter(
            heads,
            qkv.data,
            qkv.stride,
            task.rows,
            |channel| {
                let start = keys + channel * heads.padded();
                // SAFETY: these tokens' part of a channel is this task's; readers of this pair come after the gate.
                unsafe { self.keys[to].write(start..start + task.rows) }
            },
            |head| {
                let start = values + head * heads.tokens * heads.width;
                // SAFETY: as above.
                unsafe { self.values[to].write(start..start + task.rows * heads.width) }
            },
        );
    }

    /// The final norm, to where the tokens go.
    fn finish(&self, task: Task, tokens: &[f32], scratch: &mut Scratch) {
        let model = self.model;
        let (dim, stride) = (model.dim, scratch.narrow_stride);
        model.norm_rows(&model.norm, tokens, &mut scratch.narrow, stride);
        for (row, from) in scratch
            .narrow
            .chunks_exact(stride)
            .take(task.rows)
            .enumerate()
        {
            let token = task.first + row;
            let to = match token.checked_sub(model.n_prefix) {
                None if token > 0 => continue,
                None => (&self.cls, task.image * dim),
                Some(patch) => (
                    &self.patches,
                    (task.image * model.n_patches() + patch) * dim,
                ),
            };
            // SAFETY: a token's place is its task's alone.
            let out = unsafe { to.0.write(to.1..to.1 + dim) };
            out.copy_from_slice(&from[..dim]);
        }
    }
}

fn rows(data: &[f32], stride: usize, count: usize) -> Rows<'_> {
    Rows {
        data,
        stride,
        count,
    }
}

impl Model {
    fn norm_rows(&self, norm: &Norm, x: &[f32], y: &mut [f32], stride: usize) {
        norm_rows(x, &norm.weight, &norm.bias, y, stride, self.eps);
    }
}

/// Pixels of one patch of `image [3, H, W]` in (channel, row, column) order.
fn copy_patch(
    image: &[f32],
    [height, width]: [usize; 2],
    patch: usize,
    index: usize,
    to: &mut [f32],
) {
    let (top, left) = (
        index / (width / patch) * patch,
        index % (width / patch) * patch,
    );
    for (line, to) in to.chunks_exact_mut(patch).enumerate() {
        let (channel, row) = (line / patch, line % patch);
        let start = (channel * height + top + row) * width + left;
        to.copy_from_slice(&image[start..start + patch]);
    }
}
