//! A read-only registry over local images: the pull side of the OCI distribution-spec 1.1.
//!
//! Images come in, and any runtime can pull them. Where layers are not compressed, which is the
//! default, a blob is the layer itself and its digest is the diff ID. Then nothing is packed or
//! copied: a layer of a plain tar is read where it lies, and one made of the Nix store is made while
//! it is sent. A layer is read only when a client asks for it.
//!
//! - `options`: what to serve, and under which name.
//! - `open`, `layers`: images to a `catalog` of manifests and `blob`s; `packing` and `later`: blobs
//!   that have to be packed.
//! - `connection`, `stall`, `routes`, `answer`, `range`: HTTP.
//! - `sending`: the bytes of a blob on their way out. `pulls`, `counted`: when a pull is complete.

mod answer;
mod blob;
mod catalog;
mod connection;
mod counted;
mod later;
mod layers;
mod open;
mod options;
mod packing;
mod pulls;
mod range;
mod routes;
mod sending;
mod shared;
mod stall;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use self::pulls::Pulls;
use self::sending::BlobReads;
use self::shared::Shared;
use crate::error::Error;
use crate::event::Events;
use crate::reuse::{self, Cache};

pub(crate) use self::blob::ServedBlob;
pub use self::blob::{ServedImage, ServedLayer, ServedPart};
pub(crate) use self::catalog::Catalog;
pub use self::connection::Listener;
pub(crate) use self::open::{Which, open};
pub use self::options::{Offer, PullName, ServeOptions};

/// A registry over images that are open.
pub struct ImageServer {
    shared: Arc<Shared>,
    /// Open until the server is gone, so that what it was told is written.
    _cache: Option<Arc<Cache>>,
}

impl ImageServer {
    /// Opens the images. Their manifests are complete after it: a layer whose digest or length
    /// cannot be known otherwise is read or packed here.
    ///
    /// `events` hears of each blob that is asked for ([`BlobAsked`](crate::event::Event::BlobAsked))
    /// and sent ([`BlobSent`](crate::event::Event::BlobSent)).
    pub async fn open(
        offers: &[Offer],
        options: &ServeOptions,
        events: &Events,
    ) -> Result<Self, Error> {
        let cache = reuse::open_cache(options.cache.as_ref());
        let catalog = open(offers, &Which::All, options, &cache, events).await?;
        Ok(Self { _cache: Some(cache), ..Self::over(Arc::new(catalog), events) })
    }

    /// A registry over what was opened already.
    pub(crate) fn over(catalog: Arc<Catalog>, events: &Events) -> Self {
        let shared = Shared {
            catalog,
            events: events.clone(),
            reading: BlobReads::new(),
            pulls: Pulls::new(),
            bytes_sent: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), _cache: None }
    }

    /// What can be pulled.
    pub fn images(&self) -> &[ServedImage] {
        &self.shared.catalog.images
    }

    /// Bytes of blobs that were given to the network.
    pub fn bytes_sent(&self) -> u64 {
        self.shared.bytes_sent.load(Ordering::Relaxed)
    }

    /// Answers requests until `shutdown` is ready. All connections are closed then.
    pub async fn serve(&self, listener: impl Into<Listener>, shutdown: impl Future<Output = ()>) {
        let listener = listener.into();
        tokio::select! {
            () = connection::serve(&self.shared, &listener) => {}
            () = shutdown => {}
        }
    }

    /// Waits until one pull is complete: a manifest was sent, every blob that was asked for was sent
    /// to its end, and nothing was asked for a second if the config and all layers were sent, and
    /// for ten seconds if the puller left some of them out.
    pub async fn pulled(&self) {
        self.shared.pulls.complete().await;
    }
}
