//! Makes images from `manifest.json` and the configs, and checks every reference.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;

use super::error::DockerArchiveError;
use crate::image::{Bounded, Config, DiffId, LayerId, MAX_LAYERS, distinct_names};
use crate::json;
use crate::source::error::Error;
use crate::source::interface::Image;
use crate::source::role::EntryRole;
use crate::source::tar::Entries;

/// The longest `manifest.json` that is read: some 300 images of 128 layers.
pub const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// The most JSON of one archive that is held in memory, in bytes.
pub const MAX_JSON_BYTES: u64 = 32 << 20;

/// The most images that one archive may have.
const MAX_IMAGES: usize = 1024;

/// The most names that one image may have.
const MAX_NAMES: usize = 1024;

/// An image whose layers are given by the names of their entries.
///
/// The names are borrowed, because a long one may be listed many times.
pub struct ImageJson<'a> {
    names: Vec<String>,
    config: Config,
    layers: Vec<&'a str>,
}

/// One element of `manifest.json`.
#[derive(Deserialize)]
struct ManifestItem {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags", default)]
    repo_tags: Option<Bounded<String, MAX_NAMES>>,
    #[serde(rename = "Layers", default)]
    layers: Option<Bounded<String, MAX_LAYERS>>,
}

/// Parses `manifest.json`, and reads each config in it with `read_config`, which gets the name of
/// the entry and its value in `entries`.
pub fn list<'a, T>(
    file: &Arc<str>,
    manifest: &[u8],
    entries: &'a Entries<T>,
    mut read_config: impl FnMut(&str, &T) -> Result<Config, Error>,
) -> Result<Vec<ImageJson<'a>>, Error> {
    let Bounded(items): Bounded<ManifestItem, MAX_IMAGES> = json::from_slice(manifest)
        .map_err(|source| DockerArchiveError::MalformedManifest { file: file.clone(), source })?;
    if items.is_empty() {
        return Err(DockerArchiveError::NoImages { file: file.clone() }.into());
    }
    let mut configs: HashMap<&str, Config> = HashMap::new();
    items
        .into_iter()
        .map(|item| {
            let (stored, found) = entries.resolve(&item.config, EntryRole::Config)?;
            if !configs.contains_key(stored) {
                configs.insert(stored, read_config(stored, found)?);
            }
            let config = &configs[stored];
            let layers = item.layers.map_or(Vec::new(), |list| list.0);
            if layers.len() != config.diff_ids().len() {
                return Err(DockerArchiveError::LayerCount {
                    file: file.clone(),
                    entry: item.config,
                    diff_ids: config.diff_ids().len(),
                    layers: layers.len(),
                }
                .into());
            }
            let layers = layers
                .iter()
                .map(|layer| Ok(entries.resolve(layer, EntryRole::Layer)?.0))
                .collect::<Result<_, Error>>()?;
            let names = distinct_names(item.repo_tags.map_or(Vec::new(), |list| list.0));
            Ok(ImageJson { names, config: config.clone(), layers })
        })
        .collect()
}

/// The diff ID of each entry that is a layer of one of the images.
pub fn diff_ids<'a>(
    file: &Arc<str>,
    images: &'a [ImageJson<'_>],
) -> Result<HashMap<&'a str, &'a DiffId>, DockerArchiveError> {
    let mut known: HashMap<&str, &DiffId> = HashMap::new();
    for image in images {
        for (&entry, diff_id) in image.layers.iter().zip(image.config.diff_ids()) {
            let first = *known.entry(entry).or_insert(diff_id);
            if first != diff_id {
                return Err(DockerArchiveError::TwoDiffIds {
                    file: file.clone(),
                    entry: entry.to_owned(),
                    one: first.clone(),
                    other: diff_id.clone(),
                });
            }
        }
    }
    Ok(known)
}

impl ImageJson<'_> {
    /// The image. `id_of` returns the id of the layer in an entry.
    pub fn number(
        self,
        mut id_of: impl FnMut(&str) -> Result<LayerId, Error>,
    ) -> Result<Image, Error> {
        Ok(Image {
            names: self.names,
            config: self.config,
            layers: self.layers.iter().map(|entry| id_of(entry)).collect::<Result<_, Error>>()?,
        })
    }
}
