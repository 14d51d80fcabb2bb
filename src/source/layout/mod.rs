//! Images that are stored as a registry stores them: manifests, and the blobs that they list, each
//! under its digest (OCI image-spec 1.1, "Image Layout"; a `dir:` folder of skopeo).
//!
//! Input: a folder, or a tar in a file. Output: a [`Layout`]. [`Layout::select`] returns a
//! [`Tree`], which can be uploaded unchanged.

mod archive;
mod check;
mod collect;
mod directory;
mod error;
mod index;
mod manifest;
mod read;
mod region;
mod select;
mod skopeo_dir;
#[cfg(test)]
mod tests;
mod tree;

use std::path::Path;
use std::sync::Arc;

use self::collect::Collector;
use self::index::LayoutIndex;
use self::read::{BlobStore, ManifestReader};
use self::select::Chooser;
use super::error::Error;
use super::selection::Selection;
use super::tar::TarFile;

pub use error::LayoutError;
pub use region::{Region, RegionFile, RegionReader};
pub(super) use skopeo_dir::is_one as is_skopeo_folder;
pub use tree::{Node, StoredBlob, Tree};

/// An open layout. Only its list of manifests has been read.
pub struct Layout {
    file: Arc<str>,
    store: Box<dyn BlobStore>,
    index: LayoutIndex,
}

/// Opens the layout in the folder `path`.
pub(super) fn open_folder(path: &Path, file: Arc<str>) -> Result<Layout, Error> {
    let (store, index) = directory::open(path, &file)?;
    Ok(Layout { file, store, index })
}

/// Opens the image in the folder `path`, which skopeo wrote.
pub(super) fn open_skopeo_folder(path: &Path, file: Arc<str>) -> Result<Layout, Error> {
    let (store, index) = skopeo_dir::open(path, &file)?;
    Ok(Layout { file, store, index })
}

/// Opens the layout in a tar, which has a file `oci-layout`.
pub(super) fn open_archive(tar: TarFile) -> Result<Layout, Error> {
    let file = tar.name.clone();
    let (store, index) = archive::open(tar)?;
    Ok(Layout { file, store, index })
}

impl Layout {
    /// The names of all its images, from two annotations: `org.opencontainers.image.ref.name`,
    /// which is usually only a tag, and `io.containerd.image.name`, which is a whole name.
    pub fn names(&self) -> Vec<String> {
        self.index.names()
    }

    /// The selected image, with everything that belongs to it. Only short layers are read, to check
    /// their diff IDs. All layers must exist and have the length that their manifest says.
    ///
    /// Without a selection, the layout must have only one image. Referrers and the manifests of an
    /// index do not count as images. A name matches in any of its forms. A digest may be that of
    /// any manifest, also within an index. A platform selects one manifest of an index: the one
    /// with the same variant, or else the first one for the platform.
    pub fn select(&self, selection: &Selection) -> Result<Tree, Error> {
        let survey = self.index.survey(&mut self.reader())?;
        let chooser = Chooser { file: &self.file, store: &*self.store, index: &self.index };
        let chosen = chooser.choose(self.index.roots(&survey), selection)?;
        Collector::tree(&mut self.reader(), chosen, &survey.referrers)
    }

    /// All images, each as [`select`](Self::select) gives it.
    pub fn trees(&self) -> Result<Vec<Tree>, Error> {
        let survey = self.index.survey(&mut self.reader())?;
        let mut reader = self.reader();
        let roots = self.index.roots(&survey).into_iter();
        let trees: Vec<Tree> = roots
            .map(|root| Collector::tree(&mut reader, root, &survey.referrers))
            .collect::<Result<_, Error>>()?;
        match trees.is_empty() {
            true => Err(LayoutError::Empty { file: self.file.clone() }.into()),
            false => Ok(trees),
        }
    }

    fn reader(&self) -> ManifestReader<'_> {
        ManifestReader::new(&self.file, &*self.store)
    }
}
