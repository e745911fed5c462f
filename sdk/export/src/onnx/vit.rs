//! A vision transformer as an ONNX graph, opset 17.
//!
//! `image [N, 3, H, W]`, preprocessed, to `cls [N, D]` and `patches [N, P, D]` after the final norm. Only N is free. Operators are the
//! plain ones that TensorRT, ONNX Runtime, OpenVINO and tract run alike: no Expand (CLS and registers are zero rows padded in front
//! of the patches, filled by the addition of one constant that holds them beside the positions), no Resize, no custom domain. GELU
//! is written out in the order of operations that these engines recognise and fuse.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use ssl_edge_nn::{Error, Gelu, VitConfig};

use super::graph::{Axis, GraphBuilder, float, int, ints};
use super::numbers::Numbers;

/// Tensors of the encoder by name.
type Weights = BTreeMap<String, Tensor>;

/// Writes the graph of the encoder `config` with `weights` for images of `config.image_size`.
///
/// # Errors
/// A tensor that is missing or cannot be read.
pub fn encoder_onnx(config: &VitConfig, weights: &Weights) -> Result<Vec<u8>, Error> {
    write(config, weights, Numbers::F32)
}

/// The same with other numbers.
pub(super) fn write(
    config: &VitConfig,
    weights: &Weights,
    numbers: Numbers<'_>,
) -> Result<Vec<u8>, Error> {
    let grid = config.grid(config.image_size)?;
    let mut graph = GraphBuilder::new("encoder", "Vision transformer: tokens after the final norm");
    if matches!(numbers, Numbers::F16) {
        graph.half();
    }
    let mut writer = Writer {
        graph,
        config,
        weights,
        numbers,
        n_patches: grid[0] * grid[1],
    };
    writer.write()?;
    Ok(writer.graph.finish())
}

pub(super) struct Writer<'a> {
    pub(super) graph: GraphBuilder,
    config: &'a VitConfig,
    weights: &'a Weights,
    pub(super) numbers: Numbers<'a>,
    n_patches: usize,
}

