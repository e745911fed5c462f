//! `bundle`: what a bundle says of itself, whether it is whole and whose it is, and signing it.

use crate::output::Format;
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde::Serialize;
use ssl_edge::encoder::{Bundle, EncoderSpec, Manifest, PublicKey, SecretKey, save};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What can be done to a bundle.
#[derive(Subcommand)]
pub(crate) enum BundleCommand {
    /// Show the manifest and the members
    Inspect(InspectArgs),
    /// Check every byte, and whose signature it carries
    Verify(VerifyArgs),
    /// Sign it with a private key
    Sign(SignArgs),
    /// Make a pair of keys: one that signs, one that verifies
    Keygen(KeygenArgs),
}

/// Show the manifest and the members.
#[derive(Args)]
pub(crate) struct InspectArgs {
    /// The bundle
    #[arg(value_name = "B.sslb")]
    bundle: PathBuf,
}

/// Check every byte, and whose signature it carries.
#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// The bundle
    #[arg(value_name = "B.sslb")]
    bundle: PathBuf,
    /// Fail unless this public key signed it
    #[arg(long, value_name = "KEY.pub.pem")]
    key: Option<PathBuf>,
}

/// Sign it with a private key. A signature that is there is replaced; jobs taught with the encoder stay valid.
#[derive(Args)]
pub(crate) struct SignArgs {
    /// The bundle
    #[arg(value_name = "B.sslb")]
    bundle: PathBuf,
    /// The private key, PEM
    #[arg(long, value_name = "KEY.pem")]
    key: PathBuf,
    /// Write the signed bundle here and leave the other as it is
    #[arg(long, value_name = "B.sslb")]
    out: Option<PathBuf>,
}

/// Make a pair of keys. No file is replaced.
#[derive(Args)]
pub(crate) struct KeygenArgs {
    /// The private key to write; the public one goes beside it, with `.pub` before its extension
    #[arg(long, value_name = "KEY.pem")]
    out: PathBuf,
}

/// Runs what was asked for.
pub(crate) fn run(command: &BundleCommand, format: Format) -> Result<()> {
    match command {
        BundleCommand::Inspect(args) => inspect(args, format),
        BundleCommand::Verify(args) => verify(args, format),
        BundleCommand::Sign(args) => sign(args, format),
        BundleCommand::Keygen(args) => keygen(args, format),
    }
}

#[derive(Serialize)]
struct Contents<'a> {
    bundle: &'a Path,
    bytes: u64,
    encoder: String,
    signed_by: Option<String>,
    members: BTreeMap<&'a str, u64>,
    manifest: &'a Manifest,
}

fn inspect(args: &InspectArgs, format: Format) -> Result<()> {
    let bundle = Bundle::open(&args.bundle)?;
    bundle.check()?;
    let size = |name| bundle.member_size(name).unwrap_or(0);
    let contents = Contents {
        bundle: &args.bundle,
        bytes: bundle.size(),
        encoder: encoder_of(&bundle),
        signed_by: bundle.signer().map(|key| key.to_string()),
        members: bundle
            .member_names()
            .map(|name| (name, size(name)))
            .collect(),
        manifest: bundle.manifest(),
    };
    format.print(&contents, describe)
}

fn describe(contents: &Contents) -> String {
    let manifest = contents.manifest;
    let (input, made) = (&manifest.preprocess, &manifest.provenance);
    let mut text = format!(
        "{}: {:.1} MB, schema {}, by {}\n\
         encoder {}\n\
         {}: {} values, {}, input {} x {} ({})\n\
         {} on {} images, {} seen, seed {}\n\
         licence: {}\n\
         signed by: {}",
        contents.bundle.display(),
        contents.bytes as f64 / 1e6,
        manifest.schema,
        manifest.created_by,
        contents.encoder,
        manifest.name(),
        manifest.dim(),
        match &manifest.encoder {
            EncoderSpec::Arch(arch) => format!("{} blocks, patch {}", arch.depth, arch.patch),
            EncoderSpec::Graph(graph) => format!(
                "imported graph (opset {}, by {}; class token: {}; patch tokens: {})",
                graph.opset, graph.producer, graph.cls, graph.patches
            ),
        },
        input.width,
        input.height,
        input.fit,
        made.method,
        made.dataset_images,
        made.images_seen,
        made.seed,
        manifest.licence.as_deref().unwrap_or("none given"),
        contents.signed_by.as_deref().unwrap_or("nobody"),
    );
    for (name, variant) in &manifest.variants {
        let bytes = contents.members.get(variant.weights.as_str());
        let megabytes = bytes.copied().unwrap_or_default() as f64 / 1e6;
        text.push_str(&format!("\nalso in {name}: {megabytes:.1} MB"));
        if let Some(figures) = &variant.figures {
            let quality = &figures.quality;
            text.push_str(&format!(
                ", mean cosine to f32 {:.5}, worst 1 % {:.5}, on {} frames",
                quality.cosine_mean, quality.cosine_worst, quality.frames
            ));
        }
    }
    for (name, bytes) in &contents.members {
        text.push_str(&format!("\n{bytes:>12}  {name}"));
    }
    text
}

