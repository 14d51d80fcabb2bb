//! The image model: digests, compressions and media types, configs and manifests.

mod bounded;
mod config;
mod digest;
mod manifest;
mod media;
mod reference;

pub(crate) use bounded::Bounded;
pub use config::{Config, ConfigError, History, MAX_CONFIG_BYTES, MAX_LAYERS};
pub use digest::{DiffId, Digest, Hasher, InvalidDigest};
pub use manifest::{
    IndexEntry, KEY_ANNOTATION, Listed, Manifest, ManifestError, ManifestLayer, Platform,
};
pub use media::{Compression, Format};
pub use reference::{is_tag, parse_reference};

/// What determines the bytes of a layer that is made of files which never change: the digest of
/// all that goes into it (paths of the Nix store, owner, time, and how it is put together).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerKey(pub Digest);

/// A layer as a registry stores it: a compressed (or plain) tar.
///
/// The media type is not kept: it follows from the compression and from the [`Format`] of the
/// manifest that lists the blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Digest of the bytes as stored.
    pub digest: Digest,
    /// Length of the bytes as stored.
    pub size: u64,
    /// How the tar was compressed.
    pub compression: Compression,
}
