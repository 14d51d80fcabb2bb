//! Work that a push does early, while a distant registry has not yet said which layers it has. It
//! packs the last layers, because they change most often, and uploads those that are certainly new.
//! If the registry turns out to have a layer, packing it was useless, but the processor was idle
//! anyway.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;

use futures::future::join_all;
use tokio::sync::mpsc;

use super::blobs::Upload;
use super::image_push::ImagePush;
use super::input::blocking;
use super::layers::Layers;
use super::making::{MakeRole, WantedLayer};
use super::read::{Decision, IncomingLayer};
use crate::event;
use crate::image::Blob;
use crate::pack::Spool;
use crate::reuse::{Candidate, Why};
use crate::source::{Claim, Contents, Image, LayerId, Source};

/// How many bytes of layers are packed early. Packing them takes about as long as a distant
/// registry needs to ask for a login and to return the previous image.
const MOST_BYTES: u64 = 16 << 20;

/// A layer that was packed ahead.
struct PackedLayer {
    blob: Blob,
    upload: Upload,
}

/// The image with only its last layers, and a source to read them from. `None` if the image cannot
/// be read twice, or if all of it would have to be read.
pub async fn last_layers(
    push: &ImagePush<'_>,
    mut image: Image,
) -> Option<(Image, Box<dyn Source>)> {
    if !push.input.can_be_read_again() {
        return None;
    }
    let open = async || match push.input.source(&event::ignore()).await.ok()? {
        Contents::Layers(source) => Some(source).filter(|source| source.images().is_some()),
        Contents::Layout(_) => None,
    };
    let mut source = open().await?;
    let sizes = blocking(move || {
        let mut sizes = HashMap::new();
        while let Some(layer) = source.next_layer()? {
            sizes.insert(layer.id, layer.size);
        }
        Ok(sizes)
    });
    let sizes = sizes.await.ok()?;
    let mut left = MOST_BYTES;
    let mut is_in_reach = |id: &&LayerId| {
        let rest = sizes.get(id).and_then(|size| left.checked_sub(*size));
        left = rest.unwrap_or(0);
        rest.is_some()
    };
    let count = image.layers.iter().rev().take_while(|id| is_in_reach(id)).count();
    image.layers.drain(..image.layers.len() - count);
    Some((image, open().await?))
}

impl Layers<'_> {
    /// Packs these layers, and uploads those that the previous image does not list. Errors are
    /// ignored here: they occur again when the layer is brought.
    pub async fn bring_ahead(&self, mut layers: mpsc::Receiver<IncomingLayer>) {
        let mut packed = Vec::new();
        while let Some(layer) = layers.recv().await {
            packed.extend(self.pack_ahead(layer).await);
        }
        let candidates = packed.iter().map(|layer| self.known.holders(&layer.blob));
        let candidates = join_all(candidates).await;
        let is_listed =
            |all: &Vec<Candidate>| all.iter().any(|one| matches!(one.why, Why::Tagged(_)));
        // If no blob is listed, the previous image may contain these layers as other blobs. Only
        // its config can show that, so nothing is uploaded yet.
        if candidates.iter().any(is_listed) {
            let new = packed.iter().zip(&candidates).filter(|(_, all)| !is_listed(all));
            let upload = async |(layer, all): (&PackedLayer, &Vec<Candidate>)| {
                drop(self.blobs.ensure(&layer.blob, all, &layer.upload).await);
            };
            join_all(new.map(upload)).await;
        }
    }

    /// Packs a layer before it is needed. `None` if this is no longer necessary.
    async fn pack_ahead(&self, layer: IncomingLayer) -> Option<PackedLayer> {
        let Claim::DiffId(diff_id) = &layer.claim else { return None };
        let wanted = WantedLayer::Layer(diff_id.clone());
        let MakeRole::Make(maker) = self.push.run.making.role(&wanted) else {
            layer.verdict.send_replace(Decision::Skip(diff_id.clone()));
            return None;
        };
        layer.verdict.send_replace(Decision::Pack);
        let is_known = async {
            if self.known.candidates(diff_id).await.is_empty() {
                pending::<()>().await;
            }
        };
        let pack = async {
            let spool: Spool = layer.begun.await.ok()?.spool?;
            let packed = spool.finished().await.ok()?;
            Some((spool, packed))
        };
        // Dropping the layer stops its reader.
        let (spool, packed) = tokio::select! {
            () = is_known => return None,
            packed = pack => packed?,
        };
        self.push.run.making.keep_one_more();
        maker.done(&packed, &spool);
        let name = self.names.get(&layer.id).cloned();
        let upload = Upload {
            layer: layer.id,
            name: name.unwrap_or_else(|| packed.diff_id.digest().short().to_owned()),
            content: Arc::new(spool),
            events: self.push.events.clone(),
        };
        Some(PackedLayer { blob: packed.blob, upload })
    }
}
