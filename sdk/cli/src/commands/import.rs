//! `import`: somebody else's ONNX graph as a bundle.

use super::export::PoolingArg;
use crate::output::{Format, Table, note};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;
use ssl_edge::encoder::{GraphChoice, GraphPort, GraphSpec, Pooling};
use ssl_edge::export::{GraphImport, ImportReport, import_graph};
use ssl_edge::vision::{Fit, IMAGENET_MEAN, IMAGENET_STD};
use std::path::PathBuf;
use std::str::FromStr;

/// Make a bundle of an ONNX graph that another program wrote.
#[derive(Args)]
pub(crate) struct ImportArgs {
    /// The graph, in one file
    #[arg(value_name = "MODEL.onnx")]
    graph: PathBuf,
    /// Side of the square input in pixels, where the graph takes any
    #[arg(long, value_name = "PX", value_parser = clap::value_parser!(u32).range(1..))]
    size: Option<u32>,
    /// Mean of red, green and blue that the encoder was trained with, of pixels in 0..1; ImageNet's by default
    #[arg(long, value_name = "R,G,B")]
    mean: Option<Rgb>,
    /// Standard deviation of red, green and blue; ImageNet's by default
    #[arg(long, value_name = "R,G,B")]
    std: Option<Rgb>,
    /// How a frame of another shape is brought to the input's
    #[arg(long, value_enum, default_value = "squash")]
    fit: FitArg,
    /// Outputs with the class token and the patch tokens, where the rule is not to decide: cls=NAME,patches=NAME
    #[arg(long, value_name = "TOKENS=NAME", value_delimiter = ',')]
    outputs: Vec<Output>,
    /// Tokens before the patches (class token and registers), where the rule is not to decide
    #[arg(long, value_name = "N")]
    prefix: Option<usize>,
    /// Which tokens make the feature that jobs learn from; the class token where there is one, else the mean of the patches
    #[arg(long, value_enum)]
    pooling: Option<PoolingArg>,
    /// Name of the encoder, for people; the file's by default
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Licence of the weights, an SPDX expression, for the manifest
    #[arg(long, value_name = "SPDX")]
    licence: Option<String>,
    /// The bundle to write
    #[arg(long, value_name = "B.sslb")]
    out: PathBuf,
}

/// Three numbers for red, green and blue.
#[derive(Clone, Copy, Debug)]
struct Rgb([f32; 3]);

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FitArg {
    /// Stretch the whole frame
    Squash,
    /// Cut the largest part of the input's shape from the middle
    CenterCrop,
}

#[derive(Clone, Debug)]
enum Output {
    Cls(String),
    Patches(String),
}

impl FromStr for Rgb {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Result<Vec<f32>, _> = text.split(',').map(|n| n.trim().parse()).collect();
        let numbers = numbers.map_err(|error| format!("{text:?}: {error}"))?;
        let three = <[f32; 3]>::try_from(numbers);
        three.map(Self).map_err(|found| {
            format!(
                "{text:?} has {} numbers, not 3, as in 0.5,0.5,0.5",
                found.len()
            )
        })
    }
}

impl FromStr for Output {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some(("cls", name)) => Ok(Self::Cls(name.to_owned())),
            Some(("patches", name)) => Ok(Self::Patches(name.to_owned())),
            _ => Err(format!("{text:?} is neither cls=NAME nor patches=NAME")),
        }
    }
}

