//! Where an image is read from, and what reading it may do.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::printable::printable_path;
use crate::image::Reference;

/// Where an image is to be read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A file, or a symlink to one.
    Path(PathBuf),
    /// Standard input.
    Stdin,
    /// An image that is already in the registry, for an index there.
    Registry(Reference),
}

/// Called, from any thread, with the bytes of the file consumed so far and the file's length
/// (`None` for a pipe).
pub type ReadProgress = Box<dyn Fn(u64, Option<u64>) + Send>;

/// Called, from any thread, with a line that `-v` shows.
pub type Note = Arc<dyn Fn(String) + Send + Sync>;

/// When the images of an archive must be known. A compressed archive lists them only at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImagesKnown {
    /// When the archive lists them. Layers are yielded in the order of storage, including layers
    /// that belong to no image, or to another image than the caller wants.
    #[default]
    WhenTold,
    /// Before the first layer, unless the archive comes from a builder that stores only one image.
    UnlessSingle,
    /// Before the first layer.
    First,
    /// Before the first layer, and the layers can be read in any order
    /// ([`Layer::bytes`](super::Layer::bytes)). A compressed archive, and one from a pipe, is put
    /// into a temporary file, decompressed.
    AndLayersInAnyOrder,
}

/// What opening and reading may do, and the functions that get their reports.
pub struct Options {
    /// When the images of an archive must be known.
    pub images: ImagesKnown,
    /// Whether a program that writes an image may be run.
    pub may_run: bool,
    /// Called as the file is read.
    pub progress: ReadProgress,
    /// Called with details that most users do not need.
    pub note: Note,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.write_str(&printable_path(path)),
            Self::Stdin => f.write_str("standard input"),
            Self::Registry(reference) => reference.fmt(f),
        }
    }
}
