//! Errors for files of an unknown kind, with the best guess at what they are.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::error::Error;
use super::open_file::OpenFile;
use super::printable::printable_path;
use super::tar::{self, BLOCK};
use super::wrapping::Wrapping;

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
    /// A docker archive that was unpacked.
    #[error(
        "{file} is a docker archive that was unpacked into a directory; give the archive itself, or \
         pack it again: tar -C {file} -cf image.tar ."
    )]
    Unpacked { file: Arc<str> },
    /// A folder that holds images.
    #[error("{file} is a directory; give {}: {}", match images.len() {
        1 => "the image in it",
        _ => "one of the images in it",
    }, named(images))]
    FolderOfImages { file: Arc<str>, images: Vec<Arc<str>> },
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

/// How many files of a folder are looked at.
const MAX_FILES: usize = 100;
/// How many images of a folder an error names.
const MAX_NAMED: usize = 5;

/// The error for a folder that is no image. It names the images in the folder.
pub fn directory(opened: OpenFile) -> Error {
    let file = opened.name;
    let Some(path) = opened.path else {
        return UnknownKind::Directory { file }.into();
    };
    if is_unpacked_archive(&path) {
        return UnknownKind::Unpacked { file }.into();
    }
    let images = images_in(&path);
    match images.is_empty() {
        false => UnknownKind::FolderOfImages { file, images }.into(),
        true => UnknownKind::Directory { file }.into(),
    }
}

/// The first of these names, and how many others there are.
fn named(images: &[Arc<str>]) -> String {
    let first = images[..images.len().min(MAX_NAMED)].join(", ");
    match images.len().saturating_sub(MAX_NAMED) {
        0 => first,
        others => format!("{first} and {others} more"),
    }
}

/// The files of a folder that begin as archives do, and the OCI layouts in it.
fn images_in(folder: &Path) -> Vec<Arc<str>> {
    let Ok(files) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = files.take(MAX_FILES).filter_map(|file| Some(file.ok()?.path()));
    let mut images: Vec<_> = paths.filter(|path| is_layout(path) || is_archive(path)).collect();
    images.sort();
    images.iter().map(|path| printable_path(path)).collect()
}

/// Whether the folder has the list of images that is in every docker archive.
fn is_unpacked_archive(folder: &Path) -> bool {
    head_of(&folder.join("manifest.json"))
        .is_some_and(|head| head.trim_ascii_start().starts_with(b"["))
}

fn is_layout(path: &Path) -> bool {
    path.join("oci-layout").is_file()
}

/// Whether it is a file that begins as archives do.
fn is_archive(path: &Path) -> bool {
    let fits = |head: Vec<u8>| tar::is_tar(&head) || Wrapping::of(&head) != Wrapping::None;
    head_of(path).is_some_and(fits)
}

/// The first bytes of a file; empty if it is not a regular file, `None` if it cannot be read.
fn head_of(path: &Path) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    if path.is_file() {
        File::open(path).ok()?.take(BLOCK as u64).read_to_end(&mut head).ok()?;
    }
    Some(head)
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
