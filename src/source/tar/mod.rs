//! Tar archives: the walk over their entries ([`walk`], [`bytes`]), the headers ([`header`], [`pax`]), and what
//! an archive holds by name ([`entries`], [`file`]).

mod bytes;
mod entries;
mod error;
mod file;
mod header;
mod pax;
mod walk;

pub use bytes::Bytes;
pub use entries::{Entries, MANIFEST, OCI_LAYOUT, hex_of, normalise};
pub use error::{TarError, TarPosition};
pub use file::{StoredFile, TarFile};
pub use header::{BLOCK, is_tar};
pub use walk::{Entry, EntryKind, Tar};
