//! Copies a stream to an unlinked temporary file, so that it can be read in any order.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use super::decompress::Stream;
use super::error::Error;
use super::tar::{Bytes, Entries, Tar, normalise};
use super::wrapping::Wrapping;
use crate::open_files;

/// A stream cannot be put into a temporary file.
#[derive(Debug, thiserror::Error)]
#[error(
    "{file}: cannot spool it in {folder}, as an archive whose blobs come first is: {source}; {}",
    open_files::advice(
        source,
        "set TMPDIR to a directory with room, or give the archive as a plain tar file, and no copy \
         is needed"
    )
)]
pub struct SpoolError {
    file: Arc<str>,
    folder: String,
    source: io::Error,
}

impl From<SpoolError> for Error {
    fn from(error: SpoolError) -> Self {
        Self::Machine(Box::new(error))
    }
}

/// Copies a tar from a stream to a temporary file, and verifies the last checksum. Returns the file
/// and its length.
///
/// The entries of the tar are read on the way, so that an endless stream is noticed.
pub fn spool(stream: Stream, name: &Arc<str>, wrapping: Wrapping) -> Result<(File, u64), Error> {
    let folder = std::env::temp_dir().display().to_string();
    let failed = |source| SpoolError { file: name.clone(), folder: folder.clone(), source };
    let file = tempfile::tempfile().map_err(failed)?;
    let copied = Copied { stream, file, length: 0, failed: &failed };
    let mut tar = Tar::new(copied, name.clone(), wrapping);
    let mut entries: Entries<()> = Entries::new(name.clone());
    while let Some(entry) = tar.next_entry()? {
        let entry_name = normalise(&entry.name);
        if entries.may_be_needed(&entry_name) {
            entries.check_kind()?;
            entries.insert_file(entry_name, ())?;
        }
    }
    tar.drain()?;
    let Copied { file, length, .. } = tar.into_bytes();
    Ok((file, length))
}

/// A stream that copies everything that is read or skipped.
struct Copied<'a> {
    stream: Stream,
    file: File,
    length: u64,
    failed: &'a dyn Fn(io::Error) -> SpoolError,
}

impl Copied<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.length += bytes.len() as u64;
        Ok(self.file.write_all(bytes).map_err(self.failed)?)
    }
}

impl Bytes for Copied<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let count = self.stream.read(buffer)?;
        self.write(&buffer[..count])?;
        Ok(count)
    }

    fn skip(&mut self, count: u64) -> Result<u64, Error> {
        let mut left = count;
        while left > 0 {
            let piece = self.stream.peek()?;
            if piece.is_empty() {
                break;
            }
            let length = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.length += length as u64;
            self.file.write_all(&piece[..length]).map_err(self.failed)?;
            self.stream.skip(length as u64)?;
            left -= length as u64;
        }
        Ok(count - left)
    }
}
