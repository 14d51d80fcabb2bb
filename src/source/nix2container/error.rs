//! Why a nix2container image cannot be read.

use std::sync::Arc;

use super::fault::LayerFault;
use crate::image::{ConfigError, Digest};
use crate::source::error::Error;

/// A nix2container image that cannot be read. Names are safe to print.
#[derive(Debug, thiserror::Error)]
pub enum Nix2containerError {
    /// JSON, but not what nix2container writes.
    #[error(
        "{file} is {what}, not an image; of JSON files those are read that nix2container's \
         buildImage leaves: `nix build .#IMAGE`, then give ./result"
    )]
    NotAnImage { file: Arc<str>, what: &'static str },
    /// JSON with `image-config` that does not have the form of a nix2container image.
    #[error(
        "{file}: not the JSON of a nix2container image: {source}; build the image again, with a \
         nix2container not older than 1.0"
    )]
    Malformed { file: Arc<str>, source: crate::json::Error },
    /// The file of an image of another version.
    #[error(
        "{file}: the nix2container image is of {found}, and version 1 is understood; write an \
         archive with `nix run .#IMAGE.copyTo -- docker-archive:image.tar` and push image.tar"
    )]
    Version { file: Arc<str>, found: String },
    /// The file is longer than the limit.
    #[error(
        "{file} is a JSON file of more than {limit_mib} MiB, which no nix2container image has; \
         give the image itself"
    )]
    TooLong { file: Arc<str>, limit_mib: u64 },
    /// A layer cannot be made as the file describes it.
    #[error(
        "{file}: layer {layer}, of {entry:?}: {fault}; change the image's Nix expression and build \
         it again (nothing was tagged)"
    )]
    Layer { file: Arc<str>, layer: usize, entry: String, fault: Box<LayerFault> },
    /// A path that a layer is made of is missing.
    #[error(
        "{file}: layer {layer} needs {path}, which is not there; fetch or build it with \
         `nix-store --realise {realise}`, or build the image again (nothing was tagged)"
    )]
    StorePathGone { file: Arc<str>, layer: usize, path: String, realise: String },
    /// A layer does not have the length that the file says.
    #[error(
        "{file}: layer {layer}, of {entry:?}, is {actual} bytes long, but the file says {listed}: \
         the store has changed since the image was built, or an older nix2container built it; \
         check with `nix-store --verify --check-contents`, build the image again (nothing was \
         tagged)"
    )]
    LayerLength { file: Arc<str>, layer: usize, entry: String, listed: u64, actual: u64 },
    /// A stored blob does not have the digest that the file says.
    #[error(
        "{file}: layer {layer}, of {entry:?}, has the digest {actual}, but the file says {listed}: \
         it is damaged, or was changed; build the image again (nothing was tagged)"
    )]
    OtherBlob { file: Arc<str>, layer: usize, entry: String, listed: Digest, actual: Digest },
    /// The image config cannot be used.
    #[error("{file}: config: {source}; the image's file is broken, build the image again")]
    BadConfig { file: Arc<str>, source: ConfigError },
}

impl From<Nix2containerError> for Error {
    fn from(error: Nix2containerError) -> Self {
        Self::image(error)
    }
}
