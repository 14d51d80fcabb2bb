//! The bytes of a layer that can be read at any time, in any order and by several readers at once.

use std::io::Read;
use std::sync::Arc;

use super::error::Error;
use super::layout::Region;

/// Where a layer's bytes come from, for each reading.
#[derive(Clone)]
pub enum LayerBytes {
    /// A part of a file, which can be read from any place.
    Stored(Region),
    /// They are made while they are read, always from the beginning.
    Made {
        /// Their number, if it is known.
        size: Option<u64>,
        /// Begins to make them. They are always the tar of one layer, never compressed. A failed
        /// read is an [`Error`] within an [`std::io::Error`].
        make: MakeLayer,
    },
}

/// Begins to make a layer's bytes.
pub type MakeLayer = Arc<dyn Fn() -> Result<Box<dyn Read + Send>, Error> + Send + Sync>;
