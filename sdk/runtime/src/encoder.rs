//! An open bundle that embeds frames.

use std::path::Path;

use ssl_edge_bundle::{Bundle, Manifest, PreprocessSpec};
use ssl_edge_nn::compute::{Precision as Products, Processor};
use ssl_edge_vision::{Fit, Frame, Preprocess};

use crate::engines::build;
use crate::{
    Embedding, Engine, EngineKind, GoldenVectors, Precision, RuntimeError, SelfTest, Tokens,
};

/// How to run an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// What runs it.
    pub engine: EngineKind,
    /// Threads of the engine's own pool; 0 for one for each CPU that the process may use. Embeddings do not depend on it.
    pub threads: usize,
    /// What it computes with; int8 needs a bundle that was made with it.
    pub precision: Precision,
}

impl Default for Options {
    /// The native engine in f32, a thread for each CPU.
    fn default() -> Self {
        Self {
            engine: EngineKind::Native,
            threads: 0,
            precision: Precision::F32,
        }
    }
}

/// The processor of an encoder and the precision of its matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The processor.
    pub processor: Processor,
    /// What matrix products read. In bf16 the golden vectors are met to 0.02 and in f16 to 0.005 instead of the bundle's tolerance.
    pub precision: Products,
}

impl Default for Place {
    /// The CPU, in f32.
    fn default() -> Self {
        Self {
            processor: Processor::Cpu,
            precision: Products::F32,
        }
    }
}

/// How near an encoder with products in bf16 must come to its golden vectors: 8 bits are kept of each factor.
const BF16_TOLERANCE: f32 = 0.02;
/// The same in f16, which keeps 11 bits.
const F16_TOLERANCE: f32 = 0.005;

/// An encoder that passed its self-test. `Send` and `Sync`: several threads may embed at once.
pub struct Encoder {
    manifest: Manifest,
    hash: [u8; 32],
    preprocess: Preprocess,
    grid: [usize; 2],
    engine: Box<dyn Engine>,
    self_test: SelfTest,
}

impl Encoder {
    /// Opens a bundle, builds the engine and runs the golden vectors through it.
    ///
    /// # Errors
    /// A bundle that cannot be read, an engine that is not there or cannot load it, or an engine that misses the golden vectors.
    pub fn open(path: &Path, options: &Options) -> Result<Self, RuntimeError> {
        Self::from_bundle(&Bundle::open(path)?, options)
    }

    /// The same from a bundle that is already open.
    ///
    /// # Errors
    /// As [`Encoder::open`].
    pub fn from_bundle(bundle: &Bundle, options: &Options) -> Result<Self, RuntimeError> {
        Self::from_bundle_on(bundle, options, Place::default())
    }

    /// As [`Encoder::open`], on a processor other than the CPU.
    ///
    /// # Errors
    /// As [`Encoder::open`], and [`RuntimeError::Device`] where the processor cannot be used.
    pub fn open_on(path: &Path, options: &Options, place: Place) -> Result<Self, RuntimeError> {
        Self::from_bundle_on(&Bundle::open(path)?, options, place)
    }

    /// The same from a bundle that is already open.
    ///
    /// # Errors
    /// As [`Encoder::open_on`].
    pub fn from_bundle_on(
        bundle: &Bundle,
        options: &Options,
        place: Place,
    ) -> Result<Self, RuntimeError> {
        let load = |reason: String| RuntimeError::Load {
            path: bundle.path().to_owned(),
            engine: options.engine,
            reason,
        };
        let manifest = bundle.manifest().clone();
        let preprocess = preprocess(&manifest.preprocess).map_err(load)?;
        let engine = build(bundle, options, place)?;
        let golden = GoldenVectors::read(bundle, options.precision).map_err(load)?;
        let mut self_test = golden.run(engine.as_ref(), &manifest)?;
        let rounding = match place.precision {
            Products::F32 => 0.0,
            Products::Bf16 => BF16_TOLERANCE,
            Products::F16 => F16_TOLERANCE,
        };
        self_test.tolerance = self_test.tolerance.max(rounding);
        if !self_test.passed() {
            return Err(RuntimeError::SelfTest {
                path: bundle.path().to_owned(),
                engine: options.engine,
                difference: self_test.difference,
                tolerance: self_test.tolerance,
            });
        }
        let hash = match options.precision {
            Precision::F32 => bundle.encoder_hash(),
            precision => manifest
                .variant_hash(precision.name())
                .ok_or_else(|| load(format!("it has no {precision} variant")))?,
        };
        Ok(Self {
            hash,
            grid: manifest
                .arch
                .grid(preprocess.height as usize, preprocess.width as usize),
            manifest,
            preprocess,
            engine,
            self_test,
        })
    }

