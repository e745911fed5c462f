//! A graph's file, checked before the engine sees it: the engine takes much on trust.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::tensor_shape_proto::dimension::Value as Size;
use tract_onnx::pb::type_proto::Value;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use tract_onnx::prelude::*;

use super::{GraphError, GraphPort};

/// Protocol buffers end there.
const MAX_BYTES: usize = i32::MAX as usize;
const MAX_RANK: usize = 16;
/// Domains whose operators the engine knows by name alone.
const DOMAINS: [&str; 4] = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"];

/// A graph that is whole, has its weights in it, takes one image, and uses operators that the engine has.
pub(crate) struct Checked {
    model: ModelProto,
    input: GraphPort,
    outputs: Vec<String>,
}

impl Checked {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, GraphError> {
        let not_onnx = |reason: String| GraphError::NotOnnx { reason };
        if bytes.len() > MAX_BYTES {
            let reason = "it is larger than 2 GiB, where protocol buffers end";
            return Err(not_onnx(reason.to_owned()));
        }
        let model = tract_onnx::onnx().proto_model_for_read(&mut &*bytes);
        let model = model.map_err(|error| not_onnx(format!("{error:#}")))?;
        let graph = model.graph.as_ref();
        let graph = graph.ok_or_else(|| not_onnx("it has no graph".to_owned()))?;
        check_tensors(graph)?;
        check_operators(&model, graph)?;
        check_names(graph)?;
        let input = image_input(graph)?;
        let outputs = graph.output.iter().map(|output| output.name.clone());
        let checked = Self {
            outputs: outputs.collect(),
            input,
            model,
        };
        match checked.opset() {
            0 => Err(not_onnx(
                "it names no version of ONNX's operators".to_owned(),
            )),
            _ => Ok(checked),
        }
    }

    pub(crate) fn input(&self) -> &GraphPort {
        &self.input
    }

    /// Version of ONNX's own operators.
    pub(crate) fn opset(&self) -> i64 {
        let own = |domain: &str| domain.is_empty() || domain == "ai.onnx";
        let sets = self.model.opset_import.iter();
        sets.filter(|set| own(&set.domain))
            .map(|set| set.version)
            .max()
            .unwrap_or(0)
    }

    /// Program and version that wrote it, cut to a line.
    pub(crate) fn producer(&self) -> String {
        let text = format!(
            "{} {}",
            self.model.producer_name, self.model.producer_version
        );
        text.split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .chars()
            .take(100)
            .collect()
    }

    /// Height and width of the image: what the graph says, or where it leaves them open what was asked for.
    pub(crate) fn size(&self, asked: Option<[usize; 2]>) -> Result<[usize; 2], GraphError> {
        let fixed = [self.input.shape[2], self.input.shape[3]];
        let mut size = [0; 2];
        for (axis, size) in size.iter_mut().enumerate() {
            *size = match (fixed[axis], asked.map(|asked| asked[axis])) {
                (Some(fixed), Some(asked)) if fixed != asked => {
                    let reason = format!(
                        "the graph takes images of {}, not of {asked} pixels; leave the size out, or export the graph for {asked}",
                        self.input
                    );
                    return Err(GraphError::Size { reason });
                }
                (Some(fixed), _) => fixed,
                (None, Some(asked)) => asked,
                (None, None) => {
                    let reason = format!(
                        "the graph takes images of any size ({}); say of which with `--size PX`",
                        self.input
                    );
                    return Err(GraphError::Size { reason });
                }
            };
        }
        Ok(size)
    }

    /// A plan that computes `outputs` of one image of `size`.
    pub(crate) fn plan(
        &self,
        size: [usize; 2],
        outputs: &[&str],
    ) -> Result<Arc<TypedRunnableModel>, GraphError> {
        guarded(|| {
            let [height, width] = size;
            // Shapes in between are as the exporter saw them, for any batch.
            let reader = tract_onnx::onnx().with_ignore_value_info(true);
            let mut model = reader.model_for_proto_model(&self.model)?;
            if model.input_outlets()?.len() != 1 {
                return Err(TractError::msg("something else than the image enters it"));
            }
            model.set_input_fact(0, f32::fact([1, 3, height, width]).into())?;
            let named: Vec<OutletId> = outputs
                .iter()
                .map(|name| self.outlet(&model, name))
                .collect::<TractResult<_>>()?;
            model.select_output_outlets(&named)?;
            model.into_optimized()?.into_runnable()
        })
        .map_err(engine)
    }

