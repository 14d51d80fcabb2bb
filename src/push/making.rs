//! Makes sure that a layer that several images need is packed only once. One image packs it. The
//! others wait and share the blob, or pack it themselves if that fails.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::image::{Blob, DiffId, LayerKey};
use crate::pack::{Packed, Spool};

/// How many packed blobs are kept for images that need them later.
const MOST_KEPT: usize = 256;

/// The layers that are packed in this run.
pub struct Making {
    layers: Mutex<HashMap<WantedLayer, watch::Receiver<MakeStage>>>,
    /// How many more blobs may be kept.
    keep: Arc<AtomicUsize>,
}

/// What identifies a layer before it is packed.
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

/// What the caller has to do for a layer.
pub enum MakeRole {
    Make(Maker),
    Wait(Waiter),
    Share(MadeLayer),
}

/// The duty to pack a layer. If it is dropped before the layer is packed, the waiters learn that
/// packing failed.
pub struct Maker {
    wanted: WantedLayer,
    stage: watch::Sender<MakeStage>,
    keep: Arc<AtomicUsize>,
}

/// Waits for a layer that another image packs.
pub struct Waiter(watch::Receiver<MakeStage>);

impl Making {
    /// An empty table for a run of this many images.
    pub fn new(images: usize) -> Self {
        let keep = if images > 1 { MOST_KEPT } else { 0 };
        Self { layers: Mutex::default(), keep: Arc::new(AtomicUsize::new(keep)) }
    }

    /// What the caller has to do for this layer.
    pub fn role(&self, wanted: &WantedLayer) -> MakeRole {
        let mut layers = self.layers.lock();
        if let Some(stage) = layers.get(wanted) {
            // A maker that was dropped without a result has failed.
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

    /// Allows one more blob to be kept until its image needs it.
    pub fn keep_one_more(&self) {
        self.keep.fetch_add(1, Ordering::Relaxed);
    }

    /// Packs the layer again, because the bytes of its blob are not available.
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
    /// Reports that the layer was packed into this spool.
    pub fn done(self, packed: &Packed, spool: &Spool) {
        if matches!(&self.wanted, WantedLayer::Layer(wanted) if *wanted != packed.diff_id) {
            // The bytes were those of another layer.
            return;
        }
        // One receiver is in the map. Any further receiver waits for the bytes. Without a waiter,
        // the bytes are kept for later images, up to a limit.
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
