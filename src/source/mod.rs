//! Where images come from: files and streams that hold one or more images.
//!
//! A [`Source`] yields layers one after another, in the order in which their bytes are stored, and
//! the images that they make up: before the layers where the source can seek, after them where it
//! is a stream. Everything here is blocking and runs on a thread of its own.

mod decompress;
mod docker_archive;
mod entries;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod gzip;
mod identity;
pub mod layout;
mod names;
mod nix2container;
mod nix_stream;
mod pieces;
mod selection;
mod sniff;
mod spool;
mod tar;
mod tar_file;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::sync::Arc;

use crate::image::{Config, DiffId};

pub use crate::image::LayerKey;
pub use decompress::Wrapping;
pub use error::{Error, Place, Role, Said, Via};
pub use identity::identity;
pub use names::{
    command, is_harmful, name_from_history, package_name, printable, store_path_name, store_paths,
};
pub use nix2container::LayerFault;
pub use selection::{Selection, list};

/// Opens what is at `location`: what it is, its content says, never its name.
pub fn open(location: &Location, options: Options) -> Result<Contents, Error> {
    sniff::open(location, options)
}

/// What opening and reading may do, and who hears of it.
pub struct Options {
    /// Whether a program that writes an image may be run where it is what was named.
    pub may_run: bool,
    /// Called, from any thread, with the bytes of the file consumed so far and the file's length
    /// (`None` for a pipe).
    pub progress: Box<dyn Fn(u64, Option<u64>) + Send>,
    /// Called, from any thread, with what is of interest only to whoever looks closely.
    pub note: Arc<dyn Fn(String) + Send + Sync>,
}

/// What a location holds.
pub enum Contents {
    /// Images whose layers are read one after another.
    Layers(Box<dyn Source>),
    /// Manifests and the blobs that they list, as a registry would store them.
    Layout(layout::Layout),
}

/// Something that holds images, being read front to back.
pub trait Source: Send {
    /// The images, or `None` while they are not known yet: a stream tells them only after
    /// [`next_layer`](Self::next_layer) has returned `None`, a seekable file at once. There is at
    /// least one. Every layer they list is one that is, or was, yielded; a stream may have yielded
    /// others that turned out to be no image's.
    fn images(&self) -> Option<&[Image]>;

    /// The next layer in the order of storage; `None` after the last.
    ///
    /// What is left unread of the layer before is skipped, which costs nothing on a seekable file.
    /// Only when this has returned `None` is it sure that the source was whole, its last checksum
    /// included. After an error the source is of no more use.
    fn next_layer(&mut self) -> Result<Option<Layer<'_>>, Error>;

    /// Yields the layer that was yielded last once more, from its beginning: to be asked only for one
    /// whose claim was a [`Claim::Key`].
    fn again(&mut self) -> Result<Layer<'_>, Error> {
        Err(Error::OnlyOnce)
    }

    /// The names that its images have, where they are known before the images are.
    fn early_names(&self) -> Option<Vec<String>> {
        let names = |image: &Image| image.names.clone();
        Some(self.images()?.iter().flat_map(names).collect())
    }

    /// What the layers to come are made of, where that is known: whoever knows their blobs can ask
    /// for all at once.
    fn keys(&self) -> Vec<LayerKey> {
        Vec::new()
    }

    /// Hears the diff ID of the layer that was yielded last, once it is known: by its bytes, or,
    /// where they were skipped, by the word of whoever skipped them. A source that makes its layers
    /// writes the config from what it hears.
    fn learn(&mut self, _diff_id: &DiffId) {}

    /// The most memory, in bytes, that reading it takes besides a few megabytes: what a
    /// decompressor looks back on. Whoever packs meanwhile has so much less.
    fn memory(&self) -> usize {
        0
    }
}

/// A layer's place among those that its source yields, from 0 in the order of storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerId(pub usize);

/// One image of a source.
#[derive(Clone, Debug)]
pub struct Image {
    /// The names that the source gives it (`RepoTags`), as written.
    pub names: Vec<String>,
    /// The image config, its bytes as stored.
    pub config: Config,
    /// The layers, lowest first; one may occur twice. As many as the config has diff IDs.
    pub layers: Vec<LayerId>,
}

/// One layer of a source, about to be read or skipped.
pub struct Layer<'a> {
    /// Its place in the source.
    pub id: LayerId,
    /// What the source calls it (an archive entry's name), for messages.
    pub entry: String,
    /// Length of the bytes as stored.
    pub size: u64,
    /// What the source knows of it without reading it.
    pub claim: Claim,
    /// The bytes as stored: a tar, or a tar already compressed. What goes wrong in reading them
    /// is an [`Error`], which [`Error::from_read`] takes out of the [`std::io::Error`].
    pub content: &'a mut (dyn Read + Send),
}

/// What a source knows about a layer before its bytes are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The diff ID that the image's config lists for it.
    DiffId(DiffId),
    /// A diff ID guessed from the entry's name: good to look up, never to trust unread.
    Hint(DiffId),
    /// What the layer would be made of: whoever has made it before knows its diff ID.
    Key(LayerKey),
    /// Nothing.
    Nothing,
}

impl Claim {
    /// What the layer would be made of.
    pub fn into_key(self) -> Option<LayerKey> {
        match self {
            Self::Key(key) => Some(key),
            Self::DiffId(_) | Self::Hint(_) | Self::Nothing => None,
        }
    }
}

/// Where an image is to be read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A file, or a symlink to one.
    Path(std::path::PathBuf),
    /// Standard input.
    Stdin,
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => f.write_str(&printable(&path.to_string_lossy())),
            Self::Stdin => f.write_str("standard input"),
        }
    }
}
