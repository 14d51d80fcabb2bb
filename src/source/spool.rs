//! A stream that has to be read in another order than it comes in: a tar whose blobs stand before
//! what tells them apart is put into a file without a name, and opened as any other.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use super::decompress::Stream;
use super::error::Error;
use super::tar::{EntryKind, OCI_LAYOUT, Tar, normalise};
use super::wrapping::Wrapping;

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

/// Whether a tar that begins so may be an OCI layout, by its first file. Docker's own archives
/// have been both since Docker 25, and which it is only its end tells.
pub fn may_be_layout(head: &[u8]) -> bool {
    let mut tar = Tar::new(head, "".into(), Wrapping::None);
    while let Ok(Some(entry)) = tar.next_entry() {
        if matches!(entry.kind, EntryKind::File | EntryKind::Sparse) {
            let name = normalise(&entry.name);
            return name.starts_with("blobs/") || name == OCI_LAYOUT || name == "index.json";
        }
    }
    false
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
