//! Detects what a file is from its content, with a table of all kinds that can be read.
//!
//! Input: a [`Location`]. Output: the [`Contents`] that the first matching row opens, or that row's
//! error, which says why the file cannot be read and what to do instead.

use super::archive::{self, Contents};
use super::error::Error;
use super::location::{Location, Options};
use super::open_file::OpenFile;
use super::tar::{BLOCK, OCI_LAYOUT, TarError, TarPosition};
use super::unknown::{UnknownKind, directory, unknown};
use super::{layout, nix_stream, nix2container};

/// One kind of content.
struct ContentKind {
    is: fn(&OpenFile) -> bool,
    open: fn(OpenFile) -> Result<Contents, Error>,
}

/// All kinds. The first that fits is taken.
const KINDS: &[ContentKind] = &[
    ContentKind { is: is_layout_folder, open: open_layout_folder },
    ContentKind { is: is_skopeo_folder, open: open_skopeo_folder },
    ContentKind { is: |it| it.metadata.is_dir(), open: |it| Err(directory(it)) },
    ContentKind { is: |it| it.head.is_empty(), open: |it| Err(empty(it)) },
    ContentKind { is: OpenFile::is_plain_tar_file, open: archive::open_seekable },
    ContentKind { is: OpenFile::is_tar_or_compressed, open: archive::open_streamed },
    ContentKind { is: is_executable, open: open_executable },
    ContentKind { is: is_json, open: open_json },
    ContentKind { is: is_damaged_tar, open: |it| Err(damaged_tar(it)) },
];

/// Opens what is at `location`.
pub fn open(location: &Location, options: Options) -> Result<Contents, Error> {
    let opened = OpenFile::new(location, options)?;
    match KINDS.iter().find(|kind| (kind.is)(&opened)) {
        Some(kind) => (kind.open)(opened),
        None => Err(unknown(opened)),
    }
}

fn is_layout_folder(file: &OpenFile) -> bool {
    file.folder().is_some_and(|path| path.join(OCI_LAYOUT).is_file())
}

fn open_layout_folder(opened: OpenFile) -> Result<Contents, Error> {
    // Never empty: only a file with a path can be a folder.
    let path = opened.path.unwrap_or_default();
    layout::open_folder(&path, opened.name).map(|layout| Contents::Layout(Box::new(layout)))
}

fn is_skopeo_folder(file: &OpenFile) -> bool {
    file.folder().is_some_and(layout::is_skopeo_folder)
}

fn open_skopeo_folder(opened: OpenFile) -> Result<Contents, Error> {
    let path = opened.path.unwrap_or_default();
    layout::open_skopeo_folder(&path, opened.name).map(|layout| Contents::Layout(Box::new(layout)))
}

fn is_executable(file: &OpenFile) -> bool {
    file.head.starts_with(b"#!") || file.head.starts_with(b"\x7fELF")
}

fn open_executable(opened: OpenFile) -> Result<Contents, Error> {
    if opened.path.is_none() {
        let what = if opened.head.starts_with(b"#!") { "a script" } else { "a program" };
        return Err(UnknownKind::Unknown { file: opened.name, what }.into());
    }
    nix_stream::open(opened)
}

fn is_json(file: &OpenFile) -> bool {
    let first = file.head.trim_ascii_start().first();
    matches!(first, Some(b'{' | b'['))
}

fn open_json(opened: OpenFile) -> Result<Contents, Error> {
    nix2container::open(opened).map(Contents::Layers)
}

fn is_damaged_tar(file: &OpenFile) -> bool {
    file.head.get(257..262) == Some(b"ustar")
}

fn damaged_tar(opened: OpenFile) -> Error {
    let (file, position) = (opened.name, TarPosition::Start);
    if opened.head.len() < BLOCK {
        return TarError::Truncated { file, at: opened.head.len() as u64, position }.into();
    }
    let what = "the header's checksum is wrong";
    TarError::Corrupt { file, at: 0, position, what }.into()
}

fn empty(opened: OpenFile) -> Error {
    UnknownKind::Empty { file: opened.name }.into()
}
