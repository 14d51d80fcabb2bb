//! What can be wrong with a docker archive whose tar is sound.

use std::io;
use std::sync::Arc;

use crate::image::{ConfigError, DiffId};
use crate::source::error::Error;
use crate::source::role::EntryRole;
use crate::source::wrapping::Wrapping;

/// A docker archive that cannot be read. `file` is its name, safe to print; names from inside it are
/// printed quoted and escaped.
#[derive(Debug, thiserror::Error)]
pub enum DockerArchiveError {
    /// A JSON file of the archive is longer than the limit.
    #[error(
        "{file}: {entry:?} is {size} bytes long, more than the {limit} that are read of it; this is \
         not what an image builder writes"
    )]
    JsonTooLong { file: Arc<str>, entry: String, size: u64, limit: u64 },
    /// manifest.json does not have the expected form.
    #[error(
        "{file}: manifest.json is not the one of a docker archive: {source}; make the archive again"
    )]
    MalformedManifest { file: Arc<str>, source: crate::json::Error },
    /// manifest.json is an empty list.
    #[error("{file}: manifest.json lists no image; name one when saving: `docker save IMAGE`")]
    NoImages { file: Arc<str> },
    /// The image config cannot be used.
    #[error("{file}: config {entry:?}: {source}; the archive is broken, make it again")]
    BadConfig { file: Arc<str>, entry: String, source: ConfigError },
    /// manifest.json and config disagree.
    #[error(
        "{file}: config {entry:?} lists {diff_ids} diff IDs, but manifest.json lists {layers} \
         layers for it; the archive is broken, make it again"
    )]
    LayerCount { file: Arc<str>, entry: String, diff_ids: usize, layers: usize },
    /// One stored layer is listed under two diff IDs.
    #[error(
        "{file}: layer {entry:?} is listed under two diff IDs, {one} and {other}, and can only be \
         one of them; the archive is broken, make it again"
    )]
    TwoDiffIds { file: Arc<str>, entry: String, one: DiffId, other: DiffId },
    /// A layer that is neither a tar nor compressed in a way that images use.
    #[error(
        "{file}: layer {entry:?} is neither a tar nor gzip, zstd, xz or bzip2; the archive is broken, \
         make it again"
    )]
    NotALayer { file: Arc<str>, entry: String },
    /// A layer whose compressed bytes are damaged.
    #[error("{file}: layer {entry:?} is corrupt {wrapping} data: {what}; make the archive again")]
    CorruptLayer { file: Arc<str>, entry: String, wrapping: Wrapping, what: String },
    /// A sparse file where all bytes are needed.
    #[error(
        "{file}: {role} {entry:?} is stored as a sparse file, which is not read; make the archive \
         without `tar --sparse`"
    )]
    Sparse { file: Arc<str>, role: EntryRole, entry: String },
    /// The archive has so much JSON that not all was kept.
    #[error(
        "{file}: config {entry:?} was passed over, as the archive holds more JSON than the \
         {limit_mib} MiB kept while streaming; save it as a plain tar file and push that"
    )]
    TooMuchJson { file: Arc<str>, entry: String, limit_mib: u64 },
    /// The config is not JSON.
    #[error("{file}: config {entry:?} is not JSON; the archive is broken, make it again")]
    ConfigNotJson { file: Arc<str>, entry: String },
    /// The second reading found other images than the first.
    #[error("{file} changed while it was being read; push it again when it is complete")]
    Changed { file: Arc<str> },
    /// A stream that turns out to be an OCI layout after its blobs have been read.
    #[error(
        "{file} is an OCI layout behind other files, which shows too late while it streams by; make \
         a plain tar file of it: `{command} {file} > image.tar`, then push image.tar"
    )]
    LateLayout { file: Arc<str>, command: &'static str },
}

/// The error for a layer whose compressed bytes cannot be read. An error of the archive itself is
/// returned unchanged.
pub fn corrupt_layer(file: &Arc<str>, entry: &str, head: &[u8], error: io::Error) -> io::Error {
    if error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        return error;
    }
    let (file, entry, what) = (file.clone(), entry.to_owned(), error.to_string());
    let wrapping = Wrapping::of(head);
    io::Error::other(Error::from(DockerArchiveError::CorruptLayer { file, entry, wrapping, what }))
}

impl From<DockerArchiveError> for Error {
    fn from(error: DockerArchiveError) -> Self {
        Self::image(error)
    }
}
