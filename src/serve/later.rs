//! A blob whose digest the cache knows. Its layer is packed only when a client requests it.

use std::io::Read;
use std::sync::Arc;

use parking_lot::Mutex;

use super::packing::LayerPacker;
use crate::error::Error;
use crate::event::{Event, Events};
use crate::image::Blob;
use crate::pack::Spool;
use crate::source::layout::RegionReader;
use crate::source::{self, LayerBytes};

/// A blob that will be packed.
pub struct PackedLater {
    pub packer: Arc<LayerPacker>,
    /// The image and the layer, for messages.
    pub image: String,
    pub entry: String,
    pub layer: LayerBytes,
    /// The blob that packing should produce, according to the cache.
    pub expected: Blob,
    pub events: Events,
    /// The spool in which the blob grows, once a client has requested it.
    pub spool: Mutex<Option<Spool>>,
}

impl PackedLater {
    /// The spool with the blob. Starts to pack the blob if that has not begun yet.
    pub fn spool(self: &Arc<Self>) -> Result<Spool, Error> {
        let mut place = self.spool.lock();
        if let Some(spool) = &*place {
            return Ok(spool.clone());
        }
        let (packing, spool) = self.packer.begin(&self.image, &self.entry)?;
        *place = Some(spool.clone());
        drop(place);
        let later = self.clone();
        let growing = spool.clone();
        tokio::spawn(async move {
            let theirs = later.clone();
            let read =
                tokio::task::spawn_blocking(move || packing.read(&mut *reader(&theirs.layer)?));
            let failed = match read.await {
                Ok(Ok(())) => match growing.finished().await {
                    Ok(packed) if packed.blob == later.expected => return,
                    Ok(_) => format!(
                        "{}: layer {:?} is packed otherwise than the cache says, or has changed; \
                         serve it again with --no-cache",
                        later.image, later.entry
                    ),
                    Err(error) => error.to_string(),
                },
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            // Clear it, so that the next request tries again.
            *later.spool.lock() = None;
            (later.events)(Event::Warning(failed));
        });
        Ok(spool)
    }
}

/// Reads a layer from its beginning.
fn reader(bytes: &LayerBytes) -> Result<Box<dyn Read + Send>, source::Error> {
    match bytes {
        LayerBytes::Stored(region) => Ok(Box::new(RegionReader::new(region.clone()))),
        LayerBytes::Made { make, .. } => make(),
    }
}
