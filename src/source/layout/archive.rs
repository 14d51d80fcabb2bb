//! A layout in a tar, which is a plain one in a file: blobs are parts of that file.

use std::sync::Arc;

use super::directory::{check_version, json, path_of};
use super::index::{INDEX, Index};
use super::read::Store;
use super::{Layout, Region, RegionFile};
use crate::image::Digest;
use crate::source::entries::{Entries, OCI_LAYOUT};
use crate::source::error::{Error, Role};
use crate::source::tar_file::{Stored, TarFile};

/// Opens the layout in a tar, which has a file `oci-layout`.
pub fn open(tar: TarFile) -> Result<Layout, Error> {
    if !tar.entries.contains(INDEX) {
        let error = Error::LayoutFileMissing { file: tar.name.clone(), entry: INDEX };
        return Err(tar.incomplete(error));
    }
    let TarFile { file, name, entries, .. } = tar;
    let archive = Archive { name: name.clone(), file: Arc::new(file), entries };
    check_version(&name, &json(&name, OCI_LAYOUT, archive.region(OCI_LAYOUT)?)?)?;
    let index = Index::parse(&name, &json(&name, INDEX, archive.region(INDEX)?)?)?;
    Ok(Layout { file: name, store: Box::new(archive), index })
}

struct Archive {
    name: Arc<str>,
    file: Arc<std::fs::File>,
    entries: Entries<Stored>,
}

impl Archive {
    fn region(&self, entry: &str) -> Result<Option<Region>, Error> {
        let Ok((_, stored)) = self.entries.find(entry)? else {
            return Ok(None);
        };
        if stored.sparse {
            let (file, entry) = (self.name.clone(), entry.to_owned());
            return Err(Error::Sparse { file, role: Role::Blob, entry });
        }
        Ok(Some(Region {
            name: self.name.clone(),
            file: RegionFile::Open(self.file.clone()),
            offset: stored.offset,
            length: stored.size,
        }))
    }
}

impl Store for Archive {
    fn blob(&self, digest: &Digest) -> Result<Option<Region>, Error> {
        self.region(&format!("blobs/{}", path_of(digest)))
    }
}
