//! A regular file of which a layer is made: read for as many bytes as were announced, and no more.
//!
//! Nothing else is opened: a pipe would keep pushimg waiting, and a device may never end.

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
    /// Opens a file, to be read as far as it is long now.
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

    /// How many bytes are to be read.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The same file, to be read for `length` bytes; that it is shorter is an error of the read.
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
