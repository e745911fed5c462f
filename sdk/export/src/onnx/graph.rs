//! Builds an ONNX graph node by node; every value is named after the node that makes it.

use prost::Message;

use super::proto::{
    AttributeProto, AttributeType, DataType, Dimension, DimensionValue, GraphProto, ModelProto,
    NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TensorType, TypeProto,
    ValueInfoProto,
};

const IR_VERSION: i64 = 8;
const OPSET: i64 = 17;

/// Size of an axis of an input or output.
#[derive(Clone, Copy)]
pub(super) enum Axis {
    /// The batch, any size.
    Batch,
    /// A fixed size.
    Size(usize),
}

/// A graph in the making.
#[derive(Default)]
pub(super) struct GraphBuilder {
    graph: GraphProto,
    /// Whether constants are f16.
    half: bool,
}

impl GraphBuilder {
    pub(super) fn new(name: &str, doc: &str) -> Self {
        let graph = GraphProto {
            name: name.to_owned(),
            doc_string: doc.to_owned(),
            ..GraphProto::default()
        };
        Self { graph, half: false }
    }

    /// Stores f32 constants as f16 from here on.
    pub(super) fn half(&mut self) {
        self.half = true;
    }

    pub(super) fn input(&mut self, name: &str, doc: &str, shape: &[Axis]) -> String {
        self.graph.input.push(value_info(name, doc, shape));
        name.to_owned()
    }

    /// Marks a value that exists as an output.
    pub(super) fn output(&mut self, name: &str, doc: &str, shape: &[Axis]) {
        self.graph.output.push(value_info(name, doc, shape));
    }

    /// An f32 constant, or f16 after [`GraphBuilder::half`]; no dimensions make a scalar.
    pub(super) fn floats(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        if self.half {
            let halves = values.iter().map(|value| half::f16::from_f32(*value));
            let raw_data = halves.flat_map(half::f16::to_le_bytes).collect();
            return self.constant(name, dims, DataType::Float16, raw_data);
        }
        let raw_data = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.constant(name, dims, DataType::Float, raw_data)
    }

    /// An int8 constant.
    pub(super) fn int8s(&mut self, name: &str, dims: &[usize], values: &[i8]) -> String {
        let raw_data = values.iter().map(|value| *value as u8).collect();
        self.constant(name, dims, DataType::Int8, raw_data)
    }

    /// A constant list of integers, such as a shape.
    pub(super) fn ints(&mut self, name: &str, values: &[i64]) -> String {
        let raw_data = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.constant(name, &[values.len()], DataType::Int64, raw_data)
    }

    /// A constant integer without axes.
    pub(super) fn int(&mut self, name: &str, value: i64) -> String {
        self.constant(name, &[], DataType::Int64, value.to_le_bytes().to_vec())
    }

    /// A node with one output, which has the node's name.
    pub(super) fn node(
        &mut self,
        op: &str,
        name: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> String {
        self.push(op, name, inputs, vec![name.to_owned()], attributes);
        name.to_owned()
    }

    /// A node with `N` outputs, `{name}.0` and so on.
    pub(super) fn node_n<const N: usize>(
        &mut self,
        op: &str,
        name: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> [String; N] {
        let outputs: [String; N] = std::array::from_fn(|index| format!("{name}.{index}"));
        self.push(op, name, inputs, outputs.to_vec(), attributes);
        outputs
    }

    /// The file.
    pub(super) fn finish(self) -> Vec<u8> {
        let model = ModelProto {
            ir_version: IR_VERSION,
            producer_name: "ssl-edge".to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            graph: Some(self.graph),
            opset_import: vec![OperatorSetIdProto {
                domain: String::new(),
                version: OPSET,
            }],
        };
        model.encode_to_vec()
    }

    fn constant(
        &mut self,
        name: &str,
        dims: &[usize],
        data_type: DataType,
        raw_data: Vec<u8>,
    ) -> String {
        self.graph.initializer.push(TensorProto {
            dims: dims.iter().map(|dim| *dim as i64).collect(),
            data_type: data_type.into(),
            name: name.to_owned(),
            raw_data,
            data_location: 0,
        });
        name.to_owned()
    }

    fn push(
        &mut self,
        op: &str,
        name: &str,
        inputs: &[&str],
        output: Vec<String>,
        attribute: Vec<AttributeProto>,
    ) {
        self.graph.node.push(NodeProto {
            input: inputs.iter().map(|input| (*input).to_owned()).collect(),
            output,
            name: name.to_owned(),
            op_type: op.to_owned(),
            attribute,
        });
    }
}

/// An attribute that is an integer.
pub(super) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        i: Some(value),
        r#type: AttributeType::Int.into(),
        ..AttributeProto::default()
    }
}

/// An attribute that is a list of integers.
pub(super) fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        ints: values.to_vec(),
        r#type: AttributeType::Ints.into(),
        ..AttributeProto::default()
    }
}

/// An attribute that is a number.
pub(super) fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        f: Some(value),
        r#type: AttributeType::Float.into(),
        ..AttributeProto::default()
    }
}

fn value_info(name: &str, doc: &str, shape: &[Axis]) -> ValueInfoProto {
    let dim = shape
        .iter()
        .map(|axis| Dimension {
            value: Some(match axis {
                Axis::Batch => DimensionValue::Param("N".to_owned()),
                Axis::Size(size) => DimensionValue::Value(*size as i64),
            }),
        })
        .collect();
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            tensor_type: Some(TensorType {
                elem_type: DataType::Float.into(),
                shape: Some(TensorShapeProto { dim }),
            }),
        }),
        doc_string: doc.to_owned(),
    }
}
