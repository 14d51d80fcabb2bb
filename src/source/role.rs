//! The role of a file or a blob in a manifest, for messages.

use std::fmt;

/// The role of a file or a blob in a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryRole {
    /// An image config.
    Config,
    /// A layer.
    Layer,
    /// In a docker archive, the list of images; in a layout, a manifest or an index.
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
