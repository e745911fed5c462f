//! The numbers that a graph computes with: f32, f16, or int8 in one of two forms.
//!
//! - *Dynamic integer*: `DynamicQuantizeLinear` and `MatMulInteger` in the linear layers, activations quantised at every call with one range for the whole
//!   tensor. For CPU runtimes; needs no calibration.
//! - *QDQ*: `QuantizeLinear` and `DequantizeLinear` around float operators, symmetric, one scale for each output of a weight and one calibrated scale for
//!   each activation, on the inputs of the linear layers, of attention's two products and on what skips a residual branch; none inside norms and softmax. TensorRT and ONNX Runtime fuse them into int8.
//! - *f16*: every constant and operator; the input and the outputs stay f32.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use ssl_edge_nn::infer::{EncoderWeights, Stored};
use ssl_edge_nn::{Error, VitConfig};

use super::graph::int;
use super::proto::{AttributeProto, DataType};
use super::vit::{Writer, flat, write};

/// Form of a graph beside the f32 one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnnxForm {
    /// int8 linear layers, ranges of activations taken at every call.
    Dynamic,
    /// int8 with calibrated ranges.
    Qdq,
    /// f16 throughout.
    F16,
}

/// Scales of activations by name: `blocks.0.attn.qkv` for a layer's input, `blocks.0.attn.q`, `.k`, `.v` and `.p` for attention's,
/// `blocks.0.attn.residual` and `blocks.0.mlp.residual` for the tokens that skip a branch.
pub type ActivationScales = BTreeMap<String, f32>;

/// What the writer needs to know of a form.
#[derive(Clone, Copy)]
pub(super) enum Numbers<'a> {
    F32,
    F16,
    Dynamic(&'a EncoderWeights),
    Qdq(&'a EncoderWeights, &'a ActivationScales),
}

impl OnnxForm {
    /// All.
    pub const ALL: [Self; 3] = [Self::Dynamic, Self::Qdq, Self::F16];

    /// The member of a bundle that holds such a graph.
    pub fn member(self) -> &'static str {
        match self {
            Self::Dynamic => "encoder.int8.onnx",
            Self::Qdq => "encoder.qdq.onnx",
            Self::F16 => "encoder.f16.onnx",
        }
    }
}

/// Writes the graph of an encoder in a form; int8 forms take the layers that are int8 in `weights`, and leave others f32.
///
/// # Errors
/// A tensor that is missing, or the scale of an activation that [`OnnxForm::Qdq`] needs.
pub fn encoder_onnx_as(
    config: &VitConfig,
    weights: &EncoderWeights,
    scales: &ActivationScales,
    form: OnnxForm,
) -> Result<Vec<u8>, Error> {
    let tensors = weights
        .0
        .iter()
        .map(|(name, stored)| {
            let tensor = Tensor::from_vec(stored.to_f32(), stored.dims(), &Device::Cpu)?;
            Ok((name.clone(), tensor))
        })
        .collect::<Result<BTreeMap<_, _>, Error>>()?;
    let numbers = match form {
        OnnxForm::F16 => Numbers::F16,
        OnnxForm::Dynamic => Numbers::Dynamic(weights),
        OnnxForm::Qdq => {
            let layers = weights
                .0
                .iter()
                .filter(|(_, s)| matches!(s, Stored::I8 { .. }));
            for name in layers.filter_map(|(name, _)| name.strip_suffix(".weight")) {
                if !scales.contains_key(name) {
                    return Err(Error::Config {
                        reason: format!("the input of layer {name} has no calibrated scale"),
                    });
                }
            }
            Numbers::Qdq(weights, scales)
        }
    };
    write(config, &tensors, numbers)
}

/// An int8 weight as ONNX takes it.
struct IntWeight {
    /// `[K, N]` constant.
    values: String,
    /// `[N]` constant.
    scale: String,
    n: usize,
}

