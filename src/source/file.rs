//! Reading files: the errors that all sources have in common, and reads at an offset.

use crate::open_files;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::sync::Arc;

/// A file that cannot be read. Names are safe to print.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are what the messages say they are")]
pub enum FileError {
    /// The file is there but cannot be opened.
    #[error(
        "{file}: cannot be opened: {source}; {}",
        open_files::advice(source, "check its permissions and those of its folders")
    )]
    Open { file: Arc<str>, source: io::Error },
    /// A pipe, which might never end, a device or a folder where a file is needed.
    #[error(
        "{file}: it is not a regular file but {what}, which is not read; put the file itself there"
    )]
    NotRegular { file: Arc<str>, what: &'static str },
    /// Reading failed after `at` bytes.
    #[error("{file}: reading failed at byte {at}: {source}; check the disk, then try again")]
    Read { file: Arc<str>, at: u64, source: io::Error },
    /// A file that a layer is made of cannot be read.
    #[error(
        "{path}: cannot be read for the layer that it belongs to: {source}; build the image again, \
         or check the store with `nix-store --verify --check-contents`"
    )]
    Store { path: Arc<str>, source: io::Error },
    /// The thread that reads the file ended without a result.
    #[error("{file}: reading stopped unexpectedly; this is a fault in pushimg, please report it")]
    ReaderGone { file: Arc<str> },
}

/// The kind of a file that is not a regular one.
pub fn kind_of(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// Reads from the offset `at`; 0 at the end.
pub fn read_at(
    file: &File,
    name: &Arc<str>,
    buffer: &mut [u8],
    at: u64,
) -> Result<usize, FileError> {
    loop {
        match file.read_at(buffer, at) {
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(FileError::Read { file: name.clone(), at, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_open_files_is_no_question_of_permissions() {
        let message = |errno: rustix::io::Errno| {
            FileError::Open { file: "a.tar".into(), source: errno.into() }.to_string()
        };
        let too_many = message(rustix::io::Errno::MFILE);
        assert!(too_many.contains("ulimit -n") && !too_many.contains("permissions"), "{too_many}");
        assert!(message(rustix::io::Errno::ACCESS).contains("check its permissions"));
    }
}
