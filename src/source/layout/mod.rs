//! Images that are stored as a registry stores them: manifests, and the blobs that they list, each
//! under its digest (OCI image-spec 1.1, "Image Layout"; a `dir:` folder of skopeo).
//!
//! Comes in: a folder, or a tar that was put into a file. Goes out: a [`Layout`], of which
//! [`Layout::select`] gives a [`Tree`], ready to be put into a registry as it is.

mod archive;
mod directory;
mod index;
mod manifest;
mod read;
mod select;
mod skopeo_dir;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use self::index::Index;
use self::read::{Reader, Store};
use self::tree::Walk;
use super::error::Error;
use super::{Selection, printable};
use crate::image::{Config, Digest, Manifest, Platform};

pub(super) use archive::open as open_archive;
pub(super) use directory::open as open_folder;
pub(super) use skopeo_dir::{is_one as is_skopeo_folder, open as open_skopeo_folder};

/// A layout that was opened: its list of manifests was read, and nothing else.
pub struct Layout {
    file: Arc<str>,
    store: Box<dyn Store>,
    index: Index,
}

impl Layout {
    /// The names of all its images, as annotations give them: `org.opencontainers.image.ref.name`,
    /// commonly a tag only, and `io.containerd.image.name`, which is a whole name.
    pub fn names(&self) -> Vec<String> {
        self.index.names()
    }

    /// The image that is meant, with all that goes along. Nothing of layers is read; they are there,
    /// as long as they should be.
    ///
    /// Where nothing is said the only one is meant, referrers and the parts of an index not
    /// counted. A name is found in any of its forms. A digest may be that of any manifest, within
    /// indexes too. Of an index, a platform means the one manifest for it: the one that names the
    /// same variant, or else the first that is for it.
    pub fn select(&self, selection: &Selection) -> Result<Tree, Error> {
        let survey = self.index.survey(&mut self.reader())?;
        let chosen = self.choose(self.index.roots(&survey), selection)?;
        Walk::tree(&mut self.reader(), chosen, &survey.referrers)
    }

    /// All images, each as [`select`](Self::select) gives it.
    pub fn trees(&self) -> Result<Vec<Tree>, Error> {
        let survey = self.index.survey(&mut self.reader())?;
        let mut reader = self.reader();
        let roots = self.index.roots(&survey).into_iter();
        let trees: Vec<Tree> = roots
            .map(|root| Walk::tree(&mut reader, root, &survey.referrers))
            .collect::<Result<_, Error>>()?;
        match trees.is_empty() {
            true => Err(Error::EmptyLayout { file: self.file.clone() }),
            false => Ok(trees),
        }
    }

    fn reader(&self) -> Reader<'_> {
        Reader::new(&self.file, &*self.store)
    }
}

/// What is to be put: one manifest or index, all that it lists, and the referrers of these.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The names that the layout gives the root, or the index that the root was chosen from.
    pub names: Vec<String>,
    /// The manifests and indexes, every one after those that it lists, and referrers after their
    /// subjects. Each occurs once.
    pub nodes: Vec<Node>,
    /// The place among `nodes` of the one that gets the tags.
    pub root: usize,
}

/// A manifest or an index, with the blobs that it lists.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its media type, as the descriptor that led to it or it itself says.
    pub media_type: String,
    /// The JSON as stored.
    pub bytes: Bytes,
    /// The digest of the JSON.
    pub digest: Digest,
    /// What a list of referrers calls it: its `artifactType`, or else its config's media type.
    pub artifact_type: Option<String>,
    /// What its annotations are, for a referrer's descriptor.
    pub annotations: BTreeMap<String, String>,
    /// The manifest that it refers to, though that does not list it (image-spec 1.1, `subject`).
    pub subject: Option<Digest>,
    /// What it runs on, as the index that lists it or its config says.
    pub platform: Option<Platform>,
    /// The places among the tree's nodes of those that it lists; empty for a manifest.
    pub children: Vec<usize>,
    /// The config, where it is that of an image.
    pub config: Option<Config>,
    /// Config and layers, in the manifest's order, config first; empty for an index.
    pub blobs: Vec<StoredBlob>,
}

/// A blob of a layout.
#[derive(Clone, Debug)]
pub struct StoredBlob {
    /// Its media type.
    pub media_type: String,
    /// Its digest, as the manifest says; not checked yet.
    pub digest: Digest,
    /// Its length, which is the manifest's word and the file's.
    pub size: u64,
    /// Where its bytes are; `None` where only others may hand them out (a layer with `urls`, of a
    /// non-distributable media type), and the layout has not got them.
    pub region: Option<Region>,
}

/// A part of a file.
#[derive(Clone, Debug)]
pub struct Region {
    /// The file's name for messages, safe to print.
    pub name: Arc<str>,
    /// The file.
    pub file: RegionFile,
    /// Where the part begins.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

/// Where a region's bytes are.
#[derive(Clone, Debug)]
pub enum RegionFile {
    /// In a file that holds many: it stays open.
    Open(Arc<File>),
    /// In a file of their own, opened whenever it is read: an image may have more blobs than a
    /// process may have open files.
    Path(Arc<Path>),
}

impl Node {
    /// As it is put; its digest was checked when it was read.
    pub fn manifest(&self) -> Manifest {
        let Self { media_type, bytes, digest, .. } = self;
        Manifest { media_type: media_type.clone(), bytes: bytes.clone(), digest: digest.clone() }
    }
}

impl Region {
    /// Reads from `at`, counted from the region's beginning, as much as there is up to the end of
    /// `buffer`; 0 at the end.
    pub fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let opened;
        let file = match &self.file {
            RegionFile::Open(file) => &**file,
            RegionFile::Path(path) => {
                opened = File::open(path)?;
                &opened
            }
        };
        let left = self.length.saturating_sub(at);
        let length = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let mut filled = 0;
        while filled < length {
            let at = self.offset + at + filled as u64;
            match file.read_at(&mut buffer[filled..length], at) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// All of it, which is not much: what is less by now than it was shows by its hash.
    fn bytes(&self) -> Result<Bytes, Error> {
        let mut bytes = vec![0; usize::try_from(self.length).unwrap_or(usize::MAX)];
        let read = self.read_at(&mut bytes, 0).map_err(|source| Error::Read {
            file: self.name.clone(),
            at: 0,
            source,
        })?;
        bytes.truncate(read);
        Ok(bytes.into())
    }
}
