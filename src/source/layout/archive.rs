//! A layout in a plain tar file. Its blobs are parts of that file.

use std::sync::Arc;

use super::directory::{check_version, json, path_of};
use super::error::LayoutError;
use super::index::{INDEX, LayoutIndex};
use super::read::BlobStore;
use super::region::{Region, RegionFile};
use crate::image::Digest;
use crate::source::error::Error;
use crate::source::role::EntryRole;
use crate::source::tar::{Entries, OCI_LAYOUT, StoredFile, TarFile};

/// Opens the layout in a tar, which has a file `oci-layout`.
pub fn open(tar: TarFile) -> Result<(Box<dyn BlobStore>, LayoutIndex), Error> {
    if !tar.entries.contains(INDEX) {
        let error = LayoutError::FileMissing { file: tar.name.clone(), entry: INDEX };
        return Err(tar.incomplete(error));
    }
    let TarFile { file, name, entries, .. } = tar;
    let mut archive = LayoutTar { name: name.clone(), file: Arc::new(file), entries, whole: None };
    check_version(&name, &json(&name, OCI_LAYOUT, archive.region(OCI_LAYOUT)?)?)?;
    let index = LayoutIndex::parse(&name, &json(&name, INDEX, archive.region(INDEX)?)?)?;
    archive.whole = index.whole().map(|whole| whole.digest.clone());
    Ok((Box::new(archive), index))
}

struct LayoutTar {
    name: Arc<str>,
    file: Arc<std::fs::File>,
    entries: Entries<StoredFile>,
    /// The digest of `index.json`, if it is itself the index of one image.
    whole: Option<Digest>,
}

impl LayoutTar {
    fn region(&self, entry: &str) -> Result<Option<Region>, Error> {
        let Ok((_, stored)) = self.entries.find(entry)? else {
            return Ok(None);
        };
        if stored.sparse {
            let (file, entry) = (self.name.clone(), entry.to_owned());
            return Err(LayoutError::Sparse { file, role: EntryRole::Blob, entry }.into());
        }
        Ok(Some(Region {
            name: self.name.clone(),
            file: RegionFile::Open(self.file.clone()),
            offset: stored.offset,
            length: stored.size,
        }))
    }
}

impl BlobStore for LayoutTar {
    fn manifest(&self, digest: &Digest) -> Result<Option<Region>, Error> {
        match self.whole.as_ref() == Some(digest) {
            true => self.region(INDEX),
            false => self.blob(digest),
        }
    }

    fn blob(&self, digest: &Digest) -> Result<Option<Region>, Error> {
        self.region(&format!("blobs/{}", path_of(digest)))
    }
}