impl Writer<'_> {
    fn write(&mut self) -> Result<(), Error> {
        let [height, width] = self.config.image_size;
        let (n_patches, dim) = (self.n_patches, self.config.dim);
        let image = self.graph.input(
            "image",
            "Preprocessed image: resized, scaled to 0..=1, normalised by mean and standard deviation",
            &[Axis::Batch, Axis::Size(3), Axis::Size(height), Axis::Size(width)],
        );
        self.shared_constants();
        let image = self.input_cast(&image);
        let patches = self.patch_embed(&image)?;
        let mut tokens = self.add_prefix_and_positions(&patches)?;
        for block in 0..self.config.depth {
            let name = format!("blocks.{block}");
            tokens = self.block(&name, &tokens)?;
        }
        let tokens = self.layer_norm("norm", &tokens)?;
        self.outputs(&tokens);
        self.graph
            .output("cls", "CLS token", &[Axis::Batch, Axis::Size(dim)]);
        self.graph.output(
            "patches",
            "Patch tokens, row-major",
            &[Axis::Batch, Axis::Size(n_patches), Axis::Size(dim)],
        );
        Ok(())
    }

    fn shared_constants(&mut self) {
        let (heads, dim) = (self.config.heads, self.config.dim);
        let (tokens, head_dim) = (self.n_tokens() as i64, (dim / heads) as i64);
        // A 0 in a shape keeps the size of the input, here the batch.
        self.graph
            .ints("shape.heads", &[0, tokens, heads as i64, head_dim]);
        self.graph.ints("shape.tokens", &[0, tokens, dim as i64]);
        self.graph.ints("split.qkv", &[dim as i64; 3]);
        let scale = 1.0 / (head_dim as f64).sqrt();
        self.graph.floats("attn.scale", &[], &[scale as f32]);
        for (name, value) in self.gelu_constants() {
            self.graph.floats(name, &[], &[value]);
        }
    }

    fn gelu_constants(&self) -> Vec<(&'static str, f32)> {
        let mut constants = vec![("gelu.half", 0.5), ("gelu.one", 1.0)];
        match self.config.gelu {
            Gelu::Tanh => constants.extend([
                ("gelu.three", 3.0),
                ("gelu.cubic", 0.044_715),
                ("gelu.sqrt_2_over_pi", (2.0 / std::f32::consts::PI).sqrt()),
            ]),
            Gelu::Erf => constants.push(("gelu.inv_sqrt_2", std::f32::consts::FRAC_1_SQRT_2)),
        }
        constants
    }

    /// `[N, 3, H, W]` to `[N, P, D]`.
    fn patch_embed(&mut self, image: &str) -> Result<String, Error> {
        let (patch, dim) = (self.config.patch as i64, self.config.dim as i64);
        let weight = self.weight("patch_embed.proj.weight")?;
        let bias = self.weight("patch_embed.proj.bias")?;
        let map = self.graph.node(
            "Conv",
            "patch_embed.conv",
            &[image, &weight, &bias],
            vec![
                ints("kernel_shape", &[patch; 2]),
                ints("strides", &[patch; 2]),
            ],
        ); // [N, D, rows, columns]
        let shape = self
            .graph
            .ints("shape.columns", &[0, dim, self.n_patches as i64]);
        let columns = self
            .graph
            .node("Reshape", "patch_embed.columns", &[&map, &shape], vec![]);
        Ok(self.transpose("patch_embed.rows", &columns, &[0, 2, 1]))
    }

    /// `[N, P, D]` to `[N, 1 + R + P, D]`.
    fn add_prefix_and_positions(&mut self, patches: &str) -> Result<String, Error> {
        let prefix = self.config.n_prefix() as i64;
        let pads = self.graph.ints("prefix.pads", &[0, prefix, 0, 0, 0, 0]);
        let padded = self
            .graph
            .node("Pad", "prefix.pad", &[patches, &pads], vec![]);
        let (tokens, dim) = (self.n_tokens(), self.config.dim);
        let table = self.prefix_and_positions()?;
        let table = self.graph.floats("tokens.table", &[1, tokens, dim], &table);
        Ok(self.graph.node("Add", "tokens", &[&padded, &table], vec![]))
    }

    /// What is added to the zero-padded patches, `[1, 1 + R + P, D]`: CLS with its position, registers, positions of the patches.
    fn prefix_and_positions(&self) -> Result<Vec<f32>, Error> {
        let dim = self.config.dim;
        let position = self.values("pos_embed")?;
        let cls = self.values("cls_token")?;
        let mut table: Vec<f32> = cls
            .iter()
            .zip(&position)
            .map(|(cls, at)| cls + at)
            .collect();
        if self.config.registers > 0 {
            table.extend(self.values("register_tokens")?);
        }
        table.extend(&position[dim..]);
        Ok(table)
    }

    fn block(&mut self, name: &str, tokens: &str) -> Result<String, Error> {
        let normed = self.layer_norm(&format!("{name}.norm1"), tokens)?;
        let attended = self.attention(&format!("{name}.attn"), &normed)?;
        let skipped = self.quantised(&format!("{name}.attn"), "residual", tokens.to_owned());
        let tokens = self.add(&format!("{name}.attn.sum"), &skipped, &attended);
        let normed = self.layer_norm(&format!("{name}.norm2"), &tokens)?;
        let hidden = self.linear(&format!("{name}.mlp.fc1"), &normed)?;
        let active = self.gelu(&format!("{name}.mlp.gelu"), &hidden);
        let out = self.linear(&format!("{name}.mlp.fc2"), &active)?;
        let skipped = self.quantised(&format!("{name}.mlp"), "residual", tokens);
        Ok(self.add(&format!("{name}.mlp.sum"), &skipped, &out))
    }

    fn attention(&mut self, name: &str, tokens: &str) -> Result<String, Error> {
        let qkv = self.linear(&format!("{name}.qkv"), tokens)?; // [N, T, 3 D]
        let [q, k, v] = self.graph.node_n(
            "Split",
            &format!("{name}.split"),
            &[&qkv, "split.qkv"],
            vec![int("axis", 2)],
        );
        let q = self.heads(&format!("{name}.q"), &q, &[0, 2, 1, 3]); // [N, heads, T, D / heads]
        let k = self.heads(&format!("{name}.k"), &k, &[0, 2, 3, 1]); // [N, heads, D / heads, T]
        let v = self.heads(&format!("{name}.v"), &v, &[0, 2, 1, 3]);
        let q = self.mul(&format!("{name}.q.scaled"), &q, "attn.scale");
        let [q, k] = [("q", q), ("k", k)].map(|(part, x)| self.quantised(name, part, x));
        let scores = self.matmul(&format!("{name}.scores"), &q, &k);
        let probabilities = self.graph.node(
            "Softmax",
            &format!("{name}.softmax"),
            &[&scores],
            vec![int("axis", -1)],
        );
        let [probabilities, v] =
            [("p", probabilities), ("v", v)].map(|(part, x)| self.quantised(name, part, x));
        let mixed = self.matmul(&format!("{name}.mixed"), &probabilities, &v);
        let mixed = self.transpose(&format!("{name}.mixed.rows"), &mixed, &[0, 2, 1, 3]);
        let joined = self.graph.node(
            "Reshape",
            &format!("{name}.joined"),
            &[&mixed, "shape.tokens"],
            vec![],
        );
        self.linear(&format!("{name}.proj"), &joined)
    }

    fn heads(&mut self, name: &str, tokens: &str, order: &[i64]) -> String {
        let split = self.graph.node(
            "Reshape",
            &format!("{name}.split"),
            &[tokens, "shape.heads"],
            vec![],
        );
        self.transpose(&format!("{name}.heads"), &split, order)
    }

    fn gelu(&mut self, name: &str, x: &str) -> String {
        let step = |step: &str| format!("{name}.{step}");
        let bounded = match self.config.gelu {
            Gelu::Tanh => {
                let cube = self
                    .graph
                    .node("Pow", &step("cube"), &[x, "gelu.three"], vec![]);
                let cubic = self.mul(&step("cubic"), &cube, "gelu.cubic");
                let sum = self.add(&step("sum"), x, &cubic);
                let scaled = self.mul(&step("scaled"), &sum, "gelu.sqrt_2_over_pi");
                self.graph.node("Tanh", &step("tanh"), &[&scaled], vec![])
            }
            Gelu::Erf => {
                let scaled = self.mul(&step("scaled"), x, "gelu.inv_sqrt_2");
                self.graph.node("Erf", &step("erf"), &[&scaled], vec![])
            }
        };
        let gate = self.add(&step("gate"), &bounded, "gelu.one");
        let half = self.mul(&step("half"), x, "gelu.half");
        self.mul(name, &half, &gate)
    }

    fn layer_norm(&mut self, name: &str, x: &str) -> Result<String, Error> {
        let weight = self.weight(&format!("{name}.weight"))?;
        let bias = self.weight(&format!("{name}.bias"))?;
        let epsilon = self.config.eps as f32;
        let attributes = vec![int("axis", -1), float("epsilon", epsilon)];
        Ok(self
            .graph
            .node("LayerNormalization", name, &[x, &weight, &bias], attributes))
    }

    fn outputs(&mut self, tokens: &str) {
        let index = self.graph.int("cls.index", 0);
        let inputs = [tokens, &index];
        self.output_node("Gather", "cls", &inputs, vec![int("axis", 1)]);
        let start = self
            .graph
            .ints("patches.start", &[self.config.n_prefix() as i64]);
        let end = self.graph.ints("patches.end", &[self.n_tokens() as i64]);
        let axis = self.graph.ints("patches.axis", &[1]);
        self.output_node("Slice", "patches", &[tokens, &start, &end, &axis], vec![]);
    }

    pub(super) fn add(&mut self, name: &str, a: &str, b: &str) -> String {
        self.graph.node("Add", name, &[a, b], vec![])
    }

    pub(super) fn mul(&mut self, name: &str, a: &str, b: &str) -> String {
        self.graph.node("Mul", name, &[a, b], vec![])
    }

    pub(super) fn matmul(&mut self, name: &str, a: &str, b: &str) -> String {
        self.graph.node("MatMul", name, &[a, b], vec![])
    }

    fn transpose(&mut self, name: &str, x: &str, order: &[i64]) -> String {
        self.graph
            .node("Transpose", name, &[x], vec![ints("perm", order)])
    }

    /// A tensor of the encoder as a constant under its own name.
    pub(super) fn weight(&mut self, name: &str) -> Result<String, Error> {
        let tensor = self.tensor(name)?;
        let values = flat(tensor)?;
        let dims = tensor.dims().to_vec();
        Ok(self.graph.floats(name, &dims, &values))
    }

    fn values(&self, name: &str) -> Result<Vec<f32>, Error> {
        flat(self.tensor(name)?)
    }

    pub(super) fn tensor(&self, name: &str) -> Result<&Tensor, Error> {
        self.weights.get(name).ok_or_else(|| Error::MissingTensor {
            name: name.to_owned(),
        })
    }

    fn n_tokens(&self) -> usize {
        self.config.n_prefix() + self.n_patches
    }
}

