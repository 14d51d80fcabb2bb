//! Getting a blob's bytes to a registry, whatever happens on the way (OCI distribution-spec 1.1,
//! "Pushing blobs").
//!
//! A [`Session`] is one upload session, and its methods are the requests that it takes. The uploader
//! opens a session, sends, and where that fails finds out where the registry stands and goes on from
//! there. How the bytes are sent depends on what the registry has refused so far.

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

/// The bytes of a blob, some of which may still be being made. Any part that exists can be read
/// again.
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

    /// At most `max` bytes from `offset` on, as soon as there are any; `None` at the end.
    fn chunk(
        &self,
        offset: u64,
        max: usize,
    ) -> BoxFuture<'_, Result<Option<Bytes>, UploadSourceError>>;
}

/// Why there are no bytes.
pub type UploadSourceError = Box<dyn std::error::Error + Send + Sync>;

/// Is called with the number of the blob's bytes that the network has taken.
pub type UploadProgress = Arc<dyn Fn(u64) + Send + Sync>;
