//! What can go wrong, said so that the reader knows what to do.

use std::path::PathBuf;

/// Every failure of this crate. A job is unchanged by a call that fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdaptError {
    /// A class without a name cannot be shown to an operator.
    #[error("a class needs a name; give one that is not empty")]
    EmptyClassName,
    /// Two classes of one job may not share a name.
    #[error("the job already has a class `{name}`; add the samples to it, or choose another name")]
    DuplicateClass {
        /// The name that is taken.
        name: String,
    },
    /// The job has no such class (it was never added, or it was removed).
    #[error("the job has no class with id {id}; use an id that `add_class` returned")]
    UnknownClass {
        /// The id asked for.
        id: u32,
    },
    /// The job has no such sample (it was never added, or it was removed).
    #[error("the job has no sample with id {id}; use an id that `add_sample` returned")]
    UnknownSample {
        /// The id asked for.
        id: u64,
    },
    /// An embedding does not have the encoder's length.
    #[error(
        "{what}: the embedding has {got} values where {expected} are needed; embed it with the job's own encoder"
    )]
    WrongDimension {
        /// The sample or frame.
        what: String,
        /// Values that the encoder gives.
        expected: usize,
        /// Values found.
        got: usize,
    },
    /// An embedding holds a NaN or an infinity.
    #[error(
        "{what}: value {index} of the embedding is {value}; check the frame and the encoder that produced it"
    )]
    NotFinite {
        /// The sample or frame.
        what: String,
        /// Index of the first such value.
        index: usize,
        /// `NaN`, `inf` or `-inf`.
        value: f32,
    },
    /// A job needs a class, and a head two.
    #[error(
        "there are too few classes ({found}); a head needs at least two classes, a job of good parts alone one: add a class with at least one sample"
    )]
    TooFewClasses {
        /// `none`, or the only class.
        found: String,
    },
    /// A class has no sample.
    #[error("class `{class}` has no sample; add one, or remove the class")]
    EmptyClass {
        /// The class.
        class: String,
    },
    /// All embeddings are the same, so that nothing separates the classes.
    #[error(
        "all {n} samples have the same embedding; check that the images differ and that the encoder is trained"
    )]
    Degenerate {
        /// Number of samples.
        n: usize,
    },
    /// An option is out of its range.
    #[error("{name} is {value}; it must be {range}")]
    BadOption {
        /// The option.
        name: &'static str,
        /// The value given.
        value: String,
        /// What is allowed.
        range: &'static str,
    },
    /// The job looks at surfaces.
    #[error(
        "the job learned the surface of good parts, and a verdict needs the frame's patch tokens; inspect the frame, not its embedding alone"
    )]
    TokensNeeded,
    /// A frame was taught twice.
    #[error(
        "`{frame}` is the frame that was taught as sample {sample} (`{source_of_sample}`), bit for bit; show another one, or check that the camera is running"
    )]
    Duplicate {
        /// The frame.
        frame: String,
        /// The sample that it was taught as.
        sample: u64,
        /// Where that came from.
        source_of_sample: String,
    },
    /// A frame was taught with two labels.
    #[error(
        "`{frame}` is to be `{class}` and was taught as `{class_of_sample}` (sample {sample}, `{source_of_sample}`); relabel that sample, or leave this frame out"
    )]
    Contradiction {
        /// The frame.
        frame: String,
        /// The label it is to get.
        class: String,
        /// The sample that it was taught as.
        sample: u64,
        /// Where that came from.
        source_of_sample: String,
        /// Its label.
        class_of_sample: String,
    },
    /// The job's features have no such part.
    #[error("the job's features have no part `{name}`; its parts are {parts}")]
    UnknownPart {
        /// The name asked for.
        name: String,
        /// The parts that there are.
        parts: String,
    },
    /// The job was changed after its last fit, or never fitted.
    #[error("the job is not fitted since its last change; call `fit` before `inspect`")]
    NotFitted,
    /// Embeddings come from another encoder.
    #[error(
        "{what} was taught with encoder {own} ({own_dim} values) and {given}; open the bundle that {what} was taught with, or teach anew from \
         the images with this one"
    )]
    EncoderMismatch {
        /// `the job` or another file.
        what: &'static str,
        /// Start of the hash of its encoder, in hexadecimal.
        own: String,
        /// Values that its encoder gives.
        own_dim: usize,
        /// The encoder at hand.
        given: String,
    },
    /// The numerical solver gave up. Embeddings of any finite size do not cause this.
    #[error(
        "the eigendecomposition of a {size}×{size} matrix did not converge; check the embeddings for extreme values"
    )]
    NoConvergence {
        /// Order of the matrix.
        size: usize,
    },
    /// Labels and features do not fit together.
    #[error(
        "{what}: {got} where {expected} is needed; pass row-major features [N, D] with N labels"
    )]
    Shape {
        /// Which of them.
        what: &'static str,
        /// What was needed.
        expected: usize,
        /// What was found.
        got: usize,
    },
    /// A class is too small for the evaluation asked for.
    #[error("class {class} has {n} images; {shots} shots need at least {} of them, so that one is left to test: add images or lower the shots", shots + 1)]
    ClassTooSmall {
        /// Index of the class.
        class: usize,
        /// Its images.
        n: usize,
        /// Images to draw from it.
        shots: usize,
    },
    /// The head does not fit into what a device head can be.
    #[error("the job cannot be put on a device: {0}")]
    Device(#[from] ssl_edge_head::BuildError),
    /// The memory given for a device head is too small.
    #[error(
        "the job needs at least {needed} bytes on the device and {given} are given; give more, or remove classes"
    )]
    DeviceTooSmall {
        /// Bytes for the head and a row of each class.
        needed: usize,
        /// Bytes given.
        given: usize,
    },
    /// Tokens, masks or pictures do not fit together.
    #[error("{what}: {got} where {expected} is needed; {remedy}")]
    GridShape {
        /// What does not fit.
        what: &'static str,
        /// What was needed.
        expected: String,
        /// What was found.
        got: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A mask leaves nothing of a frame.
    #[error(
        "{what}: every token is masked out; widen the region of interest or shrink the ignored areas"
    )]
    AllMasked {
        /// The frame.
        what: String,
    },
    /// A model of good parts needs a good part.
    #[error("there is no good frame to learn from; teach at least one good part")]
    NoGoodFrame,
    /// A golden part is shown twice.
    #[error(
        "golden parts {first} and {second} (counted from 0) look the same, bit for bit; show each part once, so that it can be told how much they differ"
    )]
    SameGolden {
        /// Index of the first of them.
        first: usize,
        /// Index of the other.
        second: usize,
    },
    /// More is taken out of statistics than they hold.
    #[error(
        "{removed} tokens are to be forgotten and only {held} were learned; forget only frames that were learned"
    )]
    NotLearned {
        /// Tokens to take out.
        removed: u64,
        /// Tokens held.
        held: u64,
    },
    /// The file system refused.
    #[error("cannot {action} `{}`: {source}; {}", path.display(), remedy_for(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is no job file.
    #[error("`{}` is not a job file (it does not start with SSLEJOB); pass the .sslj file that `save` wrote", path.display())]
    NotAJob {
        /// The file.
        path: PathBuf,
    },
    /// The file is no file of golden parts.
    #[error("`{}` is not a golden file (it does not start with SSLEGLD); pass the .sslg file that `save` wrote", path.display())]
    NotGolden {
        /// The file.
        path: PathBuf,
    },
    /// The file is of a later version of the format.
    #[error("`{}` is a file of version {found} and this program reads version {supported}; update the program", path.display())]
    FileVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version that this program reads and writes.
        supported: u32,
    },
    /// A fitted head that the integers of a device do not hold.
    #[error("a device does not run {what}; {remedy}")]
    NotOnDevice {
        /// The head.
        what: &'static str,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The file's length is not the one that its header announces.
    #[error("`{}` has {found} bytes and its header announces {expected}; it was cut or overwritten: copy it again or restore a backup", path.display())]
    FileLength {
        /// The file.
        path: PathBuf,
        /// Bytes announced (at least; the header itself may be cut).
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// Another process is changing the job.
    #[error("another process is changing `{}`; try again when it is done", path.display())]
    Busy {
        /// The job file.
        path: PathBuf,
    },
    /// The file's content is damaged.
    #[error("`{}` is damaged ({why}); copy it again or restore a backup", path.display())]
    FileDamaged {
        /// The file.
        path: PathBuf,
        /// What does not hold.
        why: String,
    },
}

fn remedy_for(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind::{NotFound, PermissionDenied, ReadOnlyFilesystem, StorageFull};
    match error.kind() {
        NotFound => "check the path and that its folder exists",
        PermissionDenied => "check the permissions of the file and its folder",
        ReadOnlyFilesystem => "the disk is mounted read-only: choose another folder",
        StorageFull => {
            "the disk is full: free space and save again (a file of that name is as it was)"
        }
        _ => "check the disk and the path",
    }
}

/// Checks an embedding's length and values.
pub(crate) fn check_embedding(
    what: impl FnOnce() -> String,
    embedding: &[f32],
    dim: usize,
) -> Result<(), AdaptError> {
    if embedding.len() != dim || dim == 0 {
        return Err(AdaptError::WrongDimension {
            what: what(),
            expected: dim.max(1),
            got: embedding.len(),
        });
    }
    match embedding.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(AdaptError::NotFinite {
            what: what(),
            index,
            value: embedding[index],
        }),
        None => Ok(()),
    }
}
