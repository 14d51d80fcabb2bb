//! A layout in a folder: `oci-layout`, `index.json`, and each blob in a file of its own,
//! `blobs/<algorithm>/<digits>` (OCI image-spec 1.1, "Image Layout").

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::error::{LayoutError, Listing};
use super::index::{INDEX, LayoutIndex};
use super::read::{BlobStore, MAX_MANIFEST_BYTES};
use super::region::{Region, RegionFile};
use crate::image::Digest;
use crate::source::error::Error;
use crate::source::file::{FileError, kind_of};
use crate::source::printable::printable_path;
use crate::source::tar::OCI_LAYOUT;

/// The only version of layouts.
const VERSION: &str = "1.0.0";

/// Opens the layout in the folder `path`.
pub fn open(path: &Path, file: &Arc<str>) -> Result<(Box<dyn BlobStore>, LayoutIndex), Error> {
    let read = |name: &'static str| {
        let region = region(&path.join(name))?;
        json(file, name, region)
    };
    check_version(file, &read(OCI_LAYOUT)?)?;
    let index = LayoutIndex::parse(file, &read(INDEX)?)?;
    let whole = index.whole().map(|whole| whole.digest.clone());
    Ok((Box::new(Directory { path: path.to_owned(), whole }), index))
}

struct Directory {
    path: PathBuf,
    /// The digest of `index.json`, if it is itself the index of one image.
    whole: Option<Digest>,
}

impl BlobStore for Directory {
    fn manifest(&self, digest: &Digest) -> Result<Option<Region>, Error> {
        match self.whole.as_ref() == Some(digest) {
            true => Ok(region(&self.path.join(INDEX))?),
            false => self.blob(digest),
        }
    }

    fn blob(&self, digest: &Digest) -> Result<Option<Region>, Error> {
        Ok(region(&self.path.join("blobs").join(path_of(digest)))?)
    }
}

/// The path of a digest's blob below `blobs`.
pub fn path_of(digest: &Digest) -> String {
    digest.as_str().replacen(':', "/", 1)
}

/// The region of a whole file; `None` if there is no such file.
pub fn region(path: &Path) -> Result<Option<Region>, FileError> {
    let name = printable_path(path);
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(FileError::Open { file: name, source }),
    };
    if !metadata.is_file() {
        return Err(FileError::NotRegular { file: name, what: kind_of(&metadata) });
    }
    let (file, length) = (RegionFile::Path(path.into()), metadata.len());
    Ok(Some(Region { name, file, offset: 0, length }))
}

/// Reads a JSON file that every layout must have.
pub fn json(
    file: &Arc<str>,
    entry: &'static str,
    region: Option<Region>,
) -> Result<bytes::Bytes, Error> {
    let file = file.clone();
    match region {
        None => Err(LayoutError::FileMissing { file, entry }.into()),
        Some(region) if region.length > MAX_MANIFEST_BYTES => Err(LayoutError::JsonTooLong {
            file,
            entry: entry.to_owned(),
            size: region.length,
            limit: MAX_MANIFEST_BYTES,
        }
        .into()),
        Some(region) => Ok(region.bytes()?),
    }
}

/// Checks the version in `oci-layout`.
pub fn check_version(file: &Arc<str>, bytes: &[u8]) -> Result<(), LayoutError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct LayoutFile {
        image_layout_version: String,
    }
    let file = file.clone();
    match crate::json::from_slice::<LayoutFile>(bytes) {
        Ok(fields) if fields.image_layout_version == VERSION => Ok(()),
        Ok(fields) => Err(LayoutError::Version {
            file,
            entry: OCI_LAYOUT,
            found: fields.image_layout_version.chars().take(40).collect(),
            known: VERSION,
        }),
        Err(error) => {
            let of = Listing::File(OCI_LAYOUT);
            Err(LayoutError::Json { file, of, what: error.to_string() })
        }
    }
}
