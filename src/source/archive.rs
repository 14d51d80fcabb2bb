//! Archives: a tar, plain or compressed, that holds a docker archive or an OCI layout. What is both
//! is a docker archive, as Docker itself takes it.
//!
//! Comes in: a file. Goes out: its [`Contents`].

use std::fs::{self, File};
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use super::decompress;
use super::docker_archive::{seekable, streamed};
use super::error::Error;
use super::interface::Source;
use super::layout::{self, Layout};
use super::location::{Location, Options, Progress};
use super::open_file::OpenFile;
use super::spool;
use super::tar::{MANIFEST, OCI_LAYOUT, TarError, TarFile};
use super::unknown::unknown;
use super::wrapping::{self, Wrapping};

/// What a location holds.
pub enum Contents {
    /// Images whose layers are read one after another.
    Layers(Box<dyn Source>),
    /// Manifests and the blobs that they list, as a registry would store them.
    Layout(Layout),
}

/// Opens a plain tar in a file.
pub fn open_seekable(opened: OpenFile) -> Result<Contents, Error> {
    let length = opened.metadata.len();
    open_tar(opened.file, length, opened.name, opened.progress)
}

/// Opens a tar that is compressed, or comes from a pipe.
pub fn open_streamed(opened: OpenFile) -> Result<Contents, Error> {
    let wrapping = Wrapping::of(&opened.head);
    let total = Some(&opened.metadata).filter(|metadata| metadata.is_file()).map(fs::Metadata::len);
    let memory = wrapping::memory(wrapping, &opened.head);
    let mut stream = decompress::stream(
        Cursor::new(opened.head).chain(opened.file),
        opened.name.clone(),
        total,
        (wrapping, memory),
        opened.progress,
    )?;
    if spool::may_be_layout(stream.peek()?) {
        let (file, length) = spool::spool(stream, &opened.name)?;
        // All of the original file was read by now, and its progress was told.
        return open_tar(file, length, opened.name, Box::new(|_, _| {}));
    }
    Ok(Contents::Layers(streamed::open(stream, opened.name, (wrapping, memory))))
}

/// Opens the docker archive at `path`; anything else is an error.
pub fn open_docker_archive(path: &Path, options: Options) -> Result<Box<dyn Source>, Error> {
    let opened = OpenFile::new(&Location::Path(path.to_owned()), options)?;
    let file = opened.name.clone();
    let contents = if opened.is_plain_tar_file() {
        open_seekable(opened)?
    } else if opened.is_tar_or_compressed() {
        open_streamed(opened)?
    } else {
        return Err(unknown(opened));
    };
    match contents {
        Contents::Layers(source) => Ok(source),
        Contents::Layout(_) => Err(TarError::NoManifest { file }.into()),
    }
}

/// Opens the plain tar in `file`, which is `length` bytes long.
pub fn open_tar(
    file: File,
    length: u64,
    name: Arc<str>,
    progress: Progress,
) -> Result<Contents, Error> {
    let tar = TarFile::walk(file, length, name)?;
    if tar.entries.contains(MANIFEST) {
        seekable::open(tar, progress).map(Contents::Layers)
    } else if tar.entries.contains(OCI_LAYOUT) {
        layout::open_archive(tar).map(Contents::Layout)
    } else {
        let error = tar.entries.without_manifest();
        Err(tar.incomplete(error))
    }
}
