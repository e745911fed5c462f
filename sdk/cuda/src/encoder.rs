//! An encoder on a GPU: memory reserved and passes recorded when it is opened.

use std::collections::HashMap;

use ssl_edge_gpu::encoder::{Buffers, Config, Encoder, Tensors};
use ssl_edge_gpu::{Gelu, Kind};
use ssl_edge_plugin::Refusal;
use ssl_edge_plugin::abi::{GELU_ERF, GELU_TANH, Model, OpenOptions, PRECISION_F16, PRECISION_F32};
use ssl_edge_plugin::guest::{Failure, GuestTensor};

use crate::failure;
use crate::machine::Gpu;
use crate::session::{Graph, Pinned, Session};

/// Most images of a pass.
const MOST_IMAGES: u32 = 256;

/// An opened encoder. Fields are freed in their order: what was recorded before what it works on.
pub(crate) struct Opened {
    /// Passes of 1, 2, … images.
    graphs: Vec<Option<Graph>>,
    input: Pinned,
    output: Pinned,
    buffers: Buffers,
    encoder: Encoder,
    gpu: Gpu,
}

struct Named<'a>(HashMap<&'a str, &'a [f32]>);

impl Tensors for Named<'_> {
    fn get(&self, name: &str) -> Option<&[f32]> {
        self.0.get(name).copied()
    }
}

fn config(model: &Model) -> Result<Config, Failure> {
    let gelu = match model.gelu {
        GELU_TANH => Gelu::Tanh,
        GELU_ERF => Gelu::Erf,
        other => {
            let reason =
                format!("GELU of form {other} is not known to this plug-in; install a newer one");
            return Err(Failure::new(Refusal::Unsupported, reason));
        }
    };
    let config = Config {
        dim: model.dim as usize,
        depth: model.depth as usize,
        heads: model.heads as usize,
        patch: model.patch as usize,
        registers: model.registers as usize,
        hidden: model.hidden as usize,
        image_size: [model.height as usize, model.width as usize],
        gelu,
        eps: model.eps,
    };
    config.validate().map_err(failure)?;
    Ok(config)
}

fn work(options: &OpenOptions) -> Result<Kind, Failure> {
    match options.precision {
        PRECISION_F32 => Ok(Kind::F32),
        PRECISION_F16 => Ok(Kind::F16),
        other => {
            let reason =
                format!("precision {other} is not known to this plug-in; install a newer one");
            Err(Failure::new(Refusal::Unsupported, reason))
        }
    }
}

impl Opened {
    pub(crate) fn new(
        model: &Model,
        tensors: &[GuestTensor<'_>],
        options: &OpenOptions,
    ) -> Result<Self, Failure> {
        let (config, work) = (config(model)?, work(options)?);
        if !(1..=MOST_IMAGES).contains(&options.images) {
            let reason = format!(
                "{} images at once; 1 to {MOST_IMAGES} are possible",
                options.images
            );
            return Err(Failure::new(Refusal::Invalid, reason));
        }
        let images = options.images as usize;
        let session = Session::open(options.device)?;
        let _entered = session.enter()?;
        let gpu = Gpu::new(session.clone(), work)?;
        let [height, width] = config.image_size;
        let full = |error| match failure(error) {
            Failure {
                refusal: Refusal::OutOfMemory,
                reason,
            } => Failure::new(
                Refusal::OutOfMemory,
                format!(
                    "{reason}, which {images} images of {width} x {height} pixels at once need; ask for fewer, or for a smaller encoder or input"
                ),
            ),
            other => other,
        };
        let named = Named(tensors.iter().map(|t| (t.name, t.values)).collect());
        let encoder = Encoder::new(&gpu, &config, &named).map_err(full)?;
        let buffers = encoder.buffers(&gpu, images).map_err(full)?;
        let mut opened = Self {
            graphs: (0..images).map(|_| None).collect(),
            input: Pinned::new(&session, images * config.image())?,
            output: Pinned::new(&session, images * config.tokens() * config.dim)?,
            buffers,
            encoder,
            gpu,
        };
        for n in [1, images] {
            opened.record(n)?;
        }
        Ok(opened)
    }

    /// Everything for `n` images, from pinned memory to pinned memory.
    fn pass(&self, n: usize) -> Result<(), Failure> {
        let config = self.encoder.config();
        let input = self.buffers.input(n, config);
        let output = self.buffers.output(n, config);
        // SAFETY: pinned memory lives as long as the buffers, and holds as many images.
        unsafe { self.gpu.copy_in(&self.input.values()[..input.len], input) }.map_err(failure)?;
        let passed = self.encoder.forward(&self.gpu, &self.buffers, n);
        passed.map_err(failure)?;
        let to = self.output.values()[..output.len].as_ptr().cast_mut();
        // SAFETY: as above; the values are looked at after the stream was waited for.
        unsafe { self.gpu.copy_out(output, to) }.map_err(failure)
    }

    /// Runs a pass once, so that everything it needs is loaded, then records it.
    fn record(&mut self, n: usize) -> Result<(), Failure> {
        if self.graphs[n - 1].is_some() {
            return Ok(());
        }
        self.pass(n)?;
        self.gpu.session.wait()?;
        let session = self.gpu.session.clone();
        self.graphs[n - 1] = Some(session.record(|| self.pass(n))?);
        Ok(())
    }

    /// Values of an image, its CLS token and its patch tokens.
    pub(crate) fn sizes(&self) -> [usize; 3] {
        let config = self.encoder.config();
        [config.image(), config.dim, config.n_patches() * config.dim]
    }

    pub(crate) fn memory(&self) -> u64 {
        self.gpu.used()
    }

    /// `images` to tokens, as many at once as there is memory for.
    pub(crate) fn run(
        &mut self,
        images: &[f32],
        cls: &mut [f32],
        patches: &mut [f32],
    ) -> Result<(), Failure> {
        let session = self.gpu.session.clone();
        let _entered = session.enter()?;
        let [image, class, rest] = self.sizes();
        let at_once = self.buffers.images();
        let parts = images
            .chunks(at_once * image)
            .zip(cls.chunks_mut(at_once * class))
            .zip(patches.chunks_mut(at_once * rest));
        for ((images, cls), patches) in parts {
            self.run_part(images, cls, patches)?;
        }
        Ok(())
    }

    fn run_part(
        &mut self,
        images: &[f32],
        cls: &mut [f32],
        patches: &mut [f32],
    ) -> Result<(), Failure> {
        let [image, class, rest] = self.sizes();
        let n = images.len() / image;
        self.record(n)?;
        self.input.values_mut()[..images.len()].copy_from_slice(images);
        let Some(graph) = &self.graphs[n - 1] else {
            return Err(Failure::new(Refusal::Failed, "nothing was recorded"));
        };
        graph.launch()?;
        self.gpu.session.wait()?;
        let config = self.encoder.config();
        let prefix = config.n_prefix() * config.dim;
        let tokens = self.output.values().chunks_exact(prefix + rest);
        let places = cls
            .chunks_exact_mut(class)
            .zip(patches.chunks_exact_mut(rest));
        for (tokens, (cls, patches)) in tokens.zip(places) {
            cls.copy_from_slice(&tokens[..class]);
            patches.copy_from_slice(&tokens[prefix..]);
        }
        Ok(())
    }
}
