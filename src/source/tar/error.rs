//! What can be wrong with a tar.

use std::fmt;
use std::sync::Arc;

use crate::source::error::Error;
use crate::source::role::EntryRole;
use crate::source::wrapping::Wrapping;

/// A tar that cannot be read. Offsets count the bytes of the tar, uncompressed; names that come
/// from inside it are printed quoted and escaped.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// Compressed, but not a tar inside.
    #[error(
        "{file} is {wrapping} data, but what is inside is not a tar archive; give a docker archive, \
         plain or compressed once"
    )]
    NotTar { file: Arc<str>, wrapping: Wrapping },
    /// The tar stops before its end.
    #[error(
        "{file}: the tar archive is truncated: it ends at byte {at}, in {position}; was the download \
         or the build cut off? Make or fetch it again"
    )]
    Truncated { file: Arc<str>, at: u64, position: TarPosition },
    /// The archive has ended, but its stream goes on.
    #[error(
        "{file}: more than {limit_mib} MiB follow the end of the archive; does the program that writes \
         it end? Make it again"
    )]
    Endless { file: Arc<str>, limit_mib: u64 },
    /// A header of the tar is wrong.
    #[error(
        "{file}: the tar archive is damaged at byte {at}, in {position}: {what}; make or fetch it \
         again"
    )]
    Corrupt { file: Arc<str>, at: u64, position: TarPosition, what: &'static str },
    /// More entries than any image has.
    #[error(
        "{file} holds more than {limit} files or very long names, where the archive of an image holds \
         one file for each layer; is it a root file system? Import it first: `docker import`"
    )]
    TooManyEntries { file: Arc<str>, limit: usize },
    /// The tar of a root file system, or of a single layer.
    #[error(
        "{file} is a root file system (it holds {entry:?}), not a docker archive; make an image of \
         it first: `docker import {file} NAME`, then `docker save NAME`"
    )]
    RootFileSystem { file: Arc<str>, entry: String },
    /// A tar, but no docker archive.
    #[error(
        "{file} is a tar archive without manifest.json or oci-layout, so it is no docker archive and \
         no OCI layout; make one with `nix build .#docker`, `docker save` or `podman save`"
    )]
    NoManifest { file: Arc<str> },
    /// The archive of an image, packed with the folder that it was in.
    #[error(
        "{file} has its image in the folder {folder:?}; pack what is in the folder: \
         `tar -xf {file} && tar -C {folder} -cf image.tar .`, then push image.tar"
    )]
    InFolder { file: Arc<str>, folder: String },
    /// An archive as Docker wrote it before version 1.10, without manifest.json.
    #[error(
        "{file} is a docker archive of the format before Docker 1.10 (it has no manifest.json), which \
         is not read; convert it: `docker load -i {file}`, then `docker save IMAGE`"
    )]
    Legacy { file: Arc<str> },
    /// manifest.json names something that is not in the archive.
    #[error(
        "{file}: manifest.json names the {role} {entry:?}, which is not in the archive{via}; it is \
         incomplete, make it again"
    )]
    Missing { file: Arc<str>, role: EntryRole, entry: String, via: Via },
    /// Links that lead back to themselves, or through too many others.
    #[error("{file}: the link {entry:?} leads in a circle; the archive is broken, make it again")]
    LinkCircle { file: Arc<str>, entry: String },
}

impl From<TarError> for Error {
    fn from(error: TarError) -> Self {
        Self::image(error)
    }
}

/// Where in a tar something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TarPosition {
    /// Before or in the very first header.
    Start,
    /// In the content of this entry.
    Content(String),
    /// In the header that follows this entry.
    After(String),
}

impl fmt::Display for TarPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("the first header"),
            Self::Content(entry) => write!(f, "entry {entry:?}"),
            Self::After(entry) => write!(f, "the header after entry {entry:?}"),
        }
    }
}

/// The link through which a missing entry was looked for, if any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via(pub Option<String>);

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(target) => write!(f, " (it is a link to {target:?}, which is missing)"),
            None => Ok(()),
        }
    }
}