#[derive(Serialize)]
struct Verified<'a> {
    bundle: &'a Path,
    encoder: String,
    signed_by: Option<String>,
    /// True if a key was required, and it is that one.
    trusted: bool,
}

fn verify(args: &VerifyArgs, format: Format) -> Result<()> {
    let key = args.key.as_deref().map(PublicKey::read).transpose()?;
    let bundle = Bundle::open(&args.bundle)?;
    bundle.check()?;
    if let Some(key) = &key {
        bundle.require_signature(key)?;
    }
    let verified = Verified {
        bundle: &args.bundle,
        encoder: encoder_of(&bundle),
        signed_by: bundle.signer().map(|key| key.to_string()),
        trusted: key.is_some(),
    };
    format.print(&verified, |verified| {
        let signature = match (&verified.signed_by, verified.trusted) {
            (None, _) => "not signed".to_owned(),
            (Some(key), true) => format!("signed by the required key {key}"),
            (Some(key), false) => {
                format!("signed by {key}; pass --key to say whose signature you trust")
            }
        };
        format!("{}: whole, {signature}", verified.bundle.display())
    })
}

#[derive(Serialize)]
struct Signed<'a> {
    bundle: &'a Path,
    signed_by: String,
}

fn sign(args: &SignArgs, format: Format) -> Result<()> {
    let key = SecretKey::read(&args.key)?;
    let bundle = Bundle::open(&args.bundle)?;
    let out = args.out.as_deref().unwrap_or(&args.bundle);
    save(out, &bundle.signed(&key)?)?;
    let signed = Signed {
        bundle: out,
        signed_by: key.public().to_string(),
    };
    format.print(&signed, |signed| {
        format!(
            "{}: signed by {}",
            signed.bundle.display(),
            signed.signed_by
        )
    })
}

#[derive(Serialize)]
struct Keys {
    private: PathBuf,
    public: PathBuf,
    key: String,
}

fn keygen(args: &KeygenArgs, format: Format) -> Result<()> {
    let public = public_name(&args.out);
    for path in [&args.out, &public] {
        if path.exists() {
            bail!(
                "{} exists, and a key never replaces a file; choose another name",
                path.display()
            );
        }
    }
    let key = SecretKey::generate()?;
    key.write(&args.out)?;
    key.public().write(&public)?;
    let keys = Keys {
        private: args.out.clone(),
        public,
        key: key.public().to_string(),
    };
    format.print(&keys, |keys| {
        format!(
            "{}: signs; keep it where bundles are released, and keep it secret\n{}: verifies; put it on every station\nkey {}",
            keys.private.display(),
            keys.public.display(),
            keys.key
        )
    })
}

/// `station.pem` gives `station.pub.pem`, `station` gives `station.pub`.
fn public_name(private: &Path) -> PathBuf {
    match private.extension() {
        Some(extension) => {
            let mut last = std::ffi::OsString::from("pub.");
            last.push(extension);
            private.with_extension(last)
        }
        None => private.with_extension("pub"),
    }
}

fn encoder_of(bundle: &Bundle) -> String {
    let hash = bundle.encoder_hash();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_key_lies_beside_the_private_one() {
        for (private, public) in [
            ("a/k.pem", "a/k.pub.pem"),
            ("k", "k.pub"),
            ("a.b.key", "a.b.pub.key"),
        ] {
            assert_eq!(public_name(Path::new(private)), Path::new(public));
        }
    }
}
