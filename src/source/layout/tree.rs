//! What is uploaded for a layout's image: manifests, and blobs that already have their final form.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::region::Region;
use crate::image::{Config, Digest, Manifest, Platform, is_foreign};

/// What is to be uploaded: one manifest or index, everything that it lists, and the referrers of
/// all these.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The names that the layout gives the root, or the index that the root was chosen from.
    pub names: Vec<String>,
    /// The manifests and indexes, every one after those that it lists, and referrers after their
    /// subjects. Each occurs once.
    pub nodes: Vec<Node>,
    /// The place in `nodes` of the manifest or index that gets the tags.
    pub root: usize,
}

/// A manifest or an index, with the blobs that it lists.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its own media type, or else the one in its descriptor.
    pub media_type: String,
    /// The JSON as stored.
    pub bytes: Bytes,
    /// The digest of the JSON.
    pub digest: Digest,
    /// Its type in a list of referrers: its `artifactType`, or else its config's media type.
    pub artifact_type: Option<String>,
    /// Its annotations. If it is a referrer, its descriptor contains them, too.
    pub annotations: BTreeMap<String, String>,
    /// The manifest that it refers to, although that manifest does not list it (image-spec 1.1,
    /// `subject`).
    pub subject: Option<Digest>,
    /// The platform that it runs on, from the index that lists it or from its config.
    pub platform: Option<Platform>,
    /// The places in the tree's nodes of the manifests that it lists; empty for a manifest.
    pub children: Vec<usize>,
    /// The config, if it is an image config.
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
    /// Its length. The manifest and the file agree on it.
    pub size: u64,
    /// Where its bytes are. `None` if the layout does not have them, which is allowed for a layer
    /// with `urls`.
    pub region: Option<Region>,
}

impl StoredBlob {
    /// Whether it is a non-distributable layer.
    pub fn is_foreign(&self) -> bool {
        is_foreign(&self.media_type)
    }
}

impl Node {
    /// The manifest to upload. Its digest was checked when it was read.
    pub fn manifest(&self) -> Manifest {
        let Self { media_type, bytes, digest, .. } = self;
        Manifest { media_type: media_type.clone(), bytes: bytes.clone(), digest: digest.clone() }
    }
}
