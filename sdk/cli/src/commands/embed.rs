//! `embed`: the embeddings of a folder of images, as safetensors.

use crate::data::{EncoderArgs, check_any_left, scan_images};
use crate::output::Format;
use anyhow::{Context, Result};
use clap::Args;
use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;
use ssl_edge::encoder::{embed_files, save};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Write the embeddings of a folder of images.
#[derive(Args)]
pub(crate) struct EmbedArgs {
    #[command(flatten)]
    encoder: EncoderArgs,
    /// A folder of images, searched in depth
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// The file to write: f32 tensors `cls` and `mean`, [N, D], with the file names under the metadata key `paths`
    #[arg(long, value_name = "E.safetensors")]
    out: PathBuf,
}

#[derive(Serialize)]
struct Report {
    out: PathBuf,
    images: usize,
    dim: usize,
}

/// Embeds all images and saves the tensors.
pub(crate) fn run(args: &EmbedArgs, format: Format) -> Result<()> {
    let files = scan_images(std::slice::from_ref(&args.images))?;
    let encoder = args.encoder.open()?;
    let (mut cls, mut mean, mut paths) = (Vec::new(), Vec::new(), Vec::new());
    let skipped = embed_files(&encoder, &files, |index, _, embedding| {
        cls.extend_from_slice(&embedding.cls);
        mean.extend_from_slice(&embedding.mean);
        paths.push(relative(&files[index], &args.images));
        Ok(())
    })?;
    check_any_left(files.len(), &skipped)?;
    let bytes = serialize(&cls, &mean, &paths, encoder.dim())?;
    save(&args.out, &bytes)?;
    let report = Report {
        out: args.out.clone(),
        images: paths.len(),
        dim: encoder.dim(),
    };
    format.print(&report, |report| {
        format!(
            "{} embeddings of {} values in {}",
            report.images,
            report.dim,
            report.out.display()
        )
    })
}

fn serialize(cls: &[f32], mean: &[f32], paths: &[String], dim: usize) -> Result<Vec<u8>> {
    let (cls, mean) = (little_endian(cls), little_endian(mean));
    let shape = vec![paths.len(), dim];
    let tensors = BTreeMap::from([
        ("cls", TensorView::new(Dtype::F32, shape.clone(), &cls)?),
        ("mean", TensorView::new(Dtype::F32, shape, &mean)?),
    ]);
    let metadata = HashMap::from([("paths".to_owned(), serde_json::to_string(paths)?)]);
    safetensors::serialize(tensors, Some(metadata))
        .context("the embeddings cannot be written as safetensors")
}

fn little_endian(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// `file` as seen from `root`, with forward slashes; a root that is itself the file gives the file's name.
fn relative(file: &Path, root: &Path) -> String {
    let path = match file.strip_prefix(root) {
        Ok(rest) if rest.as_os_str().is_empty() => Path::new(file.file_name().unwrap_or_default()),
        Ok(rest) => rest,
        Err(_) => file,
    };
    let parts: Vec<_> = path
        .components()
        .map(|part| part.as_os_str().to_string_lossy())
        .collect();
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;

    #[test]
    fn names_are_relative_to_the_folder() {
        assert_eq!(
            relative(Path::new("/a/b/c/d.png"), Path::new("/a/b")),
            "c/d.png"
        );
        assert_eq!(
            relative(Path::new("/a/d.png"), Path::new("/a/d.png")),
            "d.png"
        );
    }

    #[test]
    fn the_file_holds_both_tensors_and_the_names_in_row_order() {
        let paths = ["z.png".to_owned(), "a \"quoted\".png".to_owned()];
        let bytes = serialize(&[1.0, 2.0, 3.0, 4.0], &[5.0, 6.0, 7.0, 8.0], &paths, 2).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor("cls").unwrap().shape(), [2, 2]);
        assert_eq!(
            file.tensor("mean").unwrap().data(),
            little_endian(&[5.0, 6.0, 7.0, 8.0])
        );
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let names: Vec<String> =
            serde_json::from_str(&metadata.metadata().as_ref().unwrap()["paths"]).unwrap();
        assert_eq!(names, paths);
    }
}