#[derive(Serialize)]
struct Report {
    bundle: PathBuf,
    bytes: u64,
    encoder: String,
    /// How the graph is read.
    graph: GraphSpec,
    input: Port,
    outputs: Vec<Port>,
    height: usize,
    width: usize,
    mean: [f32; 3],
    std: [f32; 3],
    pooling: Pooling,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct Port {
    name: String,
    element: String,
    /// Null where any size will do.
    shape: Vec<Option<usize>>,
}

impl From<&GraphPort> for Port {
    fn from(port: &GraphPort) -> Self {
        Self {
            name: port.name.clone(),
            element: port.element.clone(),
            shape: port.shape.clone(),
        }
    }
}

/// Writes the bundle after the engine has run the graph.
pub(crate) fn run(args: &ImportArgs, format: Format) -> Result<()> {
    let import = args.import()?;
    let report = import_graph(&args.graph, &import, &args.out)?;
    for text in &report.graph.notes {
        note(text);
    }
    format.print(&Report::of(&report, &import), human)
}

impl ImportArgs {
    fn import(&self) -> Result<GraphImport> {
        let stem = self.graph.file_stem().map(|stem| stem.to_string_lossy());
        let name = self.name.clone().or(stem.map(|stem| stem.into_owned()));
        Ok(GraphImport {
            name: name.context("the graph has no file name; give the encoder one with --name")?,
            size: self.size.map(|side| [side as usize; 2]),
            choice: self.choice()?,
            fit: match self.fit {
                FitArg::Squash => Fit::Squash,
                FitArg::CenterCrop => Fit::CenterCrop,
            },
            mean: self.mean.map_or(IMAGENET_MEAN, |mean| mean.0),
            std: self.std.map_or(IMAGENET_STD, |std| std.0),
            pooling: self.pooling.map(PoolingArg::pooling),
            licence: self.licence.clone(),
        })
    }

    fn choice(&self) -> Result<GraphChoice> {
        let mut choice = GraphChoice {
            prefix: self.prefix,
            ..GraphChoice::default()
        };
        for output in &self.outputs {
            let (which, place, name) = match output {
                Output::Cls(name) => ("cls", &mut choice.cls, name),
                Output::Patches(name) => ("patches", &mut choice.patches, name),
            };
            if place.replace(name.clone()).is_some() {
                bail!("--outputs names {which} twice; name it once");
            }
        }
        Ok(choice)
    }
}

impl Report {
    fn of(report: &ImportReport, import: &GraphImport) -> Self {
        let (bundle, graph) = (&report.bundle, &report.graph);
        let hash = bundle.encoder_hash.iter();
        Self {
            bundle: bundle.path.clone(),
            bytes: bundle.bytes,
            encoder: hash.map(|byte| format!("{byte:02x}")).collect(),
            graph: graph.spec.clone(),
            input: (&graph.input).into(),
            outputs: graph.outputs.iter().map(Port::from).collect(),
            height: graph.size[0],
            width: graph.size[1],
            mean: import.mean,
            std: import.std,
            pooling: report.pooling,
            notes: graph.notes.clone(),
        }
    }
}

fn human(report: &Report) -> String {
    let graph = &report.graph;
    let mut table = Table::new(&["", "name", "type", "shape"]);
    let inputs = std::iter::once(("input", &report.input));
    let outputs = report.outputs.iter().map(|output| ("output", output));
    for (kind, port) in inputs.chain(outputs) {
        let sizes = port.shape.iter();
        let sizes: Vec<String> = sizes
            .map(|size| size.map_or("any".to_owned(), |size| size.to_string()))
            .collect();
        table.row(vec![
            kind.to_owned(),
            port.name.clone(),
            port.element.clone(),
            sizes.join(" x "),
        ]);
    }
    format!(
        "{}\n{}: {:.1} MB, encoder {}\n\
         {}: {} values, {} x {} patch tokens, input {} x {}, mean {:?}, std {:?}\n\
         class token: {}; patch tokens: {}; feature: {}\n\
         opset {}, by {}; runs on engine onnx",
        table.render(),
        report.bundle.display(),
        report.bytes as f64 / 1e6,
        &report.encoder[..12],
        graph.name,
        graph.dim,
        graph.grid[0],
        graph.grid[1],
        report.width,
        report.height,
        report.mean,
        report.std,
        graph.cls,
        graph.patches,
        super::export::describe_pooling(report.pooling),
        graph.opset,
        match graph.producer.as_str() {
            "" => "a program that does not say",
            producer => producer,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_numbers_or_a_reason() {
        assert_eq!("0.5, 0.25,1".parse::<Rgb>().unwrap().0, [0.5, 0.25, 1.0]);
        assert!("0.5,0.5".parse::<Rgb>().unwrap_err().contains("2 numbers"));
        assert!("a,b,c".parse::<Rgb>().is_err());
    }

    #[test]
    fn outputs_are_named_by_what_they_hold() {
        assert!(matches!("cls=x=y".parse(), Ok(Output::Cls(name)) if name == "x=y"));
        assert!(matches!("patches=p".parse(), Ok(Output::Patches(_))));
        assert!("tokens=p".parse::<Output>().is_err());
    }
}
