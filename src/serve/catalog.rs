//! Everything that can be pulled: repositories, their tags, manifests and blobs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::blob::{BlobBytes, ServedBlob, ServedImage, ServedLayer, ServedManifest, ServedPart};
use super::layers::ReadLayer;
use super::options::PullName;
use crate::error::Error;
use crate::image::{Config, Digest, Format, Manifest, ManifestLayer};
use crate::source::layout::{Node, Tree};
use crate::source::{self, Image, LayerId};

/// Everything that can be pulled.
#[derive(Default)]
pub struct Catalog {
    pub images: Vec<ServedImage>,
    /// The repositories by name, sorted as the catalog request lists them.
    pub repositories: BTreeMap<String, ServedRepository>,
}

/// A repository.
#[derive(Default)]
pub struct ServedRepository {
    pub tags: BTreeMap<String, Digest>,
    pub manifests: BTreeMap<Digest, Arc<ServedManifest>>,
    pub blobs: HashMap<Digest, Arc<ServedBlob>>,
}

impl ServedRepository {
    /// The manifest with a tag or a digest.
    pub fn manifest(&self, reference: &str) -> Option<(&Digest, &Arc<ServedManifest>)> {
        match self.tags.get(reference) {
            Some(digest) => self.manifests.get_key_value(digest),
            None => self.manifests.get_key_value(&reference.parse::<Digest>().ok()?),
        }
    }
}

impl Catalog {
    /// Adds an image that was read layer by layer, and makes its manifest.
    pub fn add_image(
        &mut self,
        names: Vec<PullName>,
        image: &Image,
        layers: &HashMap<LayerId, ReadLayer>,
        blobs: &HashMap<LayerId, Arc<ServedBlob>>,
        format: Format,
    ) -> Result<(), Error> {
        let ids = || image.layers.iter().filter_map(|id| layers.get(id));
        let listed = ids().map(|layer| ManifestLayer { blob: layer.blob.clone(), key: None });
        let manifest = Manifest::of(&image.config, &listed.collect::<Vec<_>>(), format)?;
        let mut served: Vec<Arc<ServedBlob>> = vec![config_blob(&image.config)];
        served.extend(image.layers.iter().filter_map(|id| blobs.get(id)).cloned());
        let part = ServedPart {
            manifest: manifest.digest.clone(),
            config: image.config.digest().clone(),
            platform: image.config.platform().clone(),
            layers: ids()
                .map(|layer| ServedLayer {
                    diff_id: layer.diff_id.clone(),
                    blob: layer.blob.digest.clone(),
                    size: layer.blob.size,
                    media_type: layer
                        .blob
                        .compression
                        .media_type(format)
                        .unwrap_or_default()
                        .into(),
                })
                .collect(),
        };
        let node = ServedManifest {
            media_type: manifest.media_type.clone(),
            bytes: manifest.bytes.clone(),
            artifact_type: None,
            annotations: BTreeMap::new(),
            subject: None,
            blobs: served.iter().map(|blob| blob.digest.clone()).collect(),
        };
        let manifests = vec![(manifest.digest.clone(), Arc::new(node))];
        let image = ServedImage { names, digest: manifest.digest, parts: vec![part] };
        self.add(image, &manifests, &served)
    }

    /// Adds the contents of a layout unchanged.
    pub fn add_tree(&mut self, names: Vec<PullName>, tree: &Tree) -> Result<(), Error> {
        let mut manifests = Vec::new();
        let mut blobs = Vec::new();
        for node in &tree.nodes {
            let served = ServedManifest {
                media_type: node.media_type.clone(),
                bytes: node.bytes.clone(),
                artifact_type: node.artifact_type.clone(),
                annotations: node.annotations.clone(),
                subject: node.subject.clone(),
                blobs: node.blobs.iter().map(|blob| blob.digest.clone()).collect(),
            };
            manifests.push((node.digest.clone(), Arc::new(served)));
            blobs.extend(stored_blobs(node));
        }
        let root = &tree.nodes[tree.root];
        let listed = match root.children.is_empty() {
            true => vec![root],
            false => root.children.iter().filter_map(|place| tree.nodes.get(*place)).collect(),
        };
        let parts = listed.into_iter().filter_map(|node| {
            let config = node.config.as_ref()?;
            let layers = node.blobs.iter().skip(1).zip(config.diff_ids());
            let layers = layers.map(|(blob, diff_id)| ServedLayer {
                diff_id: diff_id.clone(),
                blob: blob.digest.clone(),
                size: blob.size,
                media_type: blob.media_type.clone(),
            });
            Some(ServedPart {
                manifest: node.digest.clone(),
                config: config.digest().clone(),
                platform: node.platform.clone().unwrap_or_else(|| config.platform().clone()),
                layers: layers.collect(),
            })
        });
        let image = ServedImage { names, digest: root.digest.clone(), parts: parts.collect() };
        self.add(image, &manifests, &blobs)
    }

    fn add(
        &mut self,
        image: ServedImage,
        manifests: &[(Digest, Arc<ServedManifest>)],
        blobs: &[Arc<ServedBlob>],
    ) -> Result<(), Error> {
        for name in &image.names {
            let repository = self.repositories.entry(name.repository.clone()).or_default();
            let tag = repository.tags.entry(name.tag.clone());
            if *tag.or_insert_with(|| image.digest.clone()) != image.digest {
                return Err(Error::Usage(format!(
                    "two images would be served as {name}; give one another name: \
                     pushimg serve IMAGE=NAME:TAG"
                )));
            }
            repository.manifests.extend(manifests.iter().cloned());
            for blob in blobs {
                repository.blobs.entry(blob.digest.clone()).or_insert_with(|| blob.clone());
            }
        }
        self.images.push(image);
        Ok(())
    }
}

fn config_blob(config: &Config) -> Arc<ServedBlob> {
    let bytes = config.bytes().clone();
    Arc::new(ServedBlob {
        digest: config.digest().clone(),
        size: bytes.len() as u64,
        name: None,
        entry: "config".to_owned(),
        bytes: BlobBytes::Held(bytes),
    })
}

/// The blobs of a manifest in a layout, without foreign layers.
fn stored_blobs(node: &Node) -> Vec<Arc<ServedBlob>> {
    let names = node.config.as_ref().map(names_of_layers).unwrap_or_default();
    let blobs = node.blobs.iter().enumerate().filter_map(|(place, stored)| {
        let layer = place.checked_sub(1);
        Some(Arc::new(ServedBlob {
            digest: stored.digest.clone(),
            size: stored.size,
            name: layer.and_then(|layer| names.get(layer)?.clone()),
            entry: layer.map_or("config", |_| "layer").to_owned(),
            bytes: BlobBytes::Stored(stored.region.clone()?),
        }))
    });
    blobs.collect()
}

/// The layers' names in the config's history, as far as it has them.
pub fn names_of_layers(config: &Config) -> Vec<Option<String>> {
    config.layer_history().map(source::name_from_history).collect()
}
