//! The whole encoder in int8, and in any mixture of int8 and f32 layers.

use std::collections::BTreeMap;

use ssl_edge_nn::infer::{EncoderWeights, Stored};
use ssl_edge_nn::{Error, VitConfig};

use super::collect::{Inputs, Walk};
use super::mixture::{LayerForms, Mixture};
use super::search::{IntLinear, Linear, Smoothing, divided, quantise, smoothing, static_scale};
use crate::onnx::ActivationScales;

/// A layer in both precisions; the f32 one has the smoothing folded in as well, so that either fits its neighbours.
struct LayerPair {
    float: Linear,
    int: IntLinear,
    /// Scale of its input where one must do for all rows.
    input_scale: f32,
}

/// Both precisions of every linear layer, and all other tensors.
pub(super) struct IntMixture {
    others: EncoderWeights,
    heads: usize,
    /// Scales of what is between the layers: attention's factors, and the tokens that skip a branch.
    between: ActivationScales,
    layers: Vec<LayerForms>,
    pairs: Vec<LayerPair>,
}

impl IntMixture {
    /// Quantises every layer on calibration frames `[F, 3, H, W]`.
    ///
    /// # Errors
    /// Weights that do not fit the configuration.
    pub(super) fn new(
        config: &VitConfig,
        weights: &EncoderWeights,
        frames: &[f32],
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Self, Error> {
        let mut walk = Walk::new(config, weights, frames)?;
        let mut mixture = Self {
            others: weights.clone(),
            heads: config.heads,
            between: ActivationScales::new(),
            layers: Vec::new(),
            pairs: Vec::new(),
        };
        for index in 0..config.depth {
            progress(index, config.depth);
            let inputs = walk.block(index)?;
            mixture.add_block(index, config, inputs)?;
        }
        Ok(mixture)
    }

    fn add_block(&mut self, index: usize, config: &VitConfig, inputs: Inputs) -> Result<(), Error> {
        let Inputs {
            layers: [normed1, attended, normed2, active],
            qkv: qkv_rows,
            probabilities,
            skipped,
        } = inputs;
        let name = |part: &str| format!("blocks.{index}.{part}");
        let mut qkv = self.take(&name("attn.qkv"))?;
        let mut proj = self.take(&name("attn.proj"))?;
        let mut fc1 = self.take(&name("mlp.fc1"))?;
        let fc2 = self.take(&name("mlp.fc2"))?;

        // A channel of the attended values is a mixture of that channel of V alone, so V takes the factors.
        let found = smoothing(&attended, &proj)?;
        let proj_alpha = found.as_ref().map(|found| found.alpha);
        self.attention_scales(&name("attn"), &qkv_rows, found.as_ref(), config.dim);
        let scale = static_scale(probabilities.iter().copied());
        self.between.insert(name("attn.p"), scale);
        for (part, rows) in ["attn.residual", "mlp.residual"].iter().zip(&skipped) {
            let scale = static_scale(rows.iter().copied());
            self.between.insert(name(part), scale);
        }
        let attended = match found {
            Some(found) => {
                proj.scale_columns(&found.factors);
                qkv.divide_outputs(2 * config.dim, &found.factors);
                divided(&attended, &found.factors)
            }
            None => attended,
        };
        let (normed1, qkv_alpha) = self.smooth_norm(&name("norm1"), normed1, &mut qkv)?;
        let (normed2, fc1_alpha) = self.smooth_norm(&name("norm2"), normed2, &mut fc1)?;
        for (part, layer, x, alpha) in [
            ("attn.qkv", qkv, normed1, qkv_alpha),
            ("attn.proj", proj, attended, proj_alpha),
            ("mlp.fc1", fc1, normed2, fc1_alpha),
            ("mlp.fc2", fc2, active, None),
        ] {
            let pair = LayerPair {
                input_scale: static_scale(x.iter().copied()),
                int: quantise(&x, &layer)?,
                float: layer,
            };
            self.layers.push(LayerForms {
                name: name(part),
                precisions: vec!["int8", "f32"],
                error: pair.int.error,
                smoothing: alpha,
            });
            self.pairs.push(pair);
        }
        Ok(())
    }

    /// Scales of queries, keys and values; the values have the factors of their smoothing divided out.
    fn attention_scales(
        &mut self,
        name: &str,
        rows: &[f32],
        values: Option<&Smoothing>,
        dim: usize,
    ) {
        let part = |part: usize| {
            rows.chunks_exact(3 * dim)
                .flat_map(move |row| &row[part * dim..][..dim])
        };
        let factors = values.map_or(vec![1.0; dim], |found| found.factors.clone());
        let smooth = part(2).zip(factors.iter().cycle()).map(|(v, s)| v / s);
        let scales = [
            (
                "q",
                static_scale(part(0).copied()) / ((dim / self.heads) as f32).sqrt(),
            ),
            ("k", static_scale(part(1).copied())),
            ("v", static_scale(smooth)),
        ];
        let named = scales.map(|(part, scale)| (format!("{name}.{part}"), scale));
        self.between.extend(named);
    }

    /// Moves the factors of a layer's inputs into the norm before it.
    fn smooth_norm(
        &mut self,
        norm: &str,
        x: Vec<f32>,
        layer: &mut Linear,
    ) -> Result<(Vec<f32>, Option<f32>), Error> {
        let Some(found) = smoothing(&x, layer)? else {
            return Ok((x, None));
        };
        layer.scale_columns(&found.factors);
        for part in ["weight", "bias"] {
            let values = self.floats(&format!("{norm}.{part}"))?;
            values
                .iter_mut()
                .zip(&found.factors)
                .for_each(|(v, s)| *v /= s);
        }
        Ok((divided(&x, &found.factors), Some(found.alpha)))
    }

    fn floats(&mut self, name: &str) -> Result<&mut Vec<f32>, Error> {
        match self.others.0.get_mut(name) {
            Some(Stored::F32 { values, .. }) => Ok(values),
            _ => Err(Error::MissingTensor {
                name: name.to_owned(),
            }),
        }
    }

    fn take(&mut self, layer: &str) -> Result<Linear, Error> {
        let mut tensor = |part: &str| {
            let name = format!("{layer}.{part}");
            match self.others.0.remove(&name) {
                Some(stored) => Ok(stored.to_f32()),
                None => Err(Error::MissingTensor { name }),
            }
        };
        Ok(Linear {
            weight: tensor("weight")?,
            bias: tensor("bias")?,
        })
    }
}

impl Mixture for IntMixture {
    fn layers(&self) -> &[LayerForms] {
        &self.layers
    }

