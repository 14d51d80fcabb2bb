//! What identifies a layer: its place in a source, the files it is made of, its blob.

use super::digest::Digest;
use super::media::Compression;

/// A layer's place among those that its source yields, from 0 in the order of storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerId(pub usize);

/// What determines the bytes of a layer that is made of files which never change: the digest of
/// all that goes into it (paths of the Nix store, owner, time, and how it is put together).
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
