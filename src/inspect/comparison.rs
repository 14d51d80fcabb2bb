//! Two images compared: which layers and which packages differ.

use std::collections::HashMap;

use serde::Serialize;

use super::{InspectedImage, InspectedLayer};
use crate::changes::{Changes, Inventory};
use crate::image::Digest;

/// What is different between two images.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The digest of the old image's config.
    pub old: Digest,
    /// The digest of the new image's config.
    pub new: Digest,
    /// The layers: first those of the old image, lowest first, then those that only the new one has.
    pub layers: Vec<ComparedLayer>,
    /// The differences in numbers, and the packages.
    #[serde(flatten)]
    pub changes: Changes,
}

/// A layer of one image or of both.
#[derive(Clone, Debug, Serialize)]
pub struct ComparedLayer {
    /// Which of the images has it.
    pub state: LayerState,
    /// The layer.
    #[serde(flatten)]
    pub layer: InspectedLayer,
}

/// Which of two images has a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerState {
    /// Both images have it.
    Same,
    /// Only the old image has it.
    Removed,
    /// Only the new image has it.
    Added,
}

impl Comparison {
    /// Compares two images.
    pub fn between(old: &InspectedImage, new: &InspectedImage) -> Self {
        // How often each layer of the new image has not been matched yet.
        let mut left: HashMap<&Digest, usize> = HashMap::new();
        for digest in new.layers.iter().filter_map(identity) {
            *left.entry(digest).or_default() += 1;
        }
        let mut layers = Vec::new();
        for layer in &old.layers {
            let count = identity(layer).and_then(|digest| left.get_mut(digest));
            let state = match count.filter(|count| **count > 0) {
                Some(count) => {
                    *count -= 1;
                    LayerState::Same
                }
                None => LayerState::Removed,
            };
            layers.push(ComparedLayer { state, layer: layer.clone() });
        }
        for layer in new.layers.iter().rev() {
            let count = identity(layer).and_then(|digest| left.get_mut(digest));
            if let Some(count) = count.filter(|count| **count > 0) {
                *count -= 1;
                layers.push(ComparedLayer { state: LayerState::Added, layer: layer.clone() });
            }
        }
        let added = layers.iter().position(|layer| layer.state == LayerState::Added);
        layers[added.unwrap_or(old.layers.len())..].reverse();
        Self {
            old: old.id.clone(),
            new: new.id.clone(),
            layers,
            changes: Changes::between(&inventory(old), &inventory(new)),
        }
    }
}

/// Identifies a layer: the diff ID, which is the same for every compression, or else the digest of
/// the blob.
fn identity(layer: &InspectedLayer) -> Option<&Digest> {
    layer.diff_id.as_ref().map(|diff_id| diff_id.digest()).or(layer.digest.as_ref())
}

fn inventory(image: &InspectedImage) -> Inventory {
    let layers = image.layers.iter();
    Inventory {
        diff_ids: layers.clone().filter_map(|layer| layer.diff_id.clone()).collect(),
        store_paths: layers.flat_map(|layer| layer.store_paths.iter().cloned()).collect(),
    }
}
