//! What is uploaded, as the registry module wants to have it: a spool, or bytes in memory.

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::image::Digest;
use crate::pack::Spool;
use crate::registry::upload::{Content, ContentError};

impl Content for Spool {
    fn whole(&self) -> Option<(Digest, u64)> {
        // Ready at once where the blob is whole; an error shows when the bytes are asked for.
        let packed = self.finished().now_or_never()?.ok()?;
        Some((packed.blob.digest, packed.blob.size))
    }

    fn finished(&self) -> BoxFuture<'_, Result<(Digest, u64), ContentError>> {
        async {
            let packed = Spool::finished(self).await?;
            Ok((packed.blob.digest, packed.blob.size))
        }
        .boxed()
    }

    fn chunk(&self, offset: u64, max: usize) -> BoxFuture<'_, Result<Option<Bytes>, ContentError>> {
        async move { Ok(Spool::chunk(self, offset, max).await?) }.boxed()
    }
}

/// A small blob that is in memory anyway: an image config.
pub struct InMemory {
    /// The bytes.
    pub bytes: Bytes,
    /// Their digest.
    pub digest: Digest,
}

impl Content for InMemory {
    fn whole(&self) -> Option<(Digest, u64)> {
        Some((self.digest.clone(), self.bytes.len() as u64))
    }

    fn finished(&self) -> BoxFuture<'_, Result<(Digest, u64), ContentError>> {
        async { Ok((self.digest.clone(), self.bytes.len() as u64)) }.boxed()
    }

    fn chunk(&self, offset: u64, max: usize) -> BoxFuture<'_, Result<Option<Bytes>, ContentError>> {
        let start = usize::try_from(offset).map_or(self.bytes.len(), |at| at.min(self.bytes.len()));
        let end = self.bytes.len().min(start.saturating_add(max));
        let piece = (end > start).then(|| self.bytes.slice(start..end));
        async move { Ok(piece) }.boxed()
    }
}
