//! The OCI distribution protocol, including the ways in which real registries differ from it.
//!
//! A [`Registry`] is one host; a [`Repository`] is one repository there. Every request goes through
//! `send`, which handles authorization, redirects, retries and errors. [`upload`](mod@upload) sends
//! the bytes of blobs and resumes after a broken connection. This module does not know where images
//! come from.

pub mod auth;
mod blobs;
mod connect;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod hosts;
mod manifests;
mod message;
mod options;
mod referrers;
mod repository;
mod scheme;
mod send;
pub mod upload;

pub use blobs::{Mount, Present};
pub use connect::TlsOptions;
pub use error::{Error, StatusError};
pub use manifests::FetchedManifest;
pub use message::{ApiError, ErrorMessage};
pub use options::{DEFAULT_RETRY_FOR, Options};
pub use referrers::Referrer;
pub use repository::{Registry, Repository};
pub use scheme::is_loopback;
pub use send::mask::SafeUrl;
pub use upload::Sessions;
