//! What engines need of a bundle, and why one cannot be loaded.

use ssl_edge_bundle::{ArchSpec, Bundle, BundleError, Manifest, WEIGHTS};
use ssl_edge_nn::{Error, Gelu, VitConfig};

use super::{EngineKind, Precision};
use crate::RuntimeError;

/// Why an engine cannot load a bundle.
#[derive(Debug)]
pub(super) enum Unfit {
    /// A member is missing or damaged.
    Bundle(BundleError),
    Reason(String),
}

impl Unfit {
    pub(super) fn of(self, bundle: &Bundle, engine: EngineKind) -> RuntimeError {
        match self {
            Self::Bundle(error) => error.into(),
            Self::Reason(reason) => RuntimeError::Load {
                path: bundle.path().to_owned(),
                engine,
                reason,
            },
        }
    }
}

impl From<BundleError> for Unfit {
    fn from(error: BundleError) -> Self {
        Self::Bundle(error)
    }
}

impl From<String> for Unfit {
    fn from(reason: String) -> Self {
        Self::Reason(reason)
    }
}

impl From<Error> for Unfit {
    fn from(error: Error) -> Self {
        match error {
            Error::Read { source } => match source.downcast::<BundleError>() {
                Ok(error) => Self::Bundle(error),
                Err(source) => Error::Read { source }.to_string().into(),
            },
            other => Self::Reason(other.to_string()),
        }
    }
}

/// The transformer that a manifest describes.
pub fn vit_config(arch: &ArchSpec) -> VitConfig {
    VitConfig {
        dim: arch.dim,
        depth: arch.depth,
        heads: arch.heads,
        patch: arch.patch,
        registers: arch.registers,
        mlp_ratio: arch.mlp_ratio,
        image_size: arch.image_size,
        gelu: if arch.gelu == "erf" {
            Gelu::Erf
        } else {
            Gelu::Tanh
        },
        eps: arch.eps,
    }
}

/// Name of the member with the weights of a precision.
pub(super) fn weights(manifest: &Manifest, precision: Precision) -> Result<&str, String> {
    match precision {
        Precision::F32 => Ok(WEIGHTS),
        _ => match manifest.variants.get(precision.name()) {
            Some(variant) => Ok(&variant.weights),
            None => Err(format!("it has no {precision} variant")),
        },
    }
}
