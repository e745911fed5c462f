use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use candle_core::{Device, Tensor};
use rand_distr::{Distribution, StandardNormal};
use ssl_edge_nn::backward;
use ssl_edge_train::collective::Solo;
use ssl_edge_train::methods::{Batch, DecoderConfig, HeadConfig, StepContext, build};
use ssl_edge_train::{
    Checkpoint, MethodName, Observer, Progress, RunOptions, RunSummary, Tensors, TrainConfig,
    TrainError, latest_checkpoint, pretrain,
};
use ssl_edge_vision::{MultiCrop, stream};

/// A temporary folder with images and a place for runs.
pub(crate) struct Workbench {
    folder: tempfile::TempDir,
}

impl Workbench {
    /// `n` images of 40x36 pixels: stripes, whose direction and width differ from image to image.
    pub(crate) fn new(n: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bench = Self { folder };
        fs::create_dir(bench.images()).unwrap();
        for i in 0..n {
            write_image(&bench.images().join(format!("{i:03}.pgm")), i);
        }
        bench
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.folder.path().join("images")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A small network on these images for ten steps.
    pub(crate) fn config(&self, method: MethodName) -> TrainConfig {
        let mut config = tiny(method);
        config.data.folders = vec![self.images()];
        config
    }
}

pub(crate) fn write_image(path: &Path, seed: usize) {
    let (width, height) = (40usize, 36usize);
    let mut bytes = format!("P5\n{width} {height}\n255\n").into_bytes();
    let (dx, dy) = (
        (seed as f32 * 0.7).cos() * 0.6,
        (seed as f32 * 0.7).sin() * 0.6,
    );
    for y in 0..height {
        for x in 0..width {
            let wave = (x as f32 * dx + y as f32 * dy + seed as f32).sin();
            bytes.push((128.0 + 100.0 * wave) as u8);
        }
    }
    fs::write(path, bytes).unwrap();
}

pub(crate) fn tiny(method: MethodName) -> TrainConfig {
    let mut config = TrainConfig::preset(method, "vit_n8", 100).unwrap();
    config.seed = 5;
    config.threads = 2;
    config.encoder.dim = 32;
    config.encoder.depth = 2;
    config.encoder.heads = 2;
    config.encoder.registers = 1;
    config.set_image_size(32);
    config.schedule.batch = 4;
    config.schedule.images = 40;
    config.optimizer.base_lr = 0.1;
    if let Some(mae) = &mut config.mae {
        mae.decoder = DecoderConfig {
            dim: 16,
            depth: 1,
            heads: 2,
        };
    }
    if let Some(dino) = &mut config.dino {
        dino.crops = MultiCrop::dino(32, [0.4, 1.0], 16, [0.05, 0.4], 2);
        dino.head = HeadConfig {
            out_dim: 24,
            hidden: 20,
            bottleneck: 12,
        };
        dino.drop_path = 0.2;
    }
    config
}

/// Standard normal pixels for a batch of 4.
pub(crate) fn batch(method: MethodName, seed: u64) -> Batch {
    let mut rng = stream(seed, 0, 0, 0);
    let mut view = |rows: usize, size: usize| {
        let values: Vec<f32> = (0..rows * 3 * size * size)
            .map(|_| StandardNormal.sample(&mut rng))
            .collect();
        Tensor::from_vec(values, (rows, 3, size, size), &Device::Cpu).unwrap()
    };
    let views = match method {
        MethodName::Mae => vec![view(4, 32)],
        MethodName::Dino => vec![view(8, 32), view(8, 16)],
    };
    Batch {
        samples: vec![3, 1, 4, 15],
        views,
    }
}

/// Records losses and stops after a number of steps.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) stop_at: Option<u64>,
    pub(crate) losses: Mutex<Vec<f64>>,
    pub(crate) skipped: Mutex<Vec<PathBuf>>,
}

impl Recorder {
    pub(crate) fn stopping(step: u64) -> Self {
        Self {
            stop_at: Some(step),
            ..Self::default()
        }
    }
}

impl Observer for Recorder {
    fn step(&self, progress: &Progress) {
        self.losses.lock().unwrap().push(progress.loss);
    }

    fn skipped(&self, path: &Path, reason: &str) {
        assert!(!reason.is_empty());
        self.skipped.lock().unwrap().push(path.to_path_buf());
    }

    fn stop(&self) -> bool {
        self.stop_at == Some(self.losses.lock().unwrap().len() as u64)
    }
}

pub(crate) fn run(
    config: &TrainConfig,
    folder: &Path,
    resume: bool,
    observer: &dyn Observer,
) -> Result<RunSummary, TrainError> {
    let options = RunOptions {
        folder: folder.to_path_buf(),
        resume,
    };
    pretrain(config, &options, observer)
}

pub(crate) fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Equal names, shapes and bits.
pub(crate) fn assert_same(a: &Tensors, b: &Tensors) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, a) in a {
        let b = &b[name];
        assert_eq!((a.dims(), a.dtype()), (b.dims(), b.dtype()), "{name}");
        if a.dtype().is_float() {
            let bits = |t: &Tensor| values(t).iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(a), bits(b), "{name}");
        } else {
            let ints = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<i64>().unwrap();
            assert_eq!(ints(a), ints(b), "{name}");
        }
    }
}

/// The newest checkpoint of a run.
pub(crate) fn newest(folder: &Path) -> Checkpoint {
    Checkpoint::load(&latest_checkpoint(folder).unwrap().unwrap()).unwrap()
}

/// Equal newest checkpoints, bit for bit.
pub(crate) fn assert_equal_runs(a: &Path, b: &Path) {
    let (a, b) = (newest(a), newest(b));
    assert_eq!(a.state, b.state);
    assert_same(&a.model, &b.model);
    assert_same(&a.teacher, &b.teacher);
    assert_same(&a.optim, &b.optim);
}

/// Loss of the first step, and the gradient of every trained parameter.
pub(crate) fn gradients(config: &TrainConfig, device: &Device) -> Vec<(String, Vec<f32>)> {
    let ctx = StepContext {
        seed: 5,
        step: 0,
        steps: 10,
        steps_per_epoch: 0,
        ranks: &Solo,
    };
    let mut model = build(config, device).unwrap();
    let batch = batch(config.method, 3);
    let views = batch.views.iter().map(|v| v.to_device(device).unwrap());
    let batch = Batch {
        samples: batch.samples.clone(),
        views: views.collect::<Vec<Tensor>>(),
    };
    let loss = model.loss(&batch, &ctx).unwrap();
    let grads = backward(&loss).unwrap();
    let mut all = vec![("loss".to_owned(), vec![loss.to_scalar::<f32>().unwrap()])];
    for (name, param) in model.params().iter() {
        if !model.is_trained(name, &ctx) {
            continue;
        }
        let grad = grads.get(&param.var);
        let grad = grad.unwrap_or_else(|| panic!("{name} has no gradient"));
        all.push((
            name.to_owned(),
            values(&grad.to_device(&Device::Cpu).unwrap()),
        ));
    }
    all
}

/// Equal up to a part of the largest wanted value.
pub(crate) fn assert_close(what: &str, got: &[f32], want: &[f32], tolerance: f64) {
    let scale = want
        .iter()
        .fold(1e-7, |m: f64, v| m.max(f64::from(v.abs())));
    for (g, w) in got.iter().zip(want) {
        let difference = f64::from((g - w).abs());
        assert!(
            difference <= tolerance * scale,
            "{what}: {g} instead of {w} (largest {scale:e})"
        );
    }
}
