//! explore
use crate::data::{EncoderArgs, scan_classes};
use crate::output::Format;
use anyhow::Result;
use clap::Args;
use ssl_edge::eval::*;
use std::path::PathBuf;
#[derive(Args)]
pub(crate) struct OpensetArgs {
    #[command(flatten)]
    encoder: EncoderArgs,
    #[arg(long)]
    known: PathBuf,
    #[arg(long)]
    unknown: PathBuf,
    #[arg(long, value_delimiter = ',', default_value = "5")]
    shots: Vec<usize>,
    #[arg(long, default_value_t = 10)]
    draws: usize,
}
pub(crate) fn run(args: &OpensetArgs, _format: Format) -> Result<()> {
    let encoder = args.encoder.open()?;
    let k = part_features(&encoder, &scan_classes(&args.known)?)?;
    let u = part_features(&encoder, &scan_classes(&args.unknown)?)?;
    for parts in [vec!["cls", "texture"], vec!["cls"], vec!["texture"]] {
        let (k, u) = (k.only(&parts)?, u.only(&parts)?);
        let o = OpensetOptions { shots: args.shots.clone(), draws: args.draws, seed: 0, heads: ["lda", "ridge", "logistic"].iter().map(|h| HeadChoice::One(h.parse().unwrap())).collect() };
        for s in openset(&k.labelled()?, &u.labelled()?, &o)? {
            println!("{parts:?} {} {} {:8} auroc {:.3}±{:.3} fpr95 {:.3} acc {:.3}", s.head.name(), s.shots, s.measure, s.auroc, s.ci95, s.fpr95, s.accuracy_known);
        }
    }
    Ok(())
}
