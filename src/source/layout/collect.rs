//! Collects everything to upload for a manifest or an index: what it lists, each manifest after
//! those that it lists, and then the manifests that refer to any of these.

use std::collections::HashMap;

use super::check;
use super::error::{LayoutError, Listing};
use super::index::{Chosen, StoredReferrer};
use super::manifest::Descriptor;
use super::read::{MAX_DEPTH, ManifestReader};
use super::tree::{Node, StoredBlob, Tree};
use crate::image::Digest;
use crate::source::error::Error;
use crate::source::role::EntryRole;

/// The most manifests for one image.
const MAX_NODES: usize = 4096;

/// Collects the manifests to upload.
pub struct Collector<'r, 'a> {
    reader: &'r mut ManifestReader<'a>,
    nodes: Vec<Node>,
    places: HashMap<Digest, usize>,
}

impl<'r, 'a> Collector<'r, 'a> {
    /// The tree of a manifest or an index.
    pub fn tree(
        reader: &'r mut ManifestReader<'a>,
        chosen: Chosen,
        referrers: &[StoredReferrer],
    ) -> Result<Tree, Error> {
        let mut walk = Self { reader, nodes: Vec::new(), places: HashMap::new() };
        let root = walk.node(&chosen.descriptor, &chosen.by, 0)?;
        walk.attach(referrers)?;
        Ok(Tree { names: chosen.names, nodes: walk.nodes, root })
    }

    /// Appends the manifests that refer to one of the nodes, and those that refer to them.
    fn attach(&mut self, referrers: &[StoredReferrer]) -> Result<(), Error> {
        loop {
            let before = self.nodes.len();
            for referrer in referrers {
                if self.places.contains_key(&referrer.subject) {
                    self.node(&referrer.descriptor, &referrer.by, 0)?;
                }
            }
            if self.nodes.len() == before {
                return Ok(());
            }
        }
    }

    /// Adds a manifest or an index after those that it lists, unless it was added before. Returns
    /// its place in `nodes`.
    fn node(
        &mut self,
        descriptor: &Descriptor,
        by: &Listing,
        depth: usize,
    ) -> Result<usize, Error> {
        if let Some(&place) = self.places.get(&descriptor.digest) {
            return Ok(place);
        }
        if depth > MAX_DEPTH {
            return Err(self.too_large(MAX_DEPTH, "indexes one within the other").into());
        }
        let (bytes, manifest) = self.reader.manifest(descriptor, by)?;
        let this = Listing::Manifest(descriptor.digest.clone());
        let (mut children, mut blobs) = (Vec::new(), Vec::new());
        for child in manifest.manifests.iter().flatten() {
            match child.is_manifest() || self.reader.is_manifest(child)? {
                true => children.push(self.node(child, &this, depth + 1)?),
                // BuildKit lists a cache's layers in an index.
                false => blobs.push(self.blob(child, &this, EntryRole::Layer)?),
            }
        }

        let mut config = None;
        if let Some(listed) = &manifest.config {
            let blob = self.blob(listed, &this, EntryRole::Config)?;
            if let Some(region) = &blob.region {
                config = self.reader.config(&manifest, region, &this)?;
            }
            blobs.push(blob);
        }
        for layer in &manifest.layers {
            blobs.push(self.blob(layer, &this, EntryRole::Layer)?);
        }
        if let Some(config) = &config {
            // The first blob is the config.
            let regions: Vec<_> = blobs[1..].iter().map(|blob| blob.region.clone()).collect();
            check::config_fits(
                self.reader.file(),
                &descriptor.digest,
                &manifest,
                config,
                &regions,
            )?;
        }

        if self.nodes.len() == MAX_NODES {
            return Err(self.too_large(MAX_NODES, "manifests for one image").into());
        }
        let place = self.nodes.len();
        self.places.insert(descriptor.digest.clone(), place);
        let of_config = config.as_ref().map(|config| config.platform().clone());
        self.nodes.push(Node {
            media_type: manifest.media_type,
            bytes,
            digest: descriptor.digest.clone(),
            artifact_type: manifest.artifact_type,
            annotations: manifest.annotations,
            subject: manifest.subject,
            platform: descriptor.platform.clone().or(of_config),
            children,
            config,
            blobs,
        });
        Ok(place)
    }

    fn blob(
        &self,
        listed: &Descriptor,
        by: &Listing,
        role: EntryRole,
    ) -> Result<StoredBlob, Error> {
        Ok(StoredBlob {
            region: self.reader.blob(listed, by, role)?,
            media_type: listed.media_type.clone(),
            digest: listed.digest.clone(),
            size: listed.size,
        })
    }

    fn too_large(&self, limit: usize, what: &'static str) -> LayoutError {
        LayoutError::TooLarge { file: self.reader.file().clone(), limit: limit as u64, what }
    }
}
