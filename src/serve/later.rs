//! A blob that the cache knows the digest of: its layer is packed only when a client asks for it.

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
    /// What the cache says that it will be.
    pub expected: Blob,
    pub events: Events,
    /// Where it grows, once somebody has asked.
    pub spool: Mutex<Option<Spool>>,
}

impl PackedLater {
    /// The spool that the blob is in, or grows in from now on.
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
            // The next request tries again.
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
