//! What all connections share.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::catalog::Catalog;
use super::pulls::Pulls;
use super::sending::Reading;
use crate::event::Events;

/// What all connections share.
pub struct Shared {
    pub catalog: Arc<Catalog>,
    pub events: Events,
    pub reading: Reading,
    pub pulls: Pulls,
    pub bytes_sent: AtomicU64,
}
