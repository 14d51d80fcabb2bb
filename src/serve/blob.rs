//! A blob that can be pulled, and the source of its bytes.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use tokio::runtime::Handle;

use super::later::PackedLater;
use crate::error::Error;
use crate::image::{Digest, Platform};
use crate::pack::Spool;
use crate::source::MakeLayer;
use crate::source::layout::{Region, RegionReader};

/// How many bytes of a spool are read at a time.
const CHUNK: usize = 256 << 10;

/// A blob that can be pulled.
pub struct ServedBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// A readable name, such as a package, if it is known.
    pub name: Option<String>,
    /// Its name in the source.
    pub entry: String,
    pub bytes: BlobBytes,
}

/// The source of a blob's bytes.
#[derive(Clone)]
pub enum BlobBytes {
    /// A config.
    Held(Bytes),
    /// A part of a file.
    Stored(Region),
    /// The bytes are made again for each reader, from the beginning.
    Made(MakeLayer),
    /// The bytes were packed into a spool.
    Spooled(Spool),
    /// The cache knows the digest. The blob is packed when the first client requests it.
    Later(Arc<PackedLater>),
}

impl ServedBlob {
    /// The package name, or else the name in the source.
    pub fn label(&self) -> &str {
        self.name.as_ref().unwrap_or(&self.entry)
    }

    /// Reads the blob from its beginning. Call this, and read, only on a thread that may block.
    pub fn reader(&self) -> Result<Box<dyn Read + Send>, Error> {
        let spooled = |spool: Spool| SpoolReader {
            spool,
            runtime: Handle::current(),
            position: 0,
            chunk: Bytes::new(),
        };
        Ok(match &self.bytes {
            BlobBytes::Held(bytes) => Box::new(bytes.clone().reader()),
            BlobBytes::Stored(region) => Box::new(RegionReader::new(region.clone())),
            BlobBytes::Made(make) => make()?,
            BlobBytes::Spooled(spool) => Box::new(spooled(spool.clone())),
            BlobBytes::Later(later) => Box::new(spooled(later.spool()?)),
        })
    }
}

/// Reads a blob in a spool, which may still be growing.
struct SpoolReader {
    spool: Spool,
    runtime: Handle,
    position: u64,
    /// Bytes that were read but not returned yet.
    chunk: Bytes,
}

impl Read for SpoolReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.chunk.is_empty() {
            let chunk = self.runtime.block_on(self.spool.chunk(self.position, CHUNK));
            self.chunk = chunk.map_err(io::Error::other)?.unwrap_or_default();
            self.position += self.chunk.len() as u64;
        }
        let length = buffer.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// A manifest or an index that can be pulled.
pub struct ServedManifest {
    /// Its media type.
    pub media_type: String,
    /// The JSON.
    pub bytes: Bytes,
    /// The artifact type for a list of referrers.
    pub(super) artifact_type: Option<String>,
    /// Its annotations, for a list of referrers.
    pub(super) annotations: std::collections::BTreeMap<String, String>,
    /// The manifest that it refers to.
    pub(super) subject: Option<Digest>,
    /// Its config and its layers; empty for an index.
    pub(super) blobs: Vec<Digest>,
}

/// An image, or an index of several, that can be pulled.
#[derive(Clone, Debug)]
pub struct ServedImage {
    /// The names under which it can be pulled; at least one.
    pub names: Vec<super::PullName>,
    /// The digest of its manifest or index.
    pub digest: Digest,
    /// The images of the index, or the single image itself.
    pub parts: Vec<ServedPart>,
}

/// An image for one platform.
#[derive(Clone, Debug)]
pub struct ServedPart {
    /// The digest of its manifest.
    pub manifest: Digest,
    /// The digest of its config, which is Docker's image ID.
    pub config: Digest,
    /// The platform that it runs on.
    pub platform: Platform,
    /// Its layers, lowest first.
    pub layers: Vec<ServedLayer>,
}

/// A layer of a served image.
#[derive(Clone, Debug)]
pub struct ServedLayer {
    /// The digest of its tar.
    pub diff_id: crate::image::DiffId,
    /// The digest of its blob.
    pub blob: Digest,
    /// The blob's length in bytes.
    pub size: u64,
    /// The blob's media type.
    pub media_type: String,
}

/// Fills `buffer` with the bytes of a region that start at `at`.
pub(super) fn read_region(region: &Region, buffer: &mut [u8], at: u64) -> io::Result<()> {
    match region.read_at(buffer, at)? {
        read if read == buffer.len() => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("{} became shorter while it was served", region.name),
        )),
    }
}
