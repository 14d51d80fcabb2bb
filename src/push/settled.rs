//! Layers whose fate is sealed: the blobs they have become, and why those were sent or not.

use std::collections::{HashMap, HashSet};

use crate::image::{Blob, DiffId, Digest, Format, History};
use crate::report::{LayerReport, Outcome};
use crate::source::{self, LayerId, LayerKey};

/// A layer whose blob is there, or would be after a push.
#[derive(Debug)]
pub struct Settled {
    /// What the source calls it.
    pub entry: String,
    /// What its first bytes show it to hold, where they were read.
    pub name: Option<String>,
    /// The diff ID that the blob is for.
    pub diff_id: DiffId,
    /// The diff ID of the bytes, where they were read.
    pub read: Option<DiffId>,
    /// The blob.
    pub blob: Blob,
    /// How it came to be there.
    pub outcome: Outcome,
    /// The blob was made here.
    pub packed: bool,
    /// What the layer is made of, where the source makes it.
    pub key: Option<LayerKey>,
}

/// All layers that a source had, settled.
#[derive(Debug)]
pub struct SettledLayers(pub HashMap<LayerId, Settled>);

impl Settled {
    /// What there is to tell of it, with what the image's history says where that is known.
    pub fn report(&self, history: Option<&History>, format: Format) -> LayerReport {
        let name = history
            .and_then(source::name_from_history)
            .or_else(|| self.name.clone())
            .unwrap_or_else(|| self.diff_id.digest().short().to_owned());
        let media_type = self.blob.compression.media_type(format);
        LayerReport {
            name,
            diff_id: Some(self.diff_id.clone()),
            digest: self.blob.digest.clone(),
            size: self.blob.size,
            media_type: media_type.unwrap_or_default().to_owned(),
            compression: self.blob.compression,
            outcome: self.outcome.clone(),
        }
    }
}

impl SettledLayers {
    /// What became of a layer.
    pub fn get(&self, id: LayerId) -> Option<&Settled> {
        self.0.get(&id)
    }

    /// The digests of all blobs.
    pub fn digests(&self) -> Vec<Digest> {
        self.0.values().map(|layer| layer.blob.digest.clone()).collect()
    }

    /// The blobs that were made here, with the diff IDs that they are for.
    pub fn packed(&self) -> Vec<(DiffId, Blob)> {
        let packed = self.0.values().filter(|layer| layer.packed);
        packed.map(|layer| (layer.diff_id.clone(), layer.blob.clone())).collect()
    }

    /// The layers that the source made, with the diff IDs that came of it.
    pub fn made(&self) -> Vec<(LayerKey, DiffId)> {
        let made = |layer: &Settled| Some((layer.key.clone()?, layer.read.clone()?));
        self.0.values().filter_map(made).collect()
    }

    /// The blobs that were not uploaded.
    pub fn unsent(&self) -> impl Iterator<Item = Digest> {
        let unsent = self.0.values().filter(|layer| layer.outcome != Outcome::Uploaded);
        unsent.map(|layer| layer.blob.digest.clone())
    }

    /// The blobs whose presence is only the registry's word: nothing of them was sent in this run.
    pub fn relied_on(&self) -> HashSet<Digest> {
        let relied_on = self.0.values().filter(|layer| layer.outcome.is_relied_on());
        relied_on.map(|layer| layer.blob.digest.clone()).collect()
    }
}