    /// Embeds one frame.
    ///
    /// # Errors
    /// [`RuntimeError::Run`] or [`RuntimeError::NonFinite`].
    pub fn embed(&self, frame: &Frame<'_>) -> Result<Embedding, RuntimeError> {
        let mut input = vec![0.0; self.preprocess.len()];
        self.preprocess.apply(frame, &mut input)?;
        let mut embeddings = self.embed_preprocessed(&input, 1)?;
        Ok(embeddings.remove(0))
    }

    /// Embeds frames in one pass of the engine; the embeddings are in the order of the frames and equal those of [`Encoder::embed`].
    ///
    /// # Errors
    /// As [`Encoder::embed`]; no embedding is returned if any frame fails.
    pub fn embed_batch(&self, frames: &[Frame<'_>]) -> Result<Vec<Embedding>, RuntimeError> {
        if frames.is_empty() {
            return Ok(Vec::new());
        }
        let mut input = vec![0.0; frames.len() * self.preprocess.len()];
        for (frame, image) in frames
            .iter()
            .zip(input.chunks_exact_mut(self.preprocess.len()))
        {
            self.preprocess.apply(frame, image)?;
        }
        self.embed_preprocessed(&input, frames.len())
    }

    /// Embeds a batch that [`Preprocess::apply`] has already made, `[B, 3, H, W]`.
    ///
    /// # Errors
    /// [`RuntimeError::Run`], also where `input` has another length, or [`RuntimeError::NonFinite`].
    pub fn embed_preprocessed(
        &self,
        input: &[f32],
        batch: usize,
    ) -> Result<Vec<Embedding>, RuntimeError> {
        let expected = self.preprocess.len().checked_mul(batch);
        if batch == 0 || expected != Some(input.len()) {
            return Err(RuntimeError::Run {
                engine: self.engine.kind(),
                reason: format!(
                    "an input of {} values is not {batch} images of {}",
                    input.len(),
                    self.preprocess.len()
                ),
            });
        }
        let Tokens { cls, patches } = self.engine.run(input, batch)?;
        let dim = self.dim();
        let frames = cls
            .chunks_exact(dim)
            .zip(patches.chunks_exact(patches.len() / batch));
        frames
            .enumerate()
            .map(|(frame, (cls, patches))| {
                let embedding = Embedding::new(cls, patches, self.grid);
                if embedding.is_finite() {
                    return Ok(embedding);
                }
                Err(RuntimeError::NonFinite {
                    engine: self.engine.kind(),
                    frame,
                })
            })
            .collect()
    }

    /// Tokens of `input [B, 3, H, W]` as [`Preprocess::apply`] makes it, into `cls [B, D]` and `patches [B, N, D]`. The native engine allocates nothing
    /// here; calls from several threads take turns.
    ///
    /// # Errors
    /// [`RuntimeError::Run`], also where a slice has another length. Values are not checked for being finite.
    pub fn tokens_into(
        &self,
        input: &[f32],
        batch: usize,
        cls: &mut [f32],
        patches: &mut [f32],
    ) -> Result<(), RuntimeError> {
        self.engine.run_into(input, batch, cls, patches)
    }

    /// The feature that heads see: the pooling that the manifest asks for, of norm 1.
    pub fn feature(&self, embedding: &Embedding) -> Vec<f32> {
        embedding.feature(self.manifest.pooling)
    }

    /// Width D of a token.
    pub fn dim(&self) -> usize {
        self.manifest.arch.dim
    }

    /// Length of [`Encoder::feature`].
    pub fn feature_dim(&self) -> usize {
        match self.manifest.pooling {
            ssl_edge_bundle::Pooling::ClsMean => 2 * self.dim(),
            _ => self.dim(),
        }
    }

    /// Rows and columns of the grid of patches.
    pub fn grid(&self) -> [usize; 2] {
        self.grid
    }

    /// What the engine computes with.
    pub fn precision(&self) -> Precision {
        self.engine.precision()
    }

    /// Bytes of weights and work memory, where the engine knows.
    pub fn memory(&self) -> Option<usize> {
        self.engine.memory()
    }

    /// Identity of the encoder in its precision; see [`Manifest::encoder_hash`] and [`Manifest::variant_hash`].
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// What the bundle says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// From a frame to the encoder's input.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// The engine that runs.
    pub fn engine(&self) -> EngineKind {
        self.engine.kind()
    }

    /// How near the engine came to the golden vectors when the bundle was opened.
    pub fn self_test(&self) -> SelfTest {
        self.self_test
    }
}

fn preprocess(spec: &PreprocessSpec) -> Result<Preprocess, String> {
    let fit: Fit = spec.fit.parse().map_err(|error| format!("{error}"))?;
    let preprocess = Preprocess {
        height: spec.height,
        width: spec.width,
        fit,
        mean: spec.mean,
        std: spec.std,
    };
    preprocess.validate().map_err(|error| error.to_string())?;
    Ok(preprocess)
}

#[cfg(test)]
mod tests {
    use ssl_edge_bundle::{ArchSpec, BundleWriter, GoldenSpec, Pooling, Provenance};
    use ssl_edge_vision::PixelFormat;

