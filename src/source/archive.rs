//! Archives: a tar, plain or compressed, that holds a docker archive or an OCI layout. A tar that
//! is both is read as a docker archive, as Docker itself does.
//!
//! Input: a file or a stream. Output: its [`Contents`].
//!
//! A stream lists its images only at its end, but no layer of another image may be sent. So if that
//! matters ([`ImagesKnown`]), a file is read twice, and a pipe is copied to a temporary file. Only
//! archives as Nix builds them, which hold one image, are read once. Short ones of these are copied
//! to a temporary file, too: that costs nothing, and nothing has to be assumed.

use std::fs::{self, File};
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::decompress::{self, Stream};
use super::docker_archive::read_twice;
use super::docker_archive::seekable;
use super::docker_archive::streamed::StreamedArchive;
use super::error::Error;
use super::file::FileError;
use super::first_entry::FirstEntry;
use super::interface::Source;
use super::layout::{self, Layout};
use super::location::{ImagesKnown, Location, Options, ReadProgress};
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
    Layout(Box<Layout>),
}

/// An archive that is read front to back.
pub struct ArchiveStream {
    /// Its bytes, decompressed.
    pub stream: Stream,
    /// Its name for messages, safe to print.
    pub name: Arc<str>,
    /// How it is compressed.
    pub wrapping: Wrapping,
    /// The most memory, in bytes, that decompressing it takes.
    pub memory: usize,
    /// Begins to read it once more; `None` if it can be read only once.
    pub again: Option<Again>,
}

/// Begins to read a stream from its beginning.
pub type Again = Box<dyn FnOnce() -> Result<Stream, Error>>;

/// Opens a plain tar in a file.
pub fn open_seekable(opened: OpenFile) -> Result<Contents, Error> {
    let length = opened.metadata.len();
    open_tar(opened.file, length, opened.name, opened.progress)
}

/// Opens a tar that is compressed, or comes from a pipe.
pub fn open_streamed(opened: OpenFile) -> Result<Contents, Error> {
    let OpenFile { name, path, file, metadata, head, images, progress, .. } = opened;
    let wrapping = Wrapping::of(&head);
    let total = Some(&metadata).filter(|metadata| metadata.is_file()).map(fs::Metadata::len);
    let memory = wrapping::memory(wrapping, &head);
    let progress = Arc::new(Mutex::new(progress));
    let is_first_of_two = Arc::new(AtomicBool::new(false));
    let (told, silent) = (progress.clone(), is_first_of_two.clone());
    let told: ReadProgress = Box::new(move |position, total| {
        if !silent.load(Ordering::Relaxed) {
            told.lock()(position, total);
        }
    });
    let input = Cursor::new(head).chain(file);
    let stream = decompress::stream(input, name.clone(), total, (wrapping, memory), told)?;
    let again = path.filter(|_| total.is_some()).map(|path| -> Again {
        let name = name.clone();
        Box::new(move || {
            let file = File::open(&path)
                .map_err(|source| FileError::Open { file: name.clone(), source })?;
            let told: ReadProgress =
                Box::new(move |position, total| progress.lock()(position, total));
            decompress::stream(file, name, total, (wrapping, memory), told)
        })
    });
    let input = ArchiveStream { stream, name, wrapping, memory, again };
    open_stream(input, images, || is_first_of_two.store(true, Ordering::Relaxed))
}

/// Opens an archive that is read front to back. `reading_twice` is called before the first of two
/// readings.
pub fn open_stream(
    input: ArchiveStream,
    images: ImagesKnown,
    reading_twice: impl FnOnce(),
) -> Result<Contents, Error> {
    let ArchiveStream { mut stream, name, wrapping, memory, again } = input;
    let first = FirstEntry::of(stream.peek()?);
    let read_once = match images {
        ImagesKnown::WhenTold => true,
        ImagesKnown::UnlessSingle => first.is_of_nix() && !stream.is_short()?,
        ImagesKnown::First | ImagesKnown::AndLayersInAnyOrder => false,
    };
    let archive = |stream| StreamedArchive::new(stream, name.clone(), (wrapping, memory));
    match again {
        _ if first.may_be_of_layout() => {}
        _ if read_once => return Ok(Contents::Layers(Box::new(archive(stream)))),
        Some(again) if images != ImagesKnown::AndLayersInAnyOrder && !stream.is_short()? => {
            reading_twice();
            let second = || Ok(archive(again()?));
            return read_twice::open(archive(stream), second, name.clone()).map(Contents::Layers);
        }
        _ => {}
    }
    let (file, length) = spool::spool(stream, &name, wrapping)?;
    // The whole original was read already, and its progress was reported.
    open_tar(file, length, name, Box::new(|_, _| {}))
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
    progress: ReadProgress,
) -> Result<Contents, Error> {
    let tar = TarFile::walk(file, length, name)?;
    if tar.entries.contains(MANIFEST) {
        seekable::open(tar, progress).map(Contents::Layers)
    } else if tar.entries.contains(OCI_LAYOUT) {
        layout::open_archive(tar).map(|layout| Contents::Layout(Box::new(layout)))
    } else {
        let error = tar.entries.without_manifest();
        Err(tar.incomplete(error))
    }
}