pub(super) fn flat(tensor: &Tensor) -> Result<Vec<f32>, Error> {
    Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;
    use ssl_edge_nn::{Params, Vit};
    use ssl_edge_vision::stream;

    use super::super::proto::{DimensionValue, GraphProto, ModelProto, ValueInfoProto};
    use super::*;

    fn graph(gelu: Gelu, registers: usize) -> (ModelProto, VitConfig) {
        let config = VitConfig {
            image_size: [32, 48],
            registers,
            gelu,
            ..VitConfig::named("vit_n16").unwrap()
        };
        let mut params = Params::new();
        Vit::init(&config, &mut params, "", &mut stream(1, 0, 0, 0)).unwrap();
        let bytes = encoder_onnx(&config, &params.to_map()).unwrap();
        (ModelProto::decode(bytes.as_slice()).unwrap(), config)
    }

    fn shape(info: &ValueInfoProto) -> Vec<String> {
        let tensor = info.r#type.clone().unwrap().tensor_type.unwrap();
        let dims = tensor.shape.unwrap().dim.into_iter();
        dims.map(|dim| match dim.value.unwrap() {
            DimensionValue::Value(value) => value.to_string(),
            DimensionValue::Param(name) => name,
        })
        .collect()
    }

    fn operators(graph: &GraphProto) -> BTreeSet<&str> {
        graph
            .node
            .iter()
            .map(|node| node.op_type.as_str())
            .collect()
    }

    #[test]
    fn the_interface_is_the_documented_one() {
        let (model, _) = graph(Gelu::Tanh, 4);
        assert_eq!((model.ir_version, model.opset_import[0].version), (8, 17));
        let graph = model.graph.unwrap();
        assert_eq!(graph.input[0].name, "image");
        assert_eq!(shape(&graph.input[0]), ["N", "3", "32", "48"]);
        assert_eq!(graph.output[0].name, "cls");
        assert_eq!(shape(&graph.output[0]), ["N", "192"]);
        assert_eq!(graph.output[1].name, "patches");
        assert_eq!(shape(&graph.output[1]), ["N", "6", "192"]);
    }

    #[test]
    fn operators_are_from_the_closed_list() {
        let common = [
            "Add",
            "Conv",
            "Gather",
            "LayerNormalization",
            "MatMul",
            "Mul",
            "Pad",
            "Reshape",
            "Slice",
            "Softmax",
            "Split",
            "Transpose",
        ];
        for (gelu, own) in [
            (Gelu::Tanh, &["Pow", "Tanh"][..]),
            (Gelu::Erf, &["Erf"][..]),
        ] {
            let (model, _) = graph(gelu, 0);
            let expected: BTreeSet<&str> = common.iter().chain(own).copied().collect();
            assert_eq!(operators(&model.graph.unwrap()), expected);
        }
    }

    #[test]
    fn every_value_is_made_once_and_before_it_is_used() {
        let (model, _) = graph(Gelu::Erf, 2);
        let graph = model.graph.unwrap();
        let mut known: BTreeSet<String> =
            graph.input.iter().map(|input| input.name.clone()).collect();
        for constant in &graph.initializer {
            assert!(
                known.insert(constant.name.clone()),
                "{} twice",
                constant.name
            );
        }
        for node in &graph.node {
            for input in &node.input {
                assert!(known.contains(input), "{} before {input}", node.name);
            }
            for output in &node.output {
                assert!(known.insert(output.clone()), "{output} twice");
            }
        }
        let used: BTreeSet<&String> = graph.node.iter().flat_map(|node| &node.input).collect();
        for constant in &graph.initializer {
            assert!(
                used.contains(&constant.name),
                "{} is not used",
                constant.name
            );
        }
    }

    #[test]
    fn a_missing_tensor_is_named() {
        let (_, config) = graph(Gelu::Tanh, 0);
        let error = encoder_onnx(&config, &Weights::new()).unwrap_err();
        assert!(
            matches!(error, Error::MissingTensor { name } if name == "patch_embed.proj.weight")
        );
    }
}