    use super::*;

    /// An engine whose second frame of a batch is broken.
    struct Broken;

    impl Engine for Broken {
        fn kind(&self) -> EngineKind {
            EngineKind::Native
        }

        fn run(&self, _input: &[f32], batch: usize) -> Result<Tokens, RuntimeError> {
            let mut tokens = Tokens {
                cls: vec![1.0; batch * 2],
                patches: vec![1.0; batch * 2],
            };
            if batch > 1 {
                tokens.patches[3] = f32::NAN;
            }
            Ok(tokens)
        }
    }

    fn writer() -> BundleWriter {
        BundleWriter {
            arch: ArchSpec {
                name: "tiny".to_owned(),
                dim: 2,
                depth: 1,
                heads: 1,
                patch: 4,
                registers: 0,
                mlp_ratio: 4,
                image_size: [4, 4],
                gelu: "tanh".to_owned(),
                eps: 1e-6,
            },
            preprocess: PreprocessSpec {
                height: 4,
                width: 4,
                fit: "squash".to_owned(),
                mean: [0.0; 3],
                std: [1.0; 3],
            },
            pooling: Pooling::ClsMean,
            provenance: Provenance::default(),
            licence: None,
            golden: GoldenSpec {
                count: 1,
                tolerance: 1e-4,
            },
            weights: Vec::new(),
            onnx: Vec::new(),
            golden_vectors: Vec::new(),
            variants: Vec::new(),
            extra: Vec::new(),
        }
    }

    fn encoder() -> Encoder {
        let manifest = writer().manifest();
        Encoder {
            hash: manifest.encoder_hash(),
            preprocess: preprocess(&manifest.preprocess).unwrap(),
            grid: [1, 1],
            manifest,
            engine: Box::new(Broken),
            self_test: SelfTest {
                difference: 0.0,
                tolerance: 1e-4,
            },
        }
    }

    #[test]
    fn a_non_finite_embedding_is_an_error_that_names_the_frame() {
        let encoder = encoder();
        let pixels = [7; 16];
        let frame = Frame::new(&pixels, 4, 4, 4, PixelFormat::Gray8, None).unwrap();
        let good = encoder.embed(&frame).unwrap();
        assert_eq!(encoder.feature(&good), [0.5; 4]);
        assert_eq!(encoder.feature_dim(), 4);

        let error = encoder.embed_batch(&[frame, frame]).unwrap_err();
        assert!(
            matches!(error, RuntimeError::NonFinite { frame: 1, .. }),
            "{error}"
        );
    }

    #[test]
    fn a_batch_of_another_length_is_refused() {
        let encoder = encoder();
        assert!(encoder.embed_batch(&[]).unwrap().is_empty());
        for (values, batch) in [(48, 2), (47, 1), (0, 0), (48, usize::MAX)] {
            let error = encoder
                .embed_preprocessed(&vec![0.0; values], batch)
                .unwrap_err();
            assert!(error.to_string().contains("48"), "{error}");
        }
    }

    #[cfg(not(feature = "onnx"))]
    #[test]
    fn an_engine_that_was_not_built_is_an_error_with_the_reason() {
        let path = Path::new("b.sslb");
        let bundle = Bundle::from_bytes(path, writer().to_bytes(path).unwrap()).unwrap();
        let options = Options {
            engine: EngineKind::Onnx,
            threads: 1,
            ..Options::default()
        };
        let error = Encoder::from_bundle(&bundle, &options)
            .map(|_| ())
            .unwrap_err();
        assert!(
            matches!(error, RuntimeError::EngineUnavailable { .. }),
            "{error}"
        );
        let message = error.to_string();
        assert!(
            message.contains("without feature `onnx`") && message.contains("choose one of: native"),
            "{message}"
        );
    }
}
