//! Where images come from: files and streams that hold one or more images.
//!
//! A [`Source`] yields layers one after another, in the order in which their bytes are stored, and
//! the images that they make up: before the layers where the source can seek, after them where it
//! is a stream. Everything here is blocking and runs on a thread of its own.

mod archive;
mod decompress;
mod docker_archive;
mod error;
mod file;
mod first_entry;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod gzip;
mod identity;
mod interface;
mod layer_bytes;
pub mod layout;
mod location;
mod names;
mod nix2container;
mod nix_stream;
mod open_file;
mod pieces;
mod printable;
mod regular_file;
mod role;
mod selection;
mod sniff;
mod spool;
mod tar;
#[cfg(test)]
mod tests;
mod unknown;
mod ustar;
mod wrapping;

pub use crate::image::{LayerId, LayerKey};
pub use archive::Contents;
pub use error::Error;
pub use file::FileError;
pub use identity::identity;
pub use interface::{Claim, Image, Layer, LayerMismatch, Source};
pub use layer_bytes::{LayerBytes, MakeLayer};
pub use location::{ImagesKnown, Location, Options};
pub use names::{command, name_from_history, package_name, store_path_name, store_paths};
pub use printable::{is_harmful, printable};
pub use selection::{Selection, list};

/// Opens the image at `location`. The content decides what it is; file names do not matter.
pub fn open(location: &Location, options: Options) -> Result<Contents, Error> {
    sniff::open(location, options)
}
