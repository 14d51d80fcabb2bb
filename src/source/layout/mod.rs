//! Images that are stored as a registry stores them: manifests, and the blobs that they list, each
//! under its digest (OCI image-spec 1.1, "Image Layout"; a `dir:` folder of skopeo).
//!
//! Comes in: a folder, or a tar that was put into a file. Goes out: a [`Layout`], of which
//! [`Layout::select`] gives a [`Tree`], ready to be put into a registry as it is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use crate::image::{Config, Digest, Platform};

/// A layout that was opened: its list of manifests was read, and nothing else.
pub struct Layout {}

/// What is to be put: one manifest or index, all that it lists, and the referrers of these.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The names that the layout gives the root.
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
    /// What kind of artifact it is, where it says so.
    pub artifact_type: Option<String>,
    /// What its annotations are, for a referrer's descriptor.
    pub annotations: std::collections::BTreeMap<String, String>,
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
    pub file: Arc<File>,
    /// Where the part begins.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

impl Region {
    /// Reads from `at`, counted from the region's beginning, as much as there is up to the end of
    /// `buffer`; 0 at the end.
    pub fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let left = self.length.saturating_sub(at);
        let length = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let mut filled = 0;
        while filled < length {
            let at = self.offset + at + filled as u64;
            match self.file.read_at(&mut buffer[filled..length], at) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}
impl Layout {
    /// TEMP
    pub fn select(&self, _s: &super::Selection) -> Result<Tree, super::Error> {
        Err(super::Error::Terminal)
    }
}
