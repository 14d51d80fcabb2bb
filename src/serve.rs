//! A read-only registry for local images: the pull side of the OCI distribution-spec 1.1.
//!
//! It serves images to any runtime. By default layers are not compressed. Then a blob is the layer
//! itself, and its digest is the diff ID, so nothing is packed or copied: a layer of a plain tar is
//! read from its file, and a layer of Nix store paths is made while it is sent. A layer is read
//! only when a client requests it.
//!
//! - `options`: what to serve, and under which name.
//! - `open`, `layers`: make a `catalog` of manifests and `blob`s from images. `packing` and
//!   `later`: blobs that have to be packed.
//! - `connection`, `stall`, `routes`, `answer`, `range`: HTTP.
//! - `sending`: sends the bytes of a blob. `pulls`, `counted`: find out when a pull is complete.

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

/// A registry for images that are open.
pub struct ImageServer {
    shared: Arc<Shared>,
    /// Kept until the server is dropped, so that everything in it is written.
    _cache: Option<Arc<Cache>>,
}

impl ImageServer {
    /// Opens the images. Afterwards their manifests are complete: a layer is read or packed here if
    /// its digest or length is not known otherwise.
    ///
    /// `events` receives an event for each blob that is requested
    /// ([`BlobAsked`](crate::event::Event::BlobAsked)) and sent
    /// ([`BlobSent`](crate::event::Event::BlobSent)).
    pub async fn open(
        offers: &[Offer],
        options: &ServeOptions,
        events: &Events,
    ) -> Result<Self, Error> {
        let cache = reuse::open_cache(options.cache.as_ref());
        let catalog = open(offers, &Which::All, options, &cache, events).await?;
        Ok(Self { _cache: Some(cache), ..Self::over(Arc::new(catalog), events) })
    }

    /// A registry for a catalog that is already open.
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

    /// The images that can be pulled.
    pub fn images(&self) -> &[ServedImage] {
        &self.shared.catalog.images
    }

    /// Bytes of blobs that were handed to the network.
    pub fn bytes_sent(&self) -> u64 {
        self.shared.bytes_sent.load(Ordering::Relaxed)
    }

    /// Answers requests until `shutdown` is ready. Then all connections are closed.
    pub async fn serve(&self, listener: impl Into<Listener>, shutdown: impl Future<Output = ()>) {
        let listener = listener.into();
        tokio::select! {
            () = connection::serve(&self.shared, &listener) => {}
            () = shutdown => {}
        }
    }

    /// Waits until one pull is complete: a manifest was sent, every requested blob was sent to its
    /// end, and then there were no requests for a while. This is one second if the config and all
    /// layers were sent, and ten seconds if the client left some of them out.
    pub async fn pulled(&self) {
        self.shared.pulls.complete().await;
    }
}
