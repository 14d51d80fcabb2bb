//! Push a locally built container image to a registry, without a Docker daemon. Only what the
//! registry lacks is sent.
//!
//! ```no_run
//! use pushimg::{Environment, Item, Location, PushOptions, event, push};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let destination = "registry.fly.io/app:v1".parse()?;
//! let item = Item::new(Location::Path("result".into()), Some(destination));
//! let mut options = PushOptions::default();
//! // Credentials as docker, podman and fly leave them.
//! options.registry.credentials.environment = Environment::capture();
//! let report = push(&item, &options, &event::ignore()).await?;
//! println!("{}: {} bytes sent", report.pinned, report.bytes_sent);
//! # Ok(())
//! # }
//! ```
//!
//! [`push`] pushes one image, [`push_all`] several at once, and [`push_index`] several with an
//! index over them. [`inspect::inspect`] looks at an image without pushing it, [`changes`] compares
//! two images, and [`tag`] points tags to an image that is in a registry. [`event`] reports
//! progress as data. A [`Report`](report::Report) says what a push did, an [`Error`] why it failed.
//! All of them need a tokio runtime.
//!
//! # What happens to a layer
//!
//! A docker archive contains uncompressed layers, which are identified by their *diff ID*. A
//! registry contains compressed blobs, which are identified by their digest. The image that was
//! pushed before shows which blob belongs to which layer: its config lists the diff IDs, and its
//! manifest lists the blobs in the same order.
//!
//! ```text
//!  source ──► IncomingLayer ──► reuse: which blobs may be this diff ID?
//!    │                            │
//!    │                            ▼
//!    │                          ledger: does the repository have one of them, or can it be mounted? ──► skip the bytes
//!    │                            │ no
//!    │                            ▼
//!    │                          pack: hash the bytes, compress them in blocks on all cores, spool the blob
//!    │                            ▼
//!    │                          ledger: the same question for the new blob; if not, upload it
//!    ▼                            ▼
//!  config ───────────────────► manifest ─► PUT under each tag ─► report
//! ```
//!
//! 1. The source yields the layers in the order in which they are stored, on a thread of its own.
//!    Each layer comes with what is known before it is read, such as its diff ID.
//! 2. `reuse` reads the images that the destination's tags point to (if none exists, `latest`), the
//!    images of `--reuse-from`, those of the run's other destinations, and the local cache. It names
//!    candidates: blobs that may be the layer.
//! 3. The *ledger* knows which repository has which blob. It asks the registry, mounts and uploads.
//!    If the repository has a candidate (this is asked with a HEAD request), or if the registry
//!    mounts it from another repository, the layer's bytes are skipped.
//! 4. Otherwise `pack` hashes the layer, which shows whether its diff ID is right, and makes a blob
//!    of it, in memory or in a temporary file. The ledger looks for that blob in the same way, and
//!    uploads it if necessary. A big layer is uploaded while it is being packed. Its digest is
//!    known only at the end; if the repository turns out to have the blob, the upload is cancelled.
//! 5. The config is one more blob. When the repository has all blobs, the manifest is put under
//!    each tag. If the registry rejects OCI's format, the manifest is put in Docker's format.
//! 6. Some information may have been wrong: the registry refuses the manifest because it does not
//!    have a blob that an earlier image lists, or a layer's name in the archive is not its diff ID.
//!    Then there is a second and last attempt, which relies only on what the registry has shown in
//!    this run.
//!
//! An OCI layout already contains blobs, as a registry does. They are not looked up by diff ID and
//! not packed; the ledger finds, mounts or uploads them.

pub mod changes;
mod choice;
#[doc(hidden)]
pub mod cli;
mod error;
pub mod event;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
#[doc(hidden)]
pub mod image;
pub mod inspect;
mod json;
mod open_files;
#[doc(hidden)]
pub mod pack;
mod push;
#[doc(hidden)]
pub mod registry;
mod remote;
pub mod report;
mod reuse;
pub mod serve;
#[doc(hidden)]
pub mod source;
pub mod ssh;
pub mod tag;

pub use error::Error;
pub use image::{
    Compression, DiffId, Digest, Format, InvalidReference, LayerId, Platform, Reference,
};
pub use push::{
    DEFAULT_JOBS, EventsOf, Index, IndexItem, Item, PushOptions, expand, push, push_all, push_index,
};
pub use registry::auth::{Environment, Secret, Sources as CredentialSources};
pub use registry::{Options as RegistryOptions, Sessions, TlsOptions};
pub use reuse::CacheLocation;
pub use source::{Location, Selection};
