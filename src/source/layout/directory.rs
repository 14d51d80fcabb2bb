//! A layout in a folder: `oci-layout`, `index.json`, and each blob in a file of its own,
//! `blobs/<algorithm>/<digits>` (OCI image-spec 1.1, "Image Layout").

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::index::{INDEX, Index};
use super::read::{MAX_MANIFEST_BYTES, Store};
use super::{Layout, Region, RegionFile, printable};
use crate::image::Digest;
use crate::source::entries::OCI_LAYOUT;
use crate::source::error::{Error, Listing};

/// The one version of layouts that there is.
const VERSION: &str = "1.0.0";

/// Opens the layout in the folder `path`.
pub fn open(path: &Path, file: Arc<str>) -> Result<Layout, Error> {
    let read = |name: &'static str| {
        let region = region(&path.join(name))?;
        json(&file, name, region)
    };
    check_version(&file, &read(OCI_LAYOUT)?)?;
    let index = Index::parse(&file, &read(INDEX)?)?;
    let store = Box::new(Directory { blobs: path.join("blobs") });
    Ok(Layout { file, store, index })
}

struct Directory {
    blobs: PathBuf,
}

impl Store for Directory {
    fn blob(&self, digest: &Digest) -> Result<Option<Region>, Error> {
        region(&self.blobs.join(path_of(digest)))
    }
}

/// Where a digest's blob is, below `blobs`.
pub fn path_of(digest: &Digest) -> String {
    digest.as_str().replacen(':', "/", 1)
}

/// A file; `None` where there is none.
pub fn region(path: &Path) -> Result<Option<Region>, Error> {
    let name: Arc<str> = printable(&path.to_string_lossy()).into();
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Open { file: name, source }),
    };
    if !metadata.is_file() {
        // A pipe would be waited for, and a device may never end.
        let source = io::Error::other("it is not a regular file");
        return Err(Error::Open { file: name, source });
    }
    let (file, length) = (RegionFile::Path(path.into()), metadata.len());
    Ok(Some(Region { name, file, offset: 0, length }))
}

/// A file that every layout has.
pub fn json(
    file: &Arc<str>,
    entry: &'static str,
    region: Option<Region>,
) -> Result<bytes::Bytes, Error> {
    let file = file.clone();
    match region {
        None => Err(Error::LayoutFileMissing { file, entry }),
        Some(region) if region.length > MAX_MANIFEST_BYTES => Err(Error::JsonTooLong {
            file,
            entry: entry.to_owned(),
            size: region.length,
            limit: MAX_MANIFEST_BYTES,
        }),
        Some(region) => region.bytes(),
    }
}

/// Reads `oci-layout`.
pub fn check_version(file: &Arc<str>, bytes: &[u8]) -> Result<(), Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Fields {
        image_layout_version: String,
    }
    let file = file.clone();
    match serde_json::from_slice::<Fields>(bytes) {
        Ok(fields) if fields.image_layout_version == VERSION => Ok(()),
        Ok(fields) => Err(Error::LayoutVersion {
            file,
            entry: OCI_LAYOUT,
            found: fields.image_layout_version.chars().take(40).collect(),
            known: VERSION,
        }),
        Err(error) => {
            let of = Listing::File(OCI_LAYOUT);
            Err(Error::LayoutJson { file, of, what: error.to_string() })
        }
    }
}
