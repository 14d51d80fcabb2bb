//! What identifies a layer: its place in a source, the files it is made of, its blob.

use super::digest::Digest;
use super::media::Compression;

/// The number of a layer in its source, from 0, in the order in which the layers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerId(pub usize);

/// Identifies the bytes of a layer that is made of files that never change. It is the digest of
/// everything that determines these bytes: the store paths, the owner, the time, and the way they
/// are put together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerKey(pub Digest);

/// A layer as a registry stores it: a compressed (or plain) tar.
///
/// The media type is not kept: it follows from the compression and from the
/// [`Format`](super::Format) of the manifest that lists the blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Digest of the bytes as stored.
    pub digest: Digest,
    /// Length of the bytes as stored.
    pub size: u64,
    /// How the tar was compressed.
    pub compression: Compression,
}