    fn outlet(&self, model: &InferenceModel, name: &str) -> TractResult<OutletId> {
        // Two outputs may be one value, and a label names only one of them.
        let index = self.outputs.iter().position(|output| output == name);
        let outlets = model.output_outlets()?;
        let outlet = index.and_then(|index| outlets.get(index));
        outlet
            .copied()
            .ok_or_else(|| TractError::msg(format!("it has no output {name}")))
    }

    /// All outputs with the shapes that one grey image of `size` gives.
    pub(crate) fn outputs(&self, size: [usize; 2]) -> Result<Vec<GraphPort>, GraphError> {
        let names: Vec<&str> = self.outputs.iter().map(String::as_str).collect();
        let plan = self.plan(size, &names)?;
        let values = guarded(|| {
            let image = Tensor::zero::<f32>(&[1, 3, size[0], size[1]])?;
            plan.run(tvec!(image.into()))
        });
        let values = values.map_err(engine)?;
        let named = names.iter().zip(values.iter());
        Ok(named
            .map(|(name, value)| GraphPort {
                name: (*name).to_owned(),
                element: match value.datum_type() {
                    DatumType::F32 => "FLOAT".to_owned(),
                    other => format!("{other:?}").to_uppercase(),
                },
                shape: value.shape().iter().map(|size| Some(*size)).collect(),
            })
            .collect())
    }
}

/// Runs `f`; the engine's panics are errors, since a graph that it does not understand is no mistake of ours.
pub(crate) fn guarded<T>(f: impl FnOnce() -> TractResult<T>) -> Result<T, String> {
    Err(match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => format!("{error:#}"),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied());
            format!("it panicked: {}", text.unwrap_or("no reason given"))
        }
    })
}

fn engine(reason: String) -> GraphError {
    GraphError::Engine { reason }
}

fn check_tensors(graph: &GraphProto) -> Result<(), GraphError> {
    graph.initializer.iter().try_for_each(check_tensor)?;
    if !graph.sparse_initializer.is_empty() {
        let operators = "sparse initializers".to_owned();
        return Err(GraphError::Operators { operators });
    }
    for attribute in graph.node.iter().flat_map(|node| &node.attribute) {
        let tensors = attribute.t.iter().chain(&attribute.tensors);
        tensors.into_iter().try_for_each(check_tensor)?;
        let inner = attribute.g.iter().chain(&attribute.graphs);
        inner.into_iter().try_for_each(check_tensors)?;
    }
    Ok(())
}

fn check_tensor(tensor: &TensorProto) -> Result<(), GraphError> {
    if tensor.data_location == Some(DataLocation::External as i32)
        || !tensor.external_data.is_empty()
    {
        return Err(GraphError::ExternalData {
            tensor: tensor.name.clone(),
        });
    }
    let damaged = |reason: String| {
        Err(GraphError::Tensor {
            tensor: tensor.name.clone(),
            reason,
        })
    };
    let mut sizes = tensor.dims.iter().map(|size| usize::try_from(*size).ok());
    let count = sizes.try_fold(1_usize, |product, size| product.checked_mul(size?));
    let Some(count) = count.filter(|_| tensor.dims.len() <= MAX_RANK) else {
        return damaged(format!("its shape is {:?}", tensor.dims));
    };
    let Some(bytes) = element_bytes(tensor.data_type) else {
        return damaged(format!("its element type is {}", tensor.data_type));
    };
    let typed = [
        tensor.float_data.len(),
        tensor.int32_data.len(),
        tensor.int64_data.len(),
        tensor.double_data.len(),
        tensor.uint64_data.len(),
        tensor.string_data.len(),
    ];
    let found = match tensor.raw_data.len() {
        0 => typed.iter().sum(),
        raw if raw.is_multiple_of(bytes) => raw / bytes,
        raw => return damaged(format!("{raw} bytes are no multiple of {bytes}")),
    };
    if found != count {
        return damaged(format!("{found} values where its shape needs {count}"));
    }
    Ok(())
}

/// Bytes of an element in `raw_data`.
fn element_bytes(element: i32) -> Option<usize> {
    Some(match DataType::try_from(element).ok()? {
        DataType::Bool | DataType::Uint8 | DataType::Int8 | DataType::String => 1,
        DataType::Uint16 | DataType::Int16 | DataType::Float16 => 2,
        DataType::Uint32 | DataType::Int32 | DataType::Float => 4,
        DataType::Uint64 | DataType::Int64 | DataType::Double => 8,
        _ => return None,
    })
}

