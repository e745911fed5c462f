//! Graphs as another program would write them: other names, other layouts. For tests.

use prost::Message;

use super::graph::{Axis, GraphBuilder, ints};
use super::proto::ModelProto;

/// Height and width of the image.
pub(crate) const SIZE: [usize; 2] = [8, 12];
/// Side of a patch; 2 x 3 of them.
const PATCH: usize = 4;
/// Width of a token.
pub(crate) const DIM: usize = 8;
/// Class token and two registers.
pub(crate) const PREFIX: usize = 3;

/// What a graph gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gives {
    /// `feature_map [B, D, 2, 3]`.
    Map,
    /// `last_hidden_state [1, 3 + 6, D]`: class token, two registers, patches.
    Tokens,
    /// `pooled [B, D]`: the mean over the map.
    Pooled,
}

/// Weights of the patch projection, `[D, 3, 4, 4]` and `[D]`, and of the tokens before the patches, `[3, D]`.
fn weights() -> [Vec<f32>; 3] {
    let values = |len: usize, salt: usize| {
        let value = |i: usize| ((i * 7919 + salt * 104_729) % 1009) as f32 / 504.5 - 1.0;
        (0..len).map(value).collect()
    };
    [
        values(DIM * 3 * PATCH * PATCH, 1),
        values(DIM, 2),
        values(PREFIX * DIM, 3),
    ]
}

/// A graph that takes `pixel_values [N, 3, 8, 12]`.
pub(crate) fn model(gives: &[Gives]) -> ModelProto {
    let [kernel, bias, prefix] = weights();
    let mut graph = GraphBuilder::new("main_graph", "");
    let [height, width] = SIZE;
    let size = |sizes: &[usize]| {
        let sizes = sizes.iter().map(|size| Axis::Size(*size));
        std::iter::once(Axis::Batch)
            .chain(sizes)
            .collect::<Vec<_>>()
    };
    graph.input("pixel_values", "", &size(&[3, height, width]));
    graph.floats("embed.weight", &[DIM, 3, PATCH, PATCH], &kernel);
    graph.floats("embed.bias", &[DIM], &bias);
    let patch = PATCH as i64;
    let conv = [
        ints("kernel_shape", &[patch, patch]),
        ints("strides", &[patch, patch]),
    ];
    let inputs = ["pixel_values", "embed.weight", "embed.bias"];
    graph.node("Conv", "feature_map", &inputs, conv.to_vec());
    graph.ints("flat", &[0, DIM as i64, -1]);
    graph.node("Reshape", "flattened", &["feature_map", "flat"], vec![]);
    let order = vec![ints("perm", &[0, 2, 1])];
    graph.node("Transpose", "patches", &["flattened"], order);
    graph.floats("prefix", &[1, PREFIX, DIM], &prefix);
    let axis = vec![super::graph::int("axis", 1)];
    graph.node("Concat", "last_hidden_state", &["prefix", "patches"], axis);
    graph.node("GlobalAveragePool", "averaged", &["feature_map"], vec![]);
    graph.node("Flatten", "pooled", &["averaged"], vec![]);
    for given in gives {
        match given {
            Gives::Map => graph.output("feature_map", "", &size(&[DIM, 2, 3])),
            Gives::Tokens => graph.output("last_hidden_state", "", &size(&[PREFIX + 6, DIM])),
            Gives::Pooled => graph.output("pooled", "", &size(&[DIM])),
        }
    }
    ModelProto::decode(&*graph.finish()).expect("it was just written")
}

/// Class token `[D]` and patch tokens `[6, D]` that [`Gives::Tokens`] has for an image `[3, 8, 12]`, in plain loops.
pub(crate) fn tokens(image: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let [kernel, bias, prefix] = weights();
    let [height, width] = SIZE;
    let mut patches = Vec::new();
    for index in 0..6 {
        let (top, left) = (index / 3 * PATCH, index % 3 * PATCH);
        for channel in 0..DIM {
            let mut sum = f64::from(bias[channel]);
            for (k, weight) in kernel[channel * 48..][..48].iter().enumerate() {
                let (plane, row, column) = (k / 16, k / 4 % 4, k % 4);
                let at = (plane * height + top + row) * width + left + column;
                sum += f64::from(*weight) * f64::from(image[at]);
            }
            patches.push(sum as f32);
        }
    }
    (prefix[..DIM].to_vec(), patches)
}
