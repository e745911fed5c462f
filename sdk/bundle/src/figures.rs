//! What was measured of a variant beside f32 when the bundle was made. Classes are counted, not named.

use serde::{Deserialize, Serialize};

/// A variant beside f32.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VariantFigures {
    /// How near it comes to f32, and what it does to verdicts.
    #[serde(flatten)]
    pub quality: QualityFigures,
    /// Size of the weights' member.
    pub bytes: u64,
    /// Size of the f32 weights' member.
    pub f32_bytes: u64,
    /// Median milliseconds for a frame.
    pub ms: f64,
    /// The same in f32.
    pub f32_ms: f64,
    /// Threads that were timed.
    pub threads: u64,
    /// Instruction set that was timed.
    pub isa: String,
    /// Bytes of packed weights and work memory.
    pub memory: u64,
    /// The same in f32.
    pub f32_memory: u64,
    /// ONNX graphs of the same weights that were written beside it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub graphs: Vec<GraphFigures>,
}

/// How near features come to those of f32, and what that does to verdicts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QualityFigures {
    /// Frames that the cosines were taken on.
    pub frames: u64,
    /// Mean cosine between the features of both.
    pub cosine_mean: f64,
    /// The cosine that 1 % of the frames are below.
    pub cosine_worst: f64,
    /// Accuracies on labelled frames, where there were any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<ScoreFigures>,
    /// Detection from good parts alone, where there were good and bad ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anomaly: Option<AnomalyFigures>,
}

/// An accuracy of a variant beside that of f32, both in 0..1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreFigures {
    /// `knn`, or `fewshot-5` for five images of each class.
    pub name: String,
    /// Accuracy of the variant.
    pub accuracy: f64,
    /// Half of its 95 % interval.
    pub ci95: f64,
    /// Accuracy of f32.
    pub f32_accuracy: f64,
    /// Half of its 95 % interval.
    pub f32_ci95: f64,
    /// Every class, in the order of its folder's name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<ClassFigures>,
}

/// The recall of a class, 0..1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClassFigures {
    /// Frames that were judged, repeats over draws counted.
    pub frames: u64,
    /// Recall of the variant.
    pub recall: f64,
    /// Recall of f32.
    pub f32_recall: f64,
}

/// Area under the ROC curve of anomaly scores, 0..1; good parts are learned anew from each precision's patch tokens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AnomalyFigures {
    /// Good parts that were learned.
    pub learned: u64,
    /// Other good parts that were scored.
    pub good: u64,
    /// Bad parts that were scored.
    pub bad: u64,
    /// Area of the variant.
    pub auroc: f64,
    /// Half of its 95 % interval.
    pub ci95: f64,
    /// Area of f32.
    pub f32_auroc: f64,
    /// Half of its 95 % interval.
    pub f32_ci95: f64,
}

/// An ONNX graph beside f32.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GraphFigures {
    /// The member.
    pub member: String,
    /// Its size.
    pub bytes: u64,
    /// Whether tokens that skip a branch stayed f32 in a graph with calibrated ranges, because a gate did not hold otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub float_residuals: bool,
    /// What ran it, and how near it came; `None` where nothing could run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<GraphRun>,
    /// Why it was not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_run: Option<String>,
}

/// A graph that was run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GraphRun {
    /// What ran it, such as `tract`.
    pub engine: String,
    /// Beside the f32 encoder of the native engine.
    #[serde(flatten)]
    pub quality: QualityFigures,
    /// Median milliseconds for a frame.
    pub ms: f64,
}
