//! What comes of packing.

use crate::image::{Blob, Compression, DiffId, Digest};

/// What a layer has become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// The blob, whose bytes the spool has.
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
