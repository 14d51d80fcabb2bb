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
    /// In a file that holds many regions. It stays open.
    Open(Arc<File>),
    /// In a separate file. It is opened for each read, because an image may have more blobs than a
    /// process may have open files.
    Path(Arc<Path>),
}

impl Region {
    /// Fills `buffer` with the bytes from `at` on, counted from the region's beginning, or with
    /// fewer at the region's end. Returns their number.
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

    /// Reads the whole region, which must be small. If the file is now shorter, so is the result,
    /// and the caller notices that by the digest.
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
    /// A reader at the region's beginning.
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
