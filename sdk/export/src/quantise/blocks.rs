//! The whole encoder in GGML's blocks, and in any mixture of block formats and f16 layers.
//!
//! No calibration: a weight is rounded for what it is. Q8_0 is for every linear layer; Q4_0 is for the MLP's two, which are two thirds of the weights,
//! and the layers of attention, on which all tokens depend, stay Q8_0 beside it.

use half::f16;
use ssl_edge_nn::infer::{BlockFormat, EncoderWeights, Stored};
use ssl_edge_nn::{Error, VitConfig};

use super::mixture::{LayerForms, Mixture};

const FLOAT: &str = "f16";

/// Every precision of every linear layer, and all other tensors.
pub(super) struct BlockMixture {
    /// Matrices and tokens in f16, vectors in f32.
    others: EncoderWeights,
    layers: Vec<LayerForms>,
    /// For each layer a weight in each of its precisions.
    weights: Vec<Vec<Stored>>,
}

impl BlockMixture {
    /// Rounds every layer to `format` and to all that is finer.
    ///
    /// # Errors
    /// A layer whose inputs are no whole number of blocks, weights that the format cannot hold, or that are not there.
    pub(super) fn new(
        config: &VitConfig,
        weights: &EncoderWeights,
        format: BlockFormat,
    ) -> Result<Self, Error> {
        let mut mixture = Self {
            others: weights.clone(),
            layers: Vec::new(),
            weights: Vec::new(),
        };
        for name in EncoderWeights::layer_names(config) {
            mixture.add(name, format)?;
        }
        for stored in mixture.others.0.values_mut() {
            if stored.dims().len() > 1 {
                *stored = rounded(stored);
            }
        }
        Ok(mixture)
    }

    fn add(&mut self, name: String, format: BlockFormat) -> Result<(), Error> {
        let weight = format!("{name}.weight");
        let stored = self.others.0.remove(&weight);
        let stored = stored.ok_or(Error::MissingTensor { name: weight })?;
        let (values, dims) = (stored.to_f32(), [stored.dims()[0], stored.dims()[1]]);
        let formats: &[BlockFormat] = match format {
            BlockFormat::Q4_0 if name.contains(".mlp.") => &[BlockFormat::Q4_0, BlockFormat::Q8_0],
            _ => &[BlockFormat::Q8_0],
        };
        let mut forms = Vec::new();
        for &format in formats {
            let bytes = format.quantise(&values, dims[1]);
            let bytes = bytes.map_err(|error| Error::Config {
                reason: format!("layer {name}: {error}"),
            })?;
            forms.push(Stored::Blocks {
                dims,
                format,
                bytes,
            });
        }
        forms.push(rounded(&stored));
        let names = formats.iter().map(|format| format.name());
        self.layers.push(LayerForms {
            name,
            precisions: names.chain([FLOAT]).collect(),
            error: relative_error(&forms[0].to_f32(), &values),
            smoothing: None,
        });
        self.weights.push(forms);
        Ok(())
    }
}

impl Mixture for BlockMixture {
    fn layers(&self) -> &[LayerForms] {
        &self.layers
    }

    fn weights(&self, forms: &[usize]) -> EncoderWeights {
        let mut all = self.others.clone();
        for ((layer, weights), form) in self.layers.iter().zip(&self.weights).zip(forms) {
            let name = format!("{}.weight", layer.name);
            all.0.insert(name, weights[*form].clone());
        }
        all
    }
}

/// Values rounded to f16, or as they are where one is too large for it.
fn rounded(stored: &Stored) -> Stored {
    let values = stored.to_f32();
    let half: Vec<f32> = values.iter().map(|v| f16::from_f32(*v).to_f32()).collect();
    let fits = half.iter().all(|v| v.is_finite());
    Stored::F32 {
        dims: stored.dims().to_vec(),
        values: if fits { half } else { values },
    }
}

fn relative_error(found: &[f32], want: &[f32]) -> f64 {
    let square = |v: f32| f64::from(v) * f64::from(v);
    let error: f64 = found.iter().zip(want).map(|(f, w)| square(f - w)).sum();
    let power: f64 = want.iter().map(|w| square(*w)).sum();
    error / power.max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn config(dim: usize) -> VitConfig {
        VitConfig {
            dim,
            depth: 2,
            heads: 2,
            mlp_ratio: 2,
            ..VitConfig::named("vit_n16").unwrap()
        }
    }

    fn weights(config: &VitConfig) -> EncoderWeights {
        let (d, h) = (config.dim, config.dim * config.mlp_ratio);
        let mut all = BTreeMap::new();
        let mut add = |name: String, dims: &[usize]| {
            let count: usize = dims.iter().product();
            let values = (0..count).map(|i| (i as f32 * 0.7).sin() * 0.1);
            let stored = Stored::F32 {
                dims: dims.to_vec(),
                values: values.collect(),
            };
            all.insert(name, stored);
        };
        let sizes = [[3 * d, d], [d, d], [h, d], [d, h]];
        for (name, size) in EncoderWeights::layer_names(config)
            .iter()
            .zip(sizes.iter().cycle())
        {
            add(format!("{name}.weight"), size);
            add(format!("{name}.bias"), &size[..1]);
        }
        add("pos_embed".to_owned(), &[1, 5, d]);
        add("norm.bias".to_owned(), &[d]);
        EncoderWeights(all)
    }

    #[test]
    fn layers_are_in_the_format_asked_for_and_all_else_in_f16_or_f32() {
        let config = config(64);
        let float = weights(&config);
        let mixture = BlockMixture::new(&config, &float, BlockFormat::Q4_0).unwrap();
        let forms: Vec<String> = mixture.layers()[..4]
            .iter()
            .map(|l| l.precisions.join(" "))
            .collect();
        assert_eq!(
            forms,
            ["q8_0 f16", "q8_0 f16", "q4_0 q8_0 f16", "q4_0 q8_0 f16"]
        );
        let errors: Vec<f64> = mixture.layers().iter().map(|layer| layer.error).collect();
        assert!(errors[0] > 1e-6 && errors[0] < 1e-4, "{errors:?}");
        assert!(errors[2] > 1e-3 && errors[2] < 1e-2, "{errors:?}");

        let coarse = mixture.weights(&[0; 8]);
        let names = |w: &EncoderWeights| w.0.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&coarse), names(&float));
        let file = coarse.to_gguf().unwrap();
        assert_eq!(EncoderWeights::from_bytes(&file).unwrap(), coarse);
        let fine = mixture.weights(&[1, 1, 2, 2, 1, 1, 2, 2]);
        assert!(
            fine.0
                .values()
                .all(|stored| matches!(stored, Stored::F32 { .. }))
        );
        assert_eq!(
            fine.0["norm.bias"], float.0["norm.bias"],
            "vectors stay f32"
        );
        for name in ["pos_embed", "blocks.1.mlp.fc2.weight"] {
            let (fine, float) = (fine.0[name].to_f32(), float.0[name].to_f32());
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= b.abs() / 2048.0 + 1e-7;
            assert!(fine != float && fine.iter().zip(&float).all(near), "{name}");
        }
    }

    #[test]
    fn widths_that_are_no_whole_number_of_blocks_are_refused_by_name() {
        let config = config(48);
        let error = BlockMixture::new(&config, &weights(&config), BlockFormat::Q8_0).err();
        let message = error.expect("refused").to_string();
        assert!(
            message.contains("blocks.0.attn.qkv") && message.contains("multiple of 32"),
            "{message}"
        );
    }
}
