//! A regular file that is part of a layer. Only the announced number of bytes is read.
//!
//! Other kinds of files are not opened: pushimg could wait for a pipe forever, and a device may
//! never end.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::error::Error;
use super::file::FileError;
use super::printable::printable_path;

/// An open regular file. Its read errors are [`Error`]s within [`io::Error`]s.
pub struct RegularFile {
    file: File,
    path: PathBuf,
    left: u64,
}

impl RegularFile {
    /// Opens a file. It will be read up to its current length.
    pub fn open(path: &Path) -> io::Result<Self> {
        // Without the flag, opening a pipe waits for a writer.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        Ok(Self { file, path: path.to_owned(), left: metadata.len() })
    }

    /// How many bytes are still to be read.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The same file, of which `length` bytes will be read. If it is shorter, reading fails.
    pub fn with_length(self, length: u64) -> Self {
        Self { left: length, ..self }
    }
}

impl Read for RegularFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if most == 0 {
            return Ok(0);
        }
        let failed = |source| {
            let path = printable_path(&self.path);
            io::Error::other(Error::from(FileError::Store { path, source }))
        };
        loop {
            match self.file.read(&mut buffer[..most]) {
                Ok(0) => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => {
                    self.left -= count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
}
