//! Where a blob's bytes are: a part of a file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::source::file::FileError;

/// A part of a file.
#[derive(Clone, Debug)]
pub struct Region {
    /// The file's name for messages, safe to print.
    pub name: Arc<str>,
    /// The file.
    pub file: RegionFile,
    /// Where the part begins.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

/// Where a region's bytes are.
#[derive(Clone, Debug)]
pub enum RegionFile {
    /// In a file that holds many: it stays open.
    Open(Arc<File>),
    /// In a file of their own, opened whenever it is read: an image may have more blobs than a
    /// process may have open files.
    Path(Arc<Path>),
}

impl Region {
    /// Reads from `at`, counted from the region's beginning, as much as there is up to the end of
    /// `buffer`; 0 at the end.
    pub fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let opened;
        let file = match &self.file {
            RegionFile::Open(file) => &**file,
            RegionFile::Path(path) => {
                opened = File::open(path)?;
                &opened
            }
        };
        let left = self.length.saturating_sub(at);
        let length = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let mut filled = 0;
        while filled < length {
            let at = self.offset + at + filled as u64;
            match file.read_at(&mut buffer[filled..length], at) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// All of it, which is not much: what is less by now than it was shows by its hash.
    pub fn bytes(&self) -> Result<Bytes, FileError> {
        let mut bytes = vec![0; usize::try_from(self.length).unwrap_or(usize::MAX)];
        let read = self.read_at(&mut bytes, 0).map_err(|source| FileError::Read {
            file: self.name.clone(),
            at: 0,
            source,
        })?;
        bytes.truncate(read);
        Ok(bytes.into())
    }
}

/// Reads a region from its beginning.
pub struct RegionReader {
    region: Region,
    position: u64,
}

impl RegionReader {
    /// Nothing was read yet.
    pub fn new(region: Region) -> Self {
        Self { region, position: 0 }
    }
}

impl io::Read for RegionReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.region.read_at(buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}
