//! A folder as skopeo's `dir:` writes it: `version`, `manifest.json` (a manifest, or a list of
//! manifests, which are in `<digits>.manifest.json`), and each blob in a file named by its digest's
//! digits. Signatures may be in the folder, too, but are not part of the image.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::directory::{json, region};
use super::error::LayoutError;
use super::index::LayoutIndex;
use super::manifest::Descriptor;
use super::read::BlobStore;
use super::region::Region;
use crate::image::Digest;
use crate::source::error::Error;
use crate::source::file::FileError;
use crate::source::tar::MANIFEST;

/// The file that identifies such a folder.
const VERSION_FILE: &str = "version";

/// How that file begins.
const VERSION_TEXT: &str = "Directory Transport Version: ";

/// The version that introduced the current names of blobs.
const VERSION: &str = "1.1";

/// Whether a folder is one of skopeo's.
pub fn is_one(path: &Path) -> bool {
    let start = || -> Result<Option<bytes::Bytes>, FileError> {
        let Some(file) = region(&path.join(VERSION_FILE))? else {
            return Ok(None);
        };
        let length = file.length.min(VERSION_TEXT.len() as u64);
        Region { length, ..file }.bytes().map(Some)
    };
    // If the file cannot be read, the folder is not one of skopeo's.
    matches!(start(), Ok(Some(start)) if start == VERSION_TEXT)
}

/// Opens the image in the folder `path`.
pub fn open(path: &Path, file: &Arc<str>) -> Result<(Box<dyn BlobStore>, LayoutIndex), Error> {
    let read = |name: &'static str| json(file, name, region(&path.join(name))?);
    let version = read(VERSION_FILE)?;
    let version = String::from_utf8_lossy(&version);
    let version = version.trim_end();
    if version.strip_prefix(VERSION_TEXT) != Some(VERSION) {
        return Err(LayoutError::Version {
            file: file.clone(),
            entry: VERSION_FILE,
            found: version.chars().take(40).collect(),
            known: VERSION,
        }
        .into());
    }
    let manifest = read(MANIFEST)?;
    let root = Digest::of(&manifest);
    // The media type is in the manifest itself.
    let descriptor = Descriptor::of(String::new(), root.clone(), manifest.len() as u64);
    let index = LayoutIndex::of(MANIFEST, descriptor);
    Ok((Box::new(SkopeoDir { path: path.to_owned(), root }), index))
}

struct SkopeoDir {
    path: PathBuf,
    /// The digest of `manifest.json`.
    root: Digest,
}

impl BlobStore for SkopeoDir {
    fn manifest(&self, digest: &Digest) -> Result<Option<Region>, Error> {
        let name = match *digest == self.root {
            true => MANIFEST.to_owned(),
            false => format!("{}.manifest.json", digest.hex()),
        };
        Ok(region(&self.path.join(name))?)
    }

    fn blob(&self, digest: &Digest) -> Result<Option<Region>, Error> {
        Ok(region(&self.path.join(digest.hex()))?)
    }
}
