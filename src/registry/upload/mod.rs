//! Uploads a blob, and continues after failures (OCI distribution-spec 1.1, "Pushing blobs").
//!
//! A [`Session`] is one upload session, and its methods are the requests to it. The uploader opens
//! a session and sends the bytes. After a failure it finds out how many bytes the registry has, and
//! continues there. The way in which bytes are sent depends on what the registry has rejected so
//! far.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

mod body;
pub(super) mod method;
pub(super) mod session;
pub(super) mod sessions;
mod uploader;

pub use session::Session;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) use session::arrived;
pub use sessions::Sessions;

use crate::image::Digest;

/// The bytes of a blob. They may still be being made, and any part that exists can be read again.
pub trait UploadSource: Send + Sync + 'static {
    /// Digest and length, once they are known.
    fn whole(&self) -> Option<(Digest, u64)>;

    /// How many bytes exist so far. Default: all.
    fn ready(&self) -> u64 {
        self.whole().map_or(0, |(_, size)| size)
    }

    /// Waits until digest and length are known. Default: they are known from the beginning.
    fn finished(&self) -> BoxFuture<'_, Result<(Digest, u64), UploadSourceError>> {
        let whole = self.whole().ok_or_else(|| "the blob's digest is not known".into());
        Box::pin(async { whole })
    }

    /// At most `max` bytes from `offset` on. Waits until there are any; `None` at the end.
    fn chunk(
        &self,
        offset: u64,
        max: usize,
    ) -> BoxFuture<'_, Result<Option<Bytes>, UploadSourceError>>;
}

/// Why no bytes can be read.
pub type UploadSourceError = Box<dyn std::error::Error + Send + Sync>;

/// Called with the number of the blob's bytes that the network has taken.
pub type UploadProgress = Arc<dyn Fn(u64) + Send + Sync>;
