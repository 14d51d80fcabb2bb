//! A stream that has to be read in another order than it comes in: it is put into a temporary file
//! without a name.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use super::decompress::Stream;
use super::error::Error;

/// A stream cannot be put into a temporary file.
#[derive(Debug, thiserror::Error)]
#[error(
    "{file}: cannot spool it in {folder}, as an archive whose blobs come first is: {source}; set \
     TMPDIR to a directory with room, or give the archive as a plain tar file, and no copy is needed"
)]
pub struct SpoolError {
    file: Arc<str>,
    folder: String,
    source: io::Error,
}

impl From<SpoolError> for Error {
    fn from(error: SpoolError) -> Self {
        Self::image(error)
    }
}

/// Puts all of a stream into a temporary file, the last checksum verified: the file, and its length.
pub fn spool(mut stream: Stream, file: &Arc<str>) -> Result<(File, u64), Error> {
    let failed = |source| SpoolError {
        file: file.clone(),
        folder: std::env::temp_dir().display().to_string(),
        source,
    };
    let mut spooled = tempfile::tempfile().map_err(failed)?;
    let mut length = 0;
    loop {
        let piece = stream.peek()?;
        if piece.is_empty() {
            return Ok((spooled, length));
        }
        spooled.write_all(piece).map_err(failed)?;
        length += piece.len() as u64;
        stream.pass();
    }
}
