//! What is put for a layout's image: manifests over blobs that are ready.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::region::Region;
use crate::image::{Config, Digest, Manifest, Platform, is_foreign};

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

impl StoredBlob {
    /// Whether it is a layer that only others may distribute.
    pub fn is_foreign(&self) -> bool {
        is_foreign(&self.media_type)
    }
}

impl Node {
    /// As it is put; its digest was checked when it was read.
    pub fn manifest(&self) -> Manifest {
        let Self { media_type, bytes, digest, .. } = self;
        Manifest { media_type: media_type.clone(), bytes: bytes.clone(), digest: digest.clone() }
    }
}
