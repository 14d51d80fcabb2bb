//! Reads the pieces of a layer's tar as one stream.
//!
//! Input: an iterator over pieces, with headers as bytes and contents as files. Output: their
//! bytes, one after another. Each content is filled with zeros up to a whole block.

use std::io::{self, Read};
use std::path::PathBuf;

use super::error::Error;
use super::file::FileError;
use super::printable::printable_path;
use super::regular_file::RegularFile;
use super::tar::BLOCK;

/// A part of a tar.
pub enum TarPiece {
    /// Bytes: headers, or the end of the archive.
    Bytes(Vec<u8>),
    /// A file's content, and zeros up to the end of its last block.
    File {
        /// The file. It is opened only when it is read.
        path: PathBuf,
        /// The length in its header. A shorter file is an error; of a longer file only this many
        /// bytes are read.
        size: u64,
    },
}

/// The bytes of all pieces. An error is an [`Error`] within an [`io::Error`].
pub struct TarPieces<I> {
    pieces: I,
    current: Current,
}

enum Current {
    /// Bytes, and how many of them were read.
    Bytes(Vec<u8>, usize),
    /// A file, and the zeros that follow it.
    File { file: RegularFile, padding: usize },
    /// Zeros.
    Padding(usize),
}

impl<I: Iterator<Item = Result<TarPiece, Error>>> TarPieces<I> {
    /// A reader at the beginning of the first piece.
    pub fn new(pieces: I) -> Self {
        Self { pieces, current: Current::Padding(0) }
    }

    /// Goes on to the next piece; `false` after the last.
    fn advance(&mut self) -> Result<bool, Error> {
        self.current = match self.pieces.next().transpose()? {
            None => return Ok(false),
            Some(TarPiece::Bytes(bytes)) => Current::Bytes(bytes, 0),
            Some(TarPiece::File { path, size }) => {
                let file = RegularFile::open(&path)
                    .map_err(|source| FileError::Store { path: printable_path(&path), source })?
                    .with_length(size);
                let padding = (size.next_multiple_of(BLOCK as u64) - size) as usize;
                Current::File { file, padding }
            }
        };
        Ok(true)
    }
}

impl<I: Iterator<Item = Result<TarPiece, Error>>> Read for TarPieces<I> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match &mut self.current {
                Current::Bytes(bytes, read) if *read < bytes.len() => {
                    let count = (bytes.len() - *read).min(buffer.len());
                    buffer[..count].copy_from_slice(&bytes[*read..*read + count]);
                    *read += count;
                    return Ok(count);
                }
                Current::File { file, .. } if file.left() > 0 => return file.read(buffer),
                Current::File { padding, .. } => self.current = Current::Padding(*padding),
                Current::Padding(left) if *left > 0 => {
                    let count = (*left).min(buffer.len());
                    buffer[..count].fill(0);
                    *left -= count;
                    return Ok(count);
                }
                Current::Bytes(..) | Current::Padding(_) => {
                    if !self.advance().map_err(io::Error::other)? {
                        return Ok(0);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: Vec<TarPiece>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        TarPieces::new(pieces.into_iter().map(Ok)).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn contents_fill_whole_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for size in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 100_000] {
            let content = vec![7; size];
            std::fs::write(&path, &content).unwrap();
            let file = TarPiece::File { path: path.clone(), size: size as u64 };
            let bytes =
                read(vec![TarPiece::Bytes(b"head".into()), file, TarPiece::Bytes(b"end".into())]);
            let mut wanted = [b"head".as_slice(), &content].concat();
            wanted.resize(4 + size.next_multiple_of(BLOCK), 0);
            wanted.extend(b"end");
            assert_eq!(bytes.unwrap(), wanted, "{size}");
        }
    }

    #[test]
    fn a_file_that_is_shorter_or_gone_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let piece = || vec![TarPiece::File { path: path.clone(), size: 3 }];
        let gone = Error::from_read(read(piece()).unwrap_err(), "x").to_string();
        assert!(gone.starts_with(path.to_str().unwrap()), "{gone}");
        std::fs::write(&path, "ab").unwrap();
        let short = Error::from_read(read(piece()).unwrap_err(), "x").to_string();
        assert!(short.starts_with(path.to_str().unwrap()), "{short}");
    }
}
