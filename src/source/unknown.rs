//! Files that are none of the kinds that can be read: the best guess at what they are.

use std::sync::Arc;

use super::error::Error;
use super::open_file::OpenFile;

/// A file that is none of the kinds that can be read.
#[derive(Debug, thiserror::Error)]
pub enum UnknownKind {
    /// A folder that holds no image.
    #[error(
        "{file} is a directory, but neither an OCI layout (it has no file oci-layout) nor what \
         skopeo's dir: writes (no file version); give the image itself, and with Nix build the \
         output that is the image (`nix build .#docker`, not the package)"
    )]
    Directory { file: Arc<str> },
    /// Neither an archive nor anything else that is known.
    #[error(
        "{file} is not an image: it is {what}; give a docker archive, as `nix build .#docker`, \
         `docker save` or `podman save` write it, plain or compressed"
    )]
    Unknown { file: Arc<str>, what: &'static str },
    /// A file without content.
    #[error(
        "{file} is empty (0 bytes); was the build, the download or the command before the pipe cut \
         off? Make the image again"
    )]
    Empty { file: Arc<str> },
}

impl From<UnknownKind> for Error {
    fn from(error: UnknownKind) -> Self {
        Self::image(error)
    }
}

/// The error for a file of an unknown kind.
pub fn unknown(opened: OpenFile) -> Error {
    let head = opened.head.as_slice();
    let what = if head.starts_with(b"version https://git-lfs") {
        "a Git LFS pointer (`git lfs pull` fetches the file itself)"
    } else if head.starts_with(b"PK\x03\x04") {
        "a zip file"
    } else if head.trim_ascii_start().starts_with(b"<") {
        "an HTML or XML page, as a failed download leaves it"
    } else if is_text(head) {
        "a text file"
    } else {
        "neither a tar nor gzip, zstd, xz or bzip2 data"
    };
    UnknownKind::Unknown { file: opened.name, what }.into()
}

/// Whether it is UTF-8 without control characters. A character cut off at the end does not count.
fn is_text(head: &[u8]) -> bool {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !text.is_empty() && !text.contains(|c: char| c.is_control() && !c.is_whitespace())
}
