//! Prepares batches ahead of the training step.

use std::ops::Range;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

use candle_core::{Device, Tensor};
use rayon::{ThreadPool, ThreadPoolBuilder};
use ssl_edge_vision::{Image, multi_crop_batch, view_batch};

use crate::collective::Share;
use crate::config::{MethodName, TrainConfig};
use crate::data::{Dataset, Sampler};
use crate::error::{Result, TrainError};
use crate::methods::Batch;

/// Makes a rank's part of the batch of any step; the result depends on the configuration, the images and the step alone.
pub(crate) struct Loader<'a> {
    config: &'a TrainConfig,
    dataset: &'a Dataset,
    sampler: Sampler,
    share: Share,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(config: &'a TrainConfig, dataset: &'a Dataset, share: Share) -> Result<Self> {
        Ok(Self {
            config,
            dataset,
            sampler: Sampler::new(config.seed, dataset.len(), config.schedule.batch)?,
            share,
        })
    }

    pub(crate) fn steps_per_epoch(&self) -> u64 {
        self.sampler.steps_per_epoch()
    }

    pub(crate) fn batch(&mut self, step: u64) -> Result<Batch> {
        let samples = self.share.of(self.sampler.batch(step)).to_vec();
        let images = self.dataset.images(&samples)?;
        let images: Vec<&Image> = images.iter().map(AsRef::as_ref).collect();
        let ids: Vec<u64> = samples.iter().map(|&sample| sample as u64).collect();
        let views = self.views(&images, step, &ids)?;
        Ok(Batch { samples, views })
    }

    fn views(&self, images: &[&Image], step: u64, ids: &[u64]) -> Result<Vec<Tensor>> {
        let (mean, std) = (self.config.preprocess.mean, self.config.preprocess.std);
        let seed = self.config.seed;
        let tensor = |parts: Vec<Vec<f32>>, height: u32, width: u32| {
            let shape = (
                parts.len() * images.len(),
                3,
                height as usize,
                width as usize,
            );
            Tensor::from_vec(parts.concat(), shape, &Device::Cpu)
        };
        Ok(match self.config.method {
            MethodName::Mae => {
                let view = &self.config.mae()?.view;
                let pixels = view_batch(images, view, mean, std, seed, step, ids);
                vec![tensor(vec![pixels], view.height, view.width)?]
            }
            MethodName::Dino => {
                let crops = &self.config.dino()?.crops;
                let mut globals = multi_crop_batch(images, crops, mean, std, seed, step, ids);
                let locals = globals.split_off(crops.globals.len());
                let mut views = vec![tensor(
                    globals,
                    crops.globals[0].height,
                    crops.globals[0].width,
                )?];
                if crops.n_locals > 0 {
                    views.push(tensor(locals, crops.local.height, crops.local.width)?);
                }
                views
            }
        })
    }

    /// Prepares the batches of `steps` in a thread of `scope`, at most `config.data.prefetch` ahead. It ends with the
    /// first error, or when the receiver is dropped.
    pub(crate) fn prefetch<'scope>(
        mut self,
        steps: Range<u64>,
        scope: &'scope Scope<'scope, '_>,
        train_threads: usize,
    ) -> Result<Receiver<Result<Batch>>>
    where
        'a: 'scope,
    {
        let threads = match self.config.data.threads {
            0 => train_threads.div_ceil(2),
            n => n,
        };
        let pool = pool(threads, "loader")?;
        let (sender, receiver) = sync_channel(self.config.data.prefetch.max(1));
        scope.spawn(move || {
            for step in steps {
                let batch = pool.install(|| self.batch(step));
                let failed = batch.is_err();
                if sender.send(batch).is_err() || failed {
                    break;
                }
            }
        });
        Ok(receiver)
    }
}

/// A pool of `threads` threads, 0 for all cores.
pub(crate) fn pool(threads: usize, name: &'static str) -> Result<ThreadPool> {
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(move |i| format!("{name}-{i}"))
        .build()
        .map_err(|e| TrainError::Threads {
            threads,
            message: e.to_string(),
        })
}
