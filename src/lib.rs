//! Push a locally built container image to a registry, sending only what the
//! registry lacks, without a Docker daemon.
//!
//! ```text
//!  source ──► Layer{claim, content} ──► reuse: is this diff ID known as a blob? ──► HEAD ──► settled
//!    │                                    │ no
//!    │                                    ▼
//!    │                                  pack: hash the raw bytes, compress in blocks on all cores, spool
//!    │                                    ▼
//!    │                                  registry: HEAD ─► mount from a sibling repository ─► upload
//!    ▼                                    ▼
//!  config ───────────────────────────► manifest ─► PUT under each tag ─► report
//! ```
//!
//! - [`source`] reads images, and knows nothing of registries.
//! - [`reuse`] finds out which blobs are already uploaded.
//! - [`pack`] turns raw layer bytes into a blob.
//! - [`registry`] speaks the OCI distribution protocol, and knows nothing of archives.
//! - [`push`] is the one place where the four meet.
//! - [`event`] is what happens meanwhile, as data; [`report`] is what came of it.
//! - [`inspect`] looks at an image without pushing it; [`changes`] compares two images; [`tag`]
//!   points tags to an image that is already in a registry.
//! - [`cli`] is all that a person sees.

pub mod changes;
pub mod cli;
pub mod error;
pub mod event;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod image;
pub mod inspect;
mod json;
mod open_files;
pub mod pack;
pub mod push;
pub mod registry;
mod remote;
pub mod report;
pub mod reuse;
pub mod source;
pub mod tag;

pub use error::Error;