impl Writer<'_> {
    /// `x W^T + b`, with the weight stored transposed, `[in, out]`.
    pub(super) fn linear(&mut self, name: &str, x: &str) -> Result<String, Error> {
        let bias = self.weight(&format!("{name}.bias"))?;
        let product = match self.numbers {
            Numbers::Dynamic(weights) => match self.int_weight(name, weights) {
                Some(weight) => self.dynamic_product(name, x, &weight),
                None => self.float_product(name, x)?,
            },
            Numbers::Qdq(weights, scales) => {
                match (self.int_weight(name, weights), scales.get(name)) {
                    (Some(weight), Some(scale)) => self.qdq_product(name, x, &weight, *scale),
                    _ => self.float_product(name, x)?,
                }
            }
            Numbers::F32 | Numbers::F16 => self.float_product(name, x)?,
        };
        Ok(self.add(name, &product, &bias))
    }

    fn float_product(&mut self, name: &str, x: &str) -> Result<String, Error> {
        let weight = self.tensor(&format!("{name}.weight"))?;
        let dims = [weight.dim(1)?, weight.dim(0)?];
        let values = flat(&weight.t()?)?;
        let weight = self.graph.floats(&format!("{name}.weight"), &dims, &values);
        Ok(self.matmul(&format!("{name}.product"), x, &weight))
    }

    fn int_weight(&mut self, name: &str, weights: &EncoderWeights) -> Option<IntWeight> {
        let Some(Stored::I8 {
            dims: [n, k],
            values,
            scale,
        }) = weights.0.get(&format!("{name}.weight"))
        else {
            return None;
        };
        let column = |i: usize| (0..*n).map(move |row| values[row * k + i]);
        let transposed: Vec<i8> = (0..*k).flat_map(column).collect();
        Some(IntWeight {
            values: self
                .graph
                .int8s(&format!("{name}.weight"), &[*k, *n], &transposed),
            scale: self.graph.floats(&format!("{name}.scale"), &[*n], scale),
            n: *n,
        })
    }

    fn dynamic_product(&mut self, name: &str, x: &str, weight: &IntWeight) -> String {
        let step = |step: &str| format!("{name}.{step}");
        let [values, scale, zero] =
            self.graph
                .node_n("DynamicQuantizeLinear", &step("input"), &[x], vec![]);
        let inputs = [values.as_str(), &weight.values, &zero];
        let sums = self
            .graph
            .node("MatMulInteger", &step("sums"), &inputs, vec![]);
        let sums = self.cast(&step("sums.float"), &sums, DataType::Float);
        let scale = self.mul(&step("both.scales"), &scale, &weight.scale);
        self.mul(&step("product"), &sums, &scale)
    }

    fn qdq_product(&mut self, name: &str, x: &str, weight: &IntWeight, scale: f32) -> String {
        let x = self.quantise_dequantise(&format!("{name}.input"), x, scale);
        let zero = format!("{name}.zero");
        let zero = self.graph.int8s(&zero, &[weight.n], &vec![0; weight.n]);
        let inputs = [weight.values.as_str(), &weight.scale, &zero];
        let weight = self.graph.node(
            "DequantizeLinear",
            &format!("{name}.weight.float"),
            &inputs,
            vec![int("axis", 1)],
        );
        self.matmul(&format!("{name}.product"), &x, &weight)
    }

    /// A value between layers, quantised where the form asks for it and its scale is known.
    pub(super) fn quantised(&mut self, branch: &str, part: &str, x: String) -> String {
        let name = format!("{branch}.{part}");
        match self.numbers {
            Numbers::Qdq(_, scales) => match scales.get(&name) {
                Some(scale) => self.quantise_dequantise(&format!("{name}.int8"), &x, *scale),
                None => x,
            },
            _ => x,
        }
    }

    fn quantise_dequantise(&mut self, name: &str, x: &str, scale: f32) -> String {
        let scale = self.graph.floats(&format!("{name}.scale"), &[], &[scale]);
        let zero = self.graph.int8s(&format!("{name}.zero"), &[], &[0]);
        let inputs = [x, &scale, &zero];
        let quantised = self.graph.node(
            "QuantizeLinear",
            &format!("{name}.quantised"),
            &inputs,
            vec![],
        );
        let inputs = [quantised.as_str(), &scale, &zero];
        self.graph.node(
            "DequantizeLinear",
            &format!("{name}.float"),
            &inputs,
            vec![],
        )
    }

    /// The graph's input in the numbers that it computes with.
    pub(super) fn input_cast(&mut self, x: &str) -> String {
        match self.numbers {
            Numbers::F16 => self.cast("image.half", x, DataType::Float16),
            _ => x.to_owned(),
        }
    }

    /// A node whose value is an f32 output of the graph.
    pub(super) fn output_node(
        &mut self,
        op: &str,
        name: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) {
        match self.numbers {
            Numbers::F16 => {
                let half = self
                    .graph
                    .node(op, &format!("{name}.half"), inputs, attributes);
                self.cast(name, &half, DataType::Float);
            }
            _ => {
                self.graph.node(op, name, inputs, attributes);
            }
        }
    }

    fn cast(&mut self, name: &str, x: &str, to: DataType) -> String {
        self.graph
            .node("Cast", name, &[x], vec![int("to", to as i64)])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prost::Message;
    use ssl_edge_nn::{Params, Vit};
    use ssl_edge_vision::stream;

    use super::super::proto::{GraphProto, ModelProto, NodeProto, TensorProto};
    use super::*;

    /// A graph with calibrated ranges of an encoder whose second block's `fc1` stayed f32.
    fn qdq() -> GraphProto {
        let config = VitConfig {
            image_size: [32, 32],
            depth: 2,
            ..VitConfig::named("vit_n16").unwrap()
        };
        let mut params = Params::new();
        Vit::init(&config, &mut params, "", &mut stream(1, 0, 0, 0)).unwrap();
        let mut weights = EncoderWeights::from_tensors(&params.to_map()).unwrap();
        let mut scales = ActivationScales::new();
        for block in ["blocks.0", "blocks.1"] {
            for part in ["q", "k", "v", "p", "residual"] {
                scales.insert(format!("{block}.attn.{part}"), 0.1);
            }
            scales.insert(format!("{block}.mlp.residual"), 0.1);
        }
        for layer in EncoderWeights::layer_names(&config) {
            if layer == "blocks.1.mlp.fc1" {
                continue;
            }
            let stored = weights.0.get_mut(&format!("{layer}.weight")).unwrap();
            let dims = [stored.dims()[0], stored.dims()[1]];
            *stored = Stored::I8 {
                dims,
                values: (0..dims[0] * dims[1]).map(|i| (i % 251) as i8).collect(),
                scale: vec![0.01; dims[0]],
            };
            scales.insert(layer, 0.1);
        }
        let bytes = encoder_onnx_as(&config, &weights, &scales, OnnxForm::Qdq).unwrap();
        ModelProto::decode(bytes.as_slice()).unwrap().graph.unwrap()
    }

    /// The node that makes each value.
    fn makers(graph: &GraphProto) -> BTreeMap<&str, &NodeProto> {
        let mut makers = BTreeMap::new();
        for node in &graph.node {
            makers.extend(node.output.iter().map(|name| (name.as_str(), node)));
        }
        makers
    }

    #[test]
    fn ranges_are_symmetric_and_those_of_weights_are_per_output() {
        let graph = qdq();
        let constants: BTreeMap<&str, &TensorProto> = graph
            .initializer
            .iter()
            .map(|constant| (constant.name.as_str(), constant))
            .collect();
        let is_pair = |node: &&NodeProto| {
            ["QuantizeLinear", "DequantizeLinear"].contains(&node.op_type.as_str())
        };
        let mut weights = 0;
        for node in graph.node.iter().filter(is_pair) {
            let [x, scale, zero] = node.input.as_slice() else {
                panic!("{} has {:?}", node.name, node.input)
            };
            let zero = constants[zero.as_str()];
            assert_eq!(zero.data_type, DataType::Int8 as i32);
            assert!(zero.raw_data.iter().all(|byte| *byte == 0), "{}", node.name);
            let scale = &constants[scale.as_str()].dims;
            assert_eq!(scale, &zero.dims, "{}", node.name);
            let Some(weight) = constants.get(x.as_str()) else {
                assert!(
                    scale.is_empty() && node.attribute.is_empty(),
                    "{}",
                    node.name
                );
                continue;
            };
            weights += 1;
            assert_eq!(node.attribute[0].name, "axis");
            assert_eq!(node.attribute[0].i, Some(1));
            assert_eq!(scale, &[weight.dims[1]], "{}: [in, out]", node.name);
        }
        assert_eq!(weights, 7);
    }

    #[test]
    fn products_and_residuals_are_quantised_and_nothing_inside_norms_and_softmax() {
        let graph = qdq();
        let makers = makers(&graph);
        let quantised = |value: &str| {
            let maker = makers.get(value);
            maker.is_some_and(|node| node.op_type == "DequantizeLinear")
        };
        for node in &graph.node {
            let inputs: Vec<bool> = node.input.iter().map(|value| quantised(value)).collect();
            match node.op_type.as_str() {
                "MatMul" if node.name == "blocks.1.mlp.fc1.product" => {
                    assert_eq!(inputs, [false, false]);
                }
                "MatMul" => assert_eq!(inputs, [true, true], "{}", node.name),
                "Add" if node.name.ends_with("attn.sum") || node.name.ends_with("mlp.sum") => {
                    assert_eq!(inputs, [true, false], "{}", node.name);
                }
                "QuantizeLinear" | "DequantizeLinear" => {}
                _ => assert!(!inputs.contains(&true), "{}", node.name),
            }
        }
    }
}