fn check_operators(model: &ModelProto, graph: &GraphProto) -> Result<(), GraphError> {
    let known = tract_onnx::onnx().op_register.0;
    let mut missing = Vec::new();
    let mut graphs = vec![graph];
    while let Some(graph) = graphs.pop() {
        for node in &graph.node {
            if !known.contains_key(&node.op_type) || !DOMAINS.contains(&node.domain.as_str()) {
                missing.push(describe(node, model));
            }
            for attribute in &node.attribute {
                graphs.extend(attribute.g.iter().chain(&attribute.graphs));
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    missing.sort();
    missing.dedup();
    Err(GraphError::Operators {
        operators: missing.join(", "),
    })
}

fn describe(node: &NodeProto, model: &ModelProto) -> String {
    let is_own = |name: &str| name == node.op_type;
    let functions = model.functions.iter().filter_map(|f| f.name.as_deref());
    let name = match node.domain.as_str() {
        "" | "ai.onnx" => node.op_type.clone(),
        domain => format!("{domain}.{}", node.op_type),
    };
    match functions.into_iter().any(is_own) {
        true => format!("{name} (a function of the model, which must be inlined)"),
        false => name,
    }
}

/// Every output is made by something, and nothing is called twice.
fn check_names(graph: &GraphProto) -> Result<(), GraphError> {
    let not_onnx = |reason: String| Err(GraphError::NotOnnx { reason });
    let inputs = graph.input.iter().map(|input| input.name.as_str());
    let constants = graph.initializer.iter().map(|tensor| tensor.name.as_str());
    let made = graph
        .node
        .iter()
        .flat_map(|node| &node.output)
        .map(String::as_str);
    let all: std::collections::HashSet<&str> = inputs.chain(constants).chain(made).collect();
    if graph.output.is_empty() {
        return not_onnx("it has no output".to_owned());
    }
    let outputs = graph.output.iter().map(|output| output.name.as_str());
    for output in outputs {
        if !all.contains(output) {
            return not_onnx(format!("nothing makes its output {output}"));
        }
    }
    Ok(())
}

fn image_input(graph: &GraphProto) -> Result<GraphPort, GraphError> {
    let is_constant = |name: &str| graph.initializer.iter().any(|tensor| tensor.name == name);
    let inputs: Vec<GraphPort> = graph
        .input
        .iter()
        .filter(|input| !is_constant(&input.name))
        .map(port)
        .collect();
    let refuse = |reason: &str| {
        let all: Vec<String> = inputs.iter().map(GraphPort::to_string).collect();
        Err(GraphError::Input {
            inputs: match all.is_empty() {
                true => "nothing".to_owned(),
                false => all.join(", "),
            },
            reason: reason.to_owned(),
        })
    };
    let [input] = &inputs[..] else {
        return refuse("export it with the image as its only input");
    };
    if input.element != "FLOAT" {
        return refuse("export it in f32");
    }
    let any = |found: Option<usize>, wanted: usize| found.is_none_or(|found| found == wanted);
    match input.shape[..] {
        [batch, channels, _, _] if any(batch, 1) && any(channels, 3) => Ok(input.clone()),
        [batch, _, _, channels] if any(batch, 1) && channels == Some(3) => {
            refuse("its channels come last; export it with channels first")
        }
        [batch, channels, _, _] if any(channels, 3) && batch.is_some() => {
            refuse("its batch is fixed; export it with batch 1, or any")
        }
        [_, _, _, _] => refuse("it has other channels than red, green and blue"),
        _ => refuse("it has another number of axes"),
    }
}

fn port(info: &ValueInfoProto) -> GraphPort {
    let tensor = info.r#type.as_ref().and_then(|kind| kind.value.as_ref());
    let tensor = tensor.map(|Value::TensorType(tensor)| tensor);
    let sizes = tensor.and_then(|tensor| tensor.shape.as_ref());
    let size = |value: &Option<Size>| match value {
        Some(Size::DimValue(size)) if *size > 0 => usize::try_from(*size).ok(),
        _ => None,
    };
    GraphPort {
        name: info.name.clone(),
        element: tensor
            .and_then(|tensor| DataType::try_from(tensor.elem_type).ok())
            .map_or("no tensor".to_owned(), |element| {
                element.as_str_name().to_owned()
            }),
        shape: sizes.map_or(Vec::new(), |sizes| {
            sizes.dim.iter().map(|dim| size(&dim.value)).collect()
        }),
    }
}
