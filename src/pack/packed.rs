//! The result of packing.

use crate::image::{Blob, Compression, DiffId, Digest};

/// A packed layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// The blob. Its bytes are in the spool.
    pub blob: Blob,
    /// The digest of the uncompressed tar.
    pub diff_id: DiffId,
}

impl Packed {
    pub(super) fn new(
        (digest, size): (Digest, u64),
        compression: Compression,
        diff_id: DiffId,
    ) -> Self {
        Self { blob: Blob { digest, size, compression }, diff_id }
    }
}
