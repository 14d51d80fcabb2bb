//! Who packs a layer that several images need: one does, the others wait and share the blob, or pack
//! it themselves if it fails.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::image::{Blob, DiffId, LayerKey};
use crate::pack::{Packed, Spool};

/// How many packed blobs are kept for images that have not come to them yet.
const MOST_KEPT: usize = 256;

/// The layers that are packed in this run.
pub struct Making {
    layers: Mutex<HashMap<WantedLayer, watch::Receiver<MakeStage>>>,
    /// How many more blobs may be kept.
    keep: Arc<AtomicUsize>,
}

/// What a layer is known by before it is packed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WantedLayer {
    Layer(DiffId),
    Key(LayerKey),
}

#[derive(Clone)]
enum MakeStage {
    Making,
    Made(MadeLayer),
    GivenUp,
}

/// A layer that was packed.
#[derive(Clone)]
pub struct MadeLayer {
    pub diff_id: DiffId,
    pub blob: Blob,
    /// The blob's bytes, if they are still kept.
    pub spool: Option<Spool>,
}

/// What is to be done for a layer.
pub enum MakeRole {
    Make(Maker),
    Wait(Waiter),
    Share(MadeLayer),
}

/// The duty to pack a layer. If it is dropped before the layer is packed, those that wait hear it.
pub struct Maker {
    wanted: WantedLayer,
    stage: watch::Sender<MakeStage>,
    keep: Arc<AtomicUsize>,
}

/// Waits for a layer that another image packs.
pub struct Waiter(watch::Receiver<MakeStage>);

impl Making {
    /// For a run of so many images; nothing is made yet.
    pub fn new(images: usize) -> Self {
        let keep = if images > 1 { MOST_KEPT } else { 0 };
        Self { layers: Mutex::default(), keep: Arc::new(AtomicUsize::new(keep)) }
    }

    /// Who packs this layer.
    pub fn role(&self, wanted: &WantedLayer) -> MakeRole {
        let mut layers = self.layers.lock();
        if let Some(stage) = layers.get(wanted) {
            // A maker that is gone without a result has given up.
            let is_led = stage.has_changed().is_ok();
            match &*stage.borrow() {
                MakeStage::Made(made) => return MakeRole::Share(made.clone()),
                MakeStage::Making if is_led => return MakeRole::Wait(Waiter(stage.clone())),
                MakeStage::Making | MakeStage::GivenUp => {}
            }
        }
        MakeRole::Make(self.begin(&mut layers, wanted))
    }

    /// The blob of a layer that was packed in this run.
    pub fn made(&self, diff_id: &DiffId) -> Option<Blob> {
        match &*self.layers.lock().get(&WantedLayer::Layer(diff_id.clone()))?.borrow() {
            MakeStage::Made(made) => Some(made.blob.clone()),
            MakeStage::Making | MakeStage::GivenUp => None,
        }
    }

    /// Keeps the blob of the next layer that is packed, for the image to come to it.
    pub fn keep_one_more(&self) {
        self.keep.fetch_add(1, Ordering::Relaxed);
    }

    /// Has the layer packed once more, since its blob is out of reach.
    pub fn remake(&self, wanted: &WantedLayer) -> Maker {
        self.begin(&mut self.layers.lock(), wanted)
    }

    fn begin(
        &self,
        layers: &mut HashMap<WantedLayer, watch::Receiver<MakeStage>>,
        wanted: &WantedLayer,
    ) -> Maker {
        let (stage, waiting) = watch::channel(MakeStage::Making);
        layers.insert(wanted.clone(), waiting);
        Maker { wanted: wanted.clone(), stage, keep: self.keep.clone() }
    }
}

impl Maker {
    /// The layer was packed, into this spool.
    pub fn done(self, packed: &Packed, spool: &Spool) {
        if matches!(&self.wanted, WantedLayer::Layer(wanted) if *wanted != packed.diff_id) {
            // It was only thought to be that layer.
            return;
        }
        // One receiver is in the map; further ones wait for the bytes. Without them the bytes are
        // kept for images to come, as long as there are not too many.
        let one_less = |left: usize| left.checked_sub(1);
        let is_wanted = self.stage.receiver_count() > 1
            || self.keep.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok();
        self.stage.send_replace(MakeStage::Made(MadeLayer {
            diff_id: packed.diff_id.clone(),
            blob: packed.blob.clone(),
            spool: is_wanted.then(|| spool.clone()),
        }));
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        self.stage.send_if_modified(|stage| {
            let undone = matches!(stage, MakeStage::Making);
            if undone {
                *stage = MakeStage::GivenUp;
            }
            undone
        });
    }
}

impl Waiter {
    /// Waits until the layer is packed; `None` if it failed.
    pub async fn made(mut self) -> Option<MadeLayer> {
        match &*self.0.wait_for(|stage| !matches!(stage, MakeStage::Making)).await.ok()? {
            MakeStage::Made(made) => Some(made.clone()),
            MakeStage::Making | MakeStage::GivenUp => None,
        }
    }
}
