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
//! two images, and [`tag`] points tags to an image that is in a registry. [`event`] is what happens
//! meanwhile, as data. A [`Report`](report::Report) says what a push did, an [`Error`] why it
//! failed. All need a tokio runtime.
//!
//! # What happens to a layer
//!
//! A docker archive holds uncompressed layers, known by their *diff ID*. A registry holds compressed
//! blobs, known by their digest. The image that was pushed before knows which blob is which layer:
//! its config lists the diff IDs, and its manifest, in the same order, the blobs.
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
//! 1. The source yields the layers in the order of storage, on a thread of its own. With each comes
//!    what is known of it unread, such as its diff ID.
//! 2. `reuse` reads the images that the destination's tags point to (if none exists, `latest`), the
//!    images of `--reuse-from`, those of the run's other destinations, and the local cache. It names
//!    candidates: blobs that may be the layer.
//! 3. The *ledger* knows which repository has which blob, and asks, mounts and uploads. If the repository has a candidate (a HEAD
//!    request asks), or the registry mounts it from another repository, the layer's bytes are
//!    skipped.
//! 4. Otherwise `pack` hashes the layer, which shows whether its diff ID is right, and makes a blob
//!    of it, in memory or in a temporary file. The ledger looks for that blob in the same way, and
//!    uploads it if need be. A big layer is uploaded while it is being packed: its digest is known
//!    only at the end, and the upload is given up if the blob is there by then.
//! 5. The config is one more blob. When all blobs are there, the manifest is put under each tag. If
//!    the registry refuses its format, it is put in Docker's.
//! 6. Something may have been untrue: the registry refuses the manifest because it does not have a
//!    blob that an earlier image lists, or a layer is not what its entry's name says. Then there is a
//!    second attempt, the last one, which believes only what the registry has shown in this run.
//!
//! An OCI layout holds blobs as a registry does: its blobs are neither looked up by diff ID nor
//! packed, only brought by the ledger.

pub mod changes;
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
