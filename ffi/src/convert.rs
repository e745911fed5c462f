//! From the errors of the façade to status codes.

use crate::status::{Failure, ssl_edge_status as Status};
use sdk::encoder::{BundleError, Interruption, RuntimeError};
use sdk::job::AdaptError;

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        let status = match &error {
            RuntimeError::Bundle(
                BundleError::Read { .. } | BundleError::ReadKey { .. } | BundleError::Save { .. },
            ) => Status::Io,
            RuntimeError::Bundle(BundleError::Key { .. }) => Status::InvalidArgument,
            RuntimeError::Bundle(
                BundleError::Signature { .. }
                | BundleError::Unsigned { .. }
                | BundleError::OtherSigner { .. },
            ) => Status::UntrustedBundle,
            RuntimeError::Bundle(_) => Status::InvalidBundle,
            RuntimeError::Frame(_) => Status::InvalidFrame,
            RuntimeError::EngineUnavailable { .. }
            | RuntimeError::PrecisionUnavailable { .. }
            | RuntimeError::Device { .. }
            | RuntimeError::Load { .. }
            | RuntimeError::Plugin { .. } => Status::EngineUnavailable,
            RuntimeError::SelfTest { .. } => Status::GoldenMismatch,
            RuntimeError::Interrupted { reason, .. } => (*reason).into(),
            RuntimeError::Threads { .. } => Status::InvalidArgument,
            _ => Status::Internal,
        };
        Self::new(status, error.to_string())
    }
}

impl From<Interruption> for Status {
    fn from(reason: Interruption) -> Self {
        match reason {
            Interruption::Deadline => Self::TimedOut,
            Interruption::Cancelled => Self::Cancelled,
        }
    }
}

impl From<AdaptError> for Failure {
    fn from(error: AdaptError) -> Self {
        let status = match &error {
            AdaptError::EmptyClassName | AdaptError::DuplicateClass { .. } => {
                Status::InvalidClassName
            }
            AdaptError::UnknownClass { .. } => Status::UnknownClass,
            AdaptError::UnknownSample { .. } => Status::UnknownSample,
            AdaptError::WrongDimension { .. } | AdaptError::NotFinite { .. } => {
                Status::InvalidEmbedding
            }
            AdaptError::TooFewClasses { .. }
            | AdaptError::EmptyClass { .. }
            | AdaptError::Degenerate { .. }
            | AdaptError::NoGoodFrame => Status::CannotFit,
            AdaptError::Duplicate { .. }
            | AdaptError::Contradiction { .. }
            | AdaptError::SameGolden { .. } => Status::AlreadyTaught,
            AdaptError::BadOption { .. } | AdaptError::DeviceTooSmall { .. } => {
                Status::InvalidArgument
            }
            AdaptError::Device(_) | AdaptError::NotOnDevice { .. } => Status::NoDeviceHead,
            AdaptError::GridShape { .. } | AdaptError::AllMasked { .. } => Status::InvalidFrame,
            AdaptError::TokensNeeded => Status::InvalidEmbedding,
            AdaptError::NotFitted => Status::NotFitted,
            AdaptError::EncoderMismatch { .. } => Status::WrongEncoder,
            AdaptError::Io { .. } => Status::Io,
            AdaptError::NotGolden { .. } => Status::InvalidGolden,
            AdaptError::NotAJob { .. }
            | AdaptError::FileVersion { .. }
            | AdaptError::FileLength { .. }
            | AdaptError::FileDamaged { .. } => Status::InvalidJob,
            _ => Status::Internal,
        };
        Self::new(status, error.to_string())
    }
}

impl From<sdk::Error> for Failure {
    fn from(error: sdk::Error) -> Self {
        match error {
            sdk::Error::Encoder(error) => error.into(),
            sdk::Error::Job(error) => error.into(),
            other => {
                let status = match &other {
                    sdk::Error::Frame(_) => Status::InvalidFrame,
                    sdk::Error::Interrupted { reason } => (*reason).into(),
                    sdk::Error::OtherEncoder => Status::WrongEncoder,
                    sdk::Error::JobChanged { .. } => Status::JobChanged,
                    sdk::Error::ReferenceTaught { .. } => Status::AlreadyTaught,
                    sdk::Error::ReferenceUnknown { .. } => Status::CannotFit,
                    sdk::Error::NoThumbnail { .. } => Status::NoThumbnail,
                    _ => Status::Internal,
                };
                Self::new(status, other.to_string())
            }
        }
    }
}
