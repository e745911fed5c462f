//! Encoders whose every tensor is random, so that no bias or scale can be left out unnoticed.

use std::collections::BTreeMap;

use ssl_edge_bundle::{Pooling, Provenance};
use ssl_edge_export::EncoderExport;
use ssl_edge_nn::candle::{Device, Tensor};
use ssl_edge_nn::{Gelu, Init, Params, Vit, VitConfig};
use ssl_edge_vision::{Fit, Preprocess, stream};

/// An encoder on its training graph.
pub(crate) struct Trained {
    pub(crate) config: VitConfig,
    pub(crate) params: Params,
}

impl Trained {
    pub(crate) fn new(size: [usize; 2], registers: usize, gelu: Gelu) -> Self {
        let config = VitConfig {
            image_size: size,
            registers,
            gelu,
            ..VitConfig::named("vit_n16").unwrap()
        };
        let mut params = Params::new();
        Vit::init(&config, &mut params, "", &mut stream(3, 0, 0, 0)).unwrap();
        let shaken = shake(&params);
        params.assign(&shaken).unwrap();
        Self { config, params }
    }

    pub(crate) fn tensors(&self) -> BTreeMap<String, Tensor> {
        self.params.to_map()
    }

    pub(crate) fn export(
        &self,
        tensors: &BTreeMap<String, Tensor>,
        preprocess: &Preprocess,
    ) -> Request {
        Request {
            config: self.config.clone(),
            tensors: tensors.clone(),
            preprocess: preprocess.clone(),
        }
    }
}

/// An owned [`EncoderExport`].
pub(crate) struct Request {
    pub(crate) config: VitConfig,
    pub(crate) tensors: BTreeMap<String, Tensor>,
    pub(crate) preprocess: Preprocess,
}

impl Request {
    pub(crate) fn view(&self) -> EncoderExport<'_> {
        EncoderExport {
            arch: "vit_n16",
            config: &self.config,
            params: &self.tensors,
            preprocess: &self.preprocess,
            pooling: Pooling::ClsMean,
            provenance: Provenance {
                method: "none".to_owned(),
                ..Provenance::default()
            },
            licence: Some("CC0-1.0".to_owned()),
            golden_seed: 11,
        }
    }
}

pub(crate) fn preprocess(size: [usize; 2]) -> Preprocess {
    Preprocess::imagenet(size[0] as u32, size[1] as u32, Fit::Squash)
}

fn shake(params: &Params) -> BTreeMap<String, Tensor> {
    let mut rng = stream(5, 0, 0, 0);
    let shaken = params.to_map().into_iter().map(|(name, tensor)| {
        let noise = Init::Normal(0.1).values(tensor.dims(), &mut rng);
        let noise = Tensor::from_vec(noise, tensor.dims(), &Device::Cpu).unwrap();
        (name, (tensor + noise).unwrap())
    });
    shaken.collect()
}
