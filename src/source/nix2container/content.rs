//! The bytes of one layer: made of store paths, or read from a file that holds the layer.
//!
//! Nothing is opened before the first read. So for a layer that the registry has, not even the
//! folder is read.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::header::{EntryOwner, Header};
use super::label::Label;
use super::spec::LayerSpec;
use super::tree::{LayerEntry, LayerTree, StoreFile, unreadable};
use crate::image::Hasher;
use crate::source::error::Error;
use crate::source::pieces::{TarPiece, TarPieces};
use crate::source::regular_file::RegularFile;
use crate::source::tar::BLOCK;
use crate::source::ustar::FileKind;

/// The permission bits of a mode, including setuid, setgid and sticky.
const PERMISSIONS: u32 = 0o7777;

/// A layer's bytes. An error is an [`Error`] within an [`io::Error`].
pub struct SpecLayerContent {
    label: Arc<Label>,
    layer: Arc<LayerSpec>,
    reader: Option<Box<dyn Read + Send>>,
    read: u64,
    /// Hashes a compressed blob, because nothing else compares its digest.
    hasher: Option<Hasher>,
}

impl SpecLayerContent {
    /// The content of a layer. No file is opened yet.
    pub fn new(label: Arc<Label>, layer: Arc<LayerSpec>) -> Self {
        let hasher = layer.is_stored_compressed().then(Hasher::new);
        Self { label, layer, reader: None, read: 0, hasher }
    }

    /// How many bytes were read.
    pub fn position(&self) -> u64 {
        self.read
    }

    fn open(&self) -> Result<Box<dyn Read + Send>, Error> {
        let path = Path::new(&self.layer.layer_path);
        if path.as_os_str().is_empty() {
            let tree = LayerTree::new(self.label.clone(), &self.layer.paths)?;
            return Ok(Box::new(TarPieces::new(TreeTar {
                tree,
                made: VecDeque::new(),
                ended: false,
            })));
        }
        let size = self.layer.size;
        match RegularFile::open(path) {
            // A base image's layers have no size.
            Ok(file) if size > 0 && size != file.left() => {
                Err(self.label.length(size, file.left()))
            }
            Ok(file) => Ok(Box::new(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.label.gone(path)),
            Err(source) => Err(unreadable(path, source)),
        }
    }

    /// Checks the length of a plain tar and the digest of a compressed blob. The digest of a plain
    /// tar is checked by the caller that hashes it.
    fn check(&mut self) -> Result<(), Error> {
        let LayerSpec { digest, size, .. } = &*self.layer;
        // `size` is the length of the blob. A tar made of paths is the blob only if the blob is a
        // plain tar.
        if self.layer.is_plain() && *size > 0 && *size != self.read {
            return Err(self.label.length(*size, self.read));
        }
        match self.hasher.take().map(Hasher::finish) {
            Some(actual) if actual != *digest => Err(self.label.other_blob(digest, actual)),
            _ => Ok(()),
        }
    }
}

impl Read for SpecLayerContent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            None => {
                let opened = self.open().map_err(io::Error::other)?;
                self.reader.insert(opened)
            }
        };
        let count = reader.read(buffer)?;
        self.read += count as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        if count == 0 && !buffer.is_empty() {
            self.check().map_err(io::Error::other)?;
        }
        Ok(count)
    }
}

/// The pieces of a tar, made one after another.
struct TreeTar {
    tree: LayerTree,
    /// The pieces that come next.
    made: VecDeque<TarPiece>,
    ended: bool,
}

impl Iterator for TreeTar {
    type Item = Result<TarPiece, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(piece) = self.made.pop_front() {
            return Some(Ok(piece));
        }
        if self.ended {
            return None;
        }
        match self.tree.next() {
            Ok(Some(entry)) => Some(self.begin(entry)),
            Ok(None) => {
                self.ended = true;
                Some(Ok(TarPiece::Bytes(vec![0; 2 * BLOCK])))
            }
            Err(error) => {
                self.ended = true;
                Some(Err(error))
            }
        }
    }
}

impl TreeTar {
    /// Returns the headers of an entry, and queues its content.
    fn begin(&mut self, entry: LayerEntry) -> Result<TarPiece, Error> {
        let LayerEntry { name, file } = entry;
        let Some(file) = file else {
            let header = Header {
                name: &name,
                kind: FileKind::Folder,
                mode: 0o755,
                owner: EntryOwner::ROOT,
                size: 0,
                link: b"",
            };
            return Ok(TarPiece::Bytes(header.bytes()));
        };
        let header = header_of(&name, &file)?;
        if file.kind == FileKind::File {
            self.made.push_back(TarPiece::File { size: file.size, path: file.path });
        }
        Ok(TarPiece::Bytes(header))
    }
}

/// The headers of a file of the store.
fn header_of(name: &[u8], file: &StoreFile) -> Result<Vec<u8>, Error> {
    let link = match file.kind {
        FileKind::Symlink => {
            fs::read_link(&file.path).map_err(|source| unreadable(&file.path, source))?
        }
        FileKind::File | FileKind::Folder => Default::default(),
    };
    // A symlink has mode 0777 as on Linux, wherever the image was built.
    let mode = if file.kind == FileKind::Symlink { 0o777 } else { file.mode & PERMISSIONS };
    let (owner, mode) = match file.perms() {
        Some(perms) => perms.of(file.path.as_os_str().as_bytes(), mode),
        None => (EntryOwner::ROOT, mode),
    };
    let header = Header {
        name,
        kind: file.kind,
        mode,
        owner,
        size: if file.kind == FileKind::File { file.size } else { 0 },
        link: link.as_os_str().as_bytes(),
    };
    Ok(header.bytes())
}
