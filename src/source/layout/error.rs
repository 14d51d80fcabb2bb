//! What can be wrong with a layout.

use std::fmt;
use std::sync::Arc;

use crate::image::{ConfigError, DiffId, Digest};
use crate::source::error::Error;
use crate::source::role::EntryRole;

/// A layout that cannot be read. `file` is its name, safe to print.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are what the messages say they are")]
pub enum LayoutError {
    /// A layout of a version that is not known.
    #[error(
        "{file}: {entry} says version {found:?}, and only {known} is known; convert it with the \
         program that made it, or with `skopeo copy`"
    )]
    Version { file: Arc<str>, entry: &'static str, found: String, known: &'static str },
    /// A file that every layout has is missing.
    #[error("{file}: {entry} is missing, so the layout is incomplete; make it again")]
    FileMissing { file: Arc<str>, entry: &'static str },
    /// JSON of a layout does not have the expected form.
    #[error("{file}: {of} is broken: {what}; make the layout again")]
    Json { file: Arc<str>, of: Listing, what: String },
    /// A JSON file is longer than the limit.
    #[error(
        "{file}: {entry:?} is {size} bytes long, more than the {limit} that are read of it; this is \
         not what an image builder writes"
    )]
    JsonTooLong { file: Arc<str>, entry: String, size: u64, limit: u64 },
    /// The image config cannot be used.
    #[error("{file}: config {entry:?}: {source}; the archive is broken, make it again")]
    BadConfig { file: Arc<str>, entry: String, source: ConfigError },
    /// A config and a manifest list different numbers of layers.
    #[error(
        "{file}: manifest {manifest} lists {layers} layers, but its config has {diff_ids} diff IDs, so \
         the config is that of another image; make the layout again"
    )]
    LayerCount { file: Arc<str>, manifest: Digest, diff_ids: usize, layers: usize },
    /// A layer's diff ID is not the one in the config.
    #[error(
        "{file}: layer {blob} of manifest {manifest} has the diff ID {actual}, but the config lists \
         {listed}, so the config is that of another image; make the layout again"
    )]
    OtherLayer { file: Arc<str>, manifest: Digest, blob: Digest, listed: DiffId, actual: Digest },
    /// The layout lists no image.
    #[error("{file}: index.json lists no image; was anything copied into this layout?")]
    Empty { file: Arc<str> },
    /// A blob that a manifest lists is not there.
    #[error(
        "{file}: {by} lists {digest} ({role}), which is missing; the layout is incomplete, make it \
         again"
    )]
    BlobMissing { file: Arc<str>, by: Listing, role: EntryRole, digest: Digest },
    /// A manifest that an index lists is missing, for example because only one platform was
    /// exported.
    #[error(
        "{file}: {by} lists {digest}{platform}, which is missing; if only some platforms were \
         put into this layout, choose one with `--platform OS/ARCHITECTURE`, else make it again"
    )]
    ChildMissing { file: Arc<str>, by: Listing, digest: Digest, platform: String },
    /// A blob is longer or shorter than a manifest says.
    #[error(
        "{file}: {digest} ({role}) is {actual} bytes long, not {listed} as {by} says; the layout is \
         damaged, make it again"
    )]
    BlobSize {
        file: Arc<str>,
        by: Listing,
        role: EntryRole,
        digest: Digest,
        listed: u64,
        actual: u64,
    },
    /// A manifest or config does not have the digest that it is listed under.
    #[error(
        "{file}: what is stored as {listed} ({role}, listed by {by}) hashes to {actual}; the layout \
         is damaged, make it again"
    )]
    BlobDigest { file: Arc<str>, by: Listing, role: EntryRole, listed: Digest, actual: Digest },
    /// The bytes of a blob, read to be uploaded, do not have its digest.
    #[error(
        "{file}: blob {listed} is damaged: its bytes are {actual}; make the layout again (nothing was \
         tagged)"
    )]
    DamagedBlob { file: Arc<str>, listed: Digest, actual: Digest },
    /// A blob became shorter while it was being uploaded.
    #[error("{file}: blob {digest} ended early; is the file being written? Push it again")]
    CutBlob { file: Arc<str>, digest: Digest },
    /// A digest of an algorithm that pushimg does not support.
    #[error(
        "{file}: {by} lists {digest}, and of digests only SHA-256 is supported; copy the image with \
         a program that computes those"
    )]
    DigestAlgorithm { file: Arc<str>, by: Listing, digest: Digest },
    /// A sparse file where all bytes are needed.
    #[error(
        "{file}: {role} {entry:?} is stored as a sparse file, which is not read; make the archive \
         without `tar --sparse`"
    )]
    Sparse { file: Arc<str>, role: EntryRole, entry: String },
    /// The layout has more parts than the limit, or is nested too deeply.
    #[error("{file} holds more than {limit} {what}, which is not what an image builder writes")]
    TooLarge { file: Arc<str>, limit: u64, what: &'static str },
}

impl From<LayoutError> for Error {
    fn from(error: LayoutError) -> Self {
        Self::image(error)
    }
}

/// The JSON document of a layout in which something is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// A file of the layout.
    File(&'static str),
    /// A manifest or an index.
    Manifest(Digest),
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(name) => f.write_str(name),
            Self::Manifest(digest) => write!(f, "manifest {digest}"),
        }
    }
}
