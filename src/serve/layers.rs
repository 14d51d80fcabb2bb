//! Turns the layers of a source into blobs that can be pulled. A layer is read only if its blob's
//! digest and length are not known otherwise.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::blob::BlobBytes;
use super::later::PackedLater;
use super::packing::LayerPacker;
use crate::error::Error;
use crate::event::Events;
use crate::image::{Blob, Compression, DiffId, Hasher};
use crate::pack;
use crate::reuse::Cache;
use crate::source::{self, Claim, Image, Layer, LayerBytes, LayerId, LayerMismatch, Source};

/// How many of a layer's first bytes are enough to see whether it is compressed.
const HEAD: usize = 10;

/// Reads the layers of one source. All functions here block.
pub struct LayerReader {
    /// The image, for messages.
    pub image: String,
    pub compression: Compression,
    /// The name of these packing options in the cache.
    pub recipe: String,
    pub cache: Arc<Cache>,
    pub packer: Arc<LayerPacker>,
    pub events: Events,
    pub runtime: Handle,
}

/// Chooses the images to serve among the images of a source.
pub type ChooseImages<'a> = dyn Fn(&[Image]) -> Result<Vec<Image>, Error> + 'a;

/// A layer, and its blob.
pub struct ReadLayer {
    pub entry: String,
    pub diff_id: DiffId,
    pub blob: Blob,
    pub bytes: BlobBytes,
}

impl LayerReader {
    /// The images that `meant` chooses, and their layers.
    pub fn read(
        &self,
        mut source: Box<dyn Source>,
        meant: &ChooseImages<'_>,
    ) -> Result<(Vec<Image>, HashMap<LayerId, ReadLayer>), Error> {
        let wanted = source.images().map(meant).transpose()?;
        let wanted: Option<HashSet<LayerId>> =
            wanted.map(|images| images.into_iter().flat_map(|image| image.layers).collect());
        let made = self.runtime.block_on(self.cache.made(&source.keys()));
        let mut layers = HashMap::new();
        while let Some(layer) = source.next_layer()? {
            let id = layer.id;
            if wanted.as_ref().is_some_and(|wanted| !wanted.contains(&id)) {
                continue;
            }
            let diff_id = match &layer.claim {
                Claim::DiffId(diff_id) => Some(diff_id.clone()),
                Claim::Key(key) => made.get(key).cloned(),
                Claim::Hint(_) | Claim::Nothing => None,
            };
            let key = match &layer.claim {
                Claim::Key(key) => Some(key.clone()),
                _ => None,
            };
            let read = self.layer(layer, diff_id)?;
            if let Some(key) = key {
                self.cache.remember_made(key, read.diff_id.clone());
            }
            source.learn(&read.diff_id);
            layers.insert(id, read);
        }
        let images = meant(source.images().unwrap_or_default())?;
        images.iter().try_for_each(|image| self.check(image, &layers))?;
        Ok((images, layers))
    }

    /// Makes a blob of a layer. `diff_id` is given if it is known.
    fn layer(&self, layer: Layer<'_>, diff_id: Option<DiffId>) -> Result<ReadLayer, Error> {
        let Layer { entry, content, bytes, .. } = layer;
        let in_entry = |error| source::Error::from_read(error, &entry);
        let tar = match bytes {
            Some(bytes) if is_tar(&bytes).map_err(in_entry)? => Ok(bytes),
            bytes => Err(bytes),
        };
        let known = match &diff_id {
            Some(diff_id) if self.compression != Compression::None => self.known(diff_id),
            _ => None,
        };
        match (tar, diff_id, known) {
            (Ok(layer), Some(diff_id), Some(expected)) => {
                let later = PackedLater {
                    packer: self.packer.clone(),
                    image: self.image.clone(),
                    entry: entry.clone(),
                    layer,
                    expected: expected.clone(),
                    events: self.events.clone(),
                    spool: Mutex::default(),
                };
                let bytes = BlobBytes::Later(Arc::new(later));
                Ok(ReadLayer { entry, diff_id, blob: expected, bytes })
            }
            (Ok(bytes), diff_id, _) if self.compression == Compression::None => {
                let (diff_id, size) = match (diff_id, length(&bytes)) {
                    (Some(diff_id), Some(size)) => (diff_id, size),
                    _ => {
                        let (digest, size) = Hasher::read(content).map_err(in_entry)?;
                        (digest.into(), size)
                    }
                };
                let digest = diff_id.digest().clone();
                let blob = Blob { digest, size, compression: Compression::None };
                let bytes = match bytes {
                    LayerBytes::Stored(region) => BlobBytes::Stored(region),
                    LayerBytes::Made { make, .. } => BlobBytes::Made(make),
                };
                Ok(ReadLayer { entry, diff_id, blob, bytes })
            }
            (tar, ..) => {
                let (packing, spool) = self.packer.begin(&self.image, &entry)?;
                packing.read(content)?;
                let packed = self.runtime.block_on(spool.finished()).map_err(|source| {
                    let (image, entry) = (self.image.clone(), entry.clone());
                    Error::Pack { image, entry, source }
                })?;
                let (diff_id, blob) = (packed.diff_id, packed.blob);
                let bytes = match tar {
                    // The layer was already compressed and was only hashed.
                    Err(Some(LayerBytes::Stored(region))) if region.length == blob.size => {
                        BlobBytes::Stored(region)
                    }
                    _ => BlobBytes::Spooled(spool),
                };
                if blob.compression == self.compression {
                    self.cache.remember_layer(&self.recipe, diff_id.clone(), blob.clone());
                }
                Ok(ReadLayer { entry, diff_id, blob, bytes })
            }
        }
    }

    /// The blob that packing a layer should produce, according to the cache.
    fn known(&self, diff_id: &DiffId) -> Option<Blob> {
        let asked = [diff_id.clone()];
        let mut blobs = self.runtime.block_on(self.cache.blobs_of(&self.recipe, &asked));
        let fits = |blob: &Blob| blob.compression == self.compression;
        blobs.remove(diff_id)?.into_iter().find(fits)
    }

    /// Checks that the layers that were read are those that the config lists.
    fn check(&self, image: &Image, layers: &HashMap<LayerId, ReadLayer>) -> Result<(), Error> {
        for (place, (id, listed)) in image.layers.iter().zip(image.config.diff_ids()).enumerate() {
            // The source has yielded each layer that an image lists.
            let Some(read) = layers.get(id) else { continue };
            if read.diff_id != *listed {
                let mismatch = LayerMismatch {
                    file: self.image.clone(),
                    layer: place + 1,
                    entry: read.entry.clone(),
                    listed: listed.clone(),
                    actual: read.diff_id.clone(),
                };
                return Err(source::Error::from(mismatch).into());
            }
        }
        Ok(())
    }
}

fn length(bytes: &LayerBytes) -> Option<u64> {
    match bytes {
        LayerBytes::Stored(region) => Some(region.length),
        LayerBytes::Made { size, .. } => *size,
    }
}

/// Whether a layer is not compressed.
fn is_tar(bytes: &LayerBytes) -> std::io::Result<bool> {
    let LayerBytes::Stored(region) = bytes else { return Ok(true) };
    let mut head = [0; HEAD];
    let read = region.read_at(&mut head, 0)?;
    Ok(matches!(pack::compression_of(&head[..read]), Ok(Compression::None)))
}