    fn weights(&self, forms: &[usize]) -> EncoderWeights {
        let mut all: BTreeMap<String, Stored> = self.others.0.clone();
        for ((layer, pair), form) in self.layers.iter().zip(&self.pairs).zip(forms) {
            let (n, k) = (pair.float.bias.len(), pair.float.inputs());
            let (weight, bias) = if *form == 0 {
                let weight = Stored::I8 {
                    dims: [n, k],
                    values: pair.int.weight.values.clone(),
                    scale: pair.int.weight.scale.clone(),
                };
                (weight, &pair.int.bias)
            } else {
                let weight = Stored::F32 {
                    dims: vec![n, k],
                    values: pair.float.weight.clone(),
                };
                (weight, &pair.float.bias)
            };
            let bias = Stored::F32 {
                dims: vec![n],
                values: bias.clone(),
            };
            all.insert(format!("{}.weight", layer.name), weight);
            all.insert(format!("{}.bias", layer.name), bias);
        }
        EncoderWeights(all)
    }

    fn scales(&self, forms: &[usize]) -> ActivationScales {
        let layers = self.layers.iter().zip(&self.pairs).zip(forms);
        let int8 = layers.filter(|(_, form)| **form == 0);
        let int8 = int8.map(|((layer, pair), _)| (layer.name.clone(), pair.input_scale));
        int8.chain(self.between.clone()).collect()
    }
}
