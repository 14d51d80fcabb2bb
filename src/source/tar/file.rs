//! A plain tar in a file, and its entries by name. Only the headers are read, with one small read
//! each.

use std::fs::File;
use std::sync::Arc;

use super::bytes::Bytes;
use super::entries::{Entries, normalise};
use super::walk::{EntryKind, Tar};
use crate::source::error::Error;
use crate::source::file::read_at;
use crate::source::wrapping::Wrapping;

/// A tar whose headers were read.
pub struct TarFile {
    /// The file.
    pub file: File,
    /// Its name for messages.
    pub name: Arc<str>,
    /// How long it is.
    pub length: u64,
    /// Its entries.
    pub entries: Entries<StoredFile>,
    /// The error that the archive was cut off, if its end is not marked.
    cut_off: Option<Error>,
}

/// Where a file of the archive is.
#[derive(Clone, Copy, Debug)]
pub struct StoredFile {
    /// Where its content begins.
    pub offset: u64,
    /// The length of its content.
    pub size: u64,
    /// Whether its holes are not stored.
    pub sparse: bool,
}

impl TarFile {
    /// Reads the headers of the tar in `file`, which is `length` bytes long.
    pub fn walk(file: File, length: u64, name: Arc<str>) -> Result<Self, Error> {
        let bytes = FileBytes { file, name: name.clone(), position: 0, length };
        let mut tar = Tar::new(bytes, name.clone(), Wrapping::None);
        let mut entries = Entries::new(name.clone());
        while let Some(entry) = tar.next_entry()? {
            let stored_name = normalise(&entry.name);
            if !entries.may_be_needed(&stored_name) {
                continue;
            }
            entries.check_kind()?;
            let sparse = entry.kind == EntryKind::Sparse;
            let stored = StoredFile { offset: entry.offset, size: entry.size, sparse };
            match entry.kind {
                EntryKind::File | EntryKind::Sparse => entries.insert_file(stored_name, stored)?,
                EntryKind::Symlink(target) => entries.insert_symlink(stored_name, &target)?,
                EntryKind::HardLink(target) => entries.insert_hard_link(stored_name, &target)?,
                EntryKind::Other => {}
            }
        }
        let cut_off = tar.is_cut_off().then(|| tar.truncated());
        let FileBytes { file, .. } = tar.into_bytes();
        Ok(Self { file, name, length, entries, cut_off })
    }

    /// The error for an archive that lacks something. If the archive may be cut off, the error says
    /// so.
    pub fn incomplete(self, otherwise: impl Into<Error>) -> Error {
        self.cut_off.unwrap_or_else(|| otherwise.into())
    }
}

/// The file, as the walk over its headers reads it.
struct FileBytes {
    file: File,
    name: Arc<str>,
    position: u64,
    length: u64,
}

impl Bytes for FileBytes {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let count = read_at(&self.file, &self.name, buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }

    fn skip(&mut self, count: u64) -> Result<u64, Error> {
        let count = count.min(self.length.saturating_sub(self.position));
        self.position += count;
        Ok(count)
    }
}
