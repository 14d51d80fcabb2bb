//! What all connections share.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::catalog::Catalog;
use super::pulls::Pulls;
use super::sending::BlobReads;
use crate::event::Events;

/// What all connections share.
pub struct Shared {
    pub catalog: Arc<Catalog>,
    pub events: Events,
    pub reading: BlobReads,
    pub pulls: Pulls,
    pub bytes_sent: AtomicU64,
}
