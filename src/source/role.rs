//! What a manifest names a file or a blob as, for messages.

use std::fmt;

/// What a manifest names a file or a blob as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryRole {
    /// An image config.
    Config,
    /// A layer.
    Layer,
    /// The list of images of a docker archive; of a layout, a manifest or an index.
    Manifest,
    /// A file of a layout whose use is not known.
    Blob,
}

impl fmt::Display for EntryRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Config => "config",
            Self::Layer => "layer",
            Self::Manifest => "manifest",
            Self::Blob => "blob",
        })
    }
}
