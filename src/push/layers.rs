//! Brings the layers of an archive. Each layer is found at the registry and skipped, or packed and
//! uploaded.

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;
use futures::future::{join_all, try_join_all};
use futures::stream::FuturesUnordered;
use futures::try_join;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, mpsc};

use super::blobs::{RepositoryBlobs, Upload, UploadError};
use super::image_push::{Failure, ImagePush, Trust};
use super::making::{MadeLayer, MakeRole, Maker, Waiter, WantedLayer};
use super::read::{Decision, IncomingLayer};
use crate::error::Error;
use crate::event::Event;
use crate::image::{Blob, Compression, DiffId, Format, History, LayerKey, ManifestLayer};
use crate::pack::{self, Packed, Spool};
use crate::report::{Known, LayerReport, Outcome};
use crate::reuse::{Candidate, Reuse, Why};
use crate::source::{self, Claim, Image, LayerId};

/// A layer of at least this size is uploaded while it is still being compressed. A smaller layer is
/// compressed quickly; then its digest is known, and the registry can be asked for it first.
const STREAM_FROM: u64 = 64 << 20;

/// Brings the layers of one image to its repository.
pub struct Layers<'a> {
    pub(super) push: &'a ImagePush<'a>,
    trust: Trust,
    pub(super) known: &'a Reuse,
    pub(super) blobs: &'a RepositoryBlobs<'a>,
    /// The layers' names from the history, if they are known before the layers are read.
    pub(super) names: HashMap<LayerId, String>,
    /// The diff IDs and keys that are known of the layers to come.
    expected: (Vec<DiffId>, Vec<LayerKey>),
    /// The blob that was found for each layer.
    found: Mutex<HashMap<DiffId, Arc<OnceCell<FoundBlob>>>>,
    /// Whether the name of an entry was the diff ID of a layer that the registry has. Then the
    /// names of the other entries are treated as diff IDs too.
    names_hold: AtomicBool,
    /// The diff IDs of layers that were reported.
    reported: Mutex<HashSet<DiffId>>,
}

/// The blob that was found for a layer, if any.
type FoundBlob = Option<(Blob, Outcome)>;

/// A layer whose blob is in the repository, or would be after a push.
#[derive(Debug)]
pub struct LayerResult {
    /// The layer's name in the source.
    pub entry: String,
    /// The package name that its first bytes show, if they were read.
    pub name: Option<String>,
    /// The diff ID that the blob is for.
    pub diff_id: DiffId,
    /// The diff ID of the bytes, if they were read.
    pub read: Option<DiffId>,
    pub blob: Blob,
    pub outcome: Outcome,
    /// Whether the blob was packed here.
    pub packed: bool,
    /// What the source makes the layer from.
    pub key: Option<LayerKey>,
}

/// The results of all layers that a source has.
#[derive(Debug)]
pub struct LayerResults(HashMap<LayerId, LayerResult>);

impl<'a> Layers<'a> {
    pub fn new(
        push: &'a ImagePush<'a>,
        trust: Trust,
        known: &'a Reuse,
        blobs: &'a RepositoryBlobs<'a>,
        image: Option<&Image>,
        keys: Vec<LayerKey>,
    ) -> Self {
        let names = image.into_iter().flat_map(|image| {
            let history = image.config.layer_history();
            let named = |(id, entry): (&LayerId, _)| Some((*id, source::name_from_history(entry)?));
            image.layers.iter().zip(history).filter_map(named)
        });
        let diff_ids = image.map_or(Vec::new(), |image| image.config.diff_ids().to_vec());
        Self {
            push,
            trust,
            known,
            blobs,
            names: names.collect(),
            expected: (diff_ids, keys),
            found: Mutex::default(),
            names_hold: AtomicBool::new(false),
            reported: Mutex::default(),
        }
    }

    /// Brings the layers as the reader yields them, all at the same time.
    pub async fn bring_all(
        &self,
        layers: &mut mpsc::Receiver<IncomingLayer>,
    ) -> Result<LayerResults, Failure> {
        let mut results = HashMap::new();
        let mut bringing = FuturesUnordered::new();
        let mut ahead = pin!(self.find_ahead());
        let (mut looking, mut more) = (true, true);
        while more || !bringing.is_empty() {
            tokio::select! {
                layer = layers.recv(), if more => match layer {
                    Some(layer) => bringing.push(self.bring(layer)),
                    None => more = false,
                },
                Some(layer) = bringing.next() => results.extend(layer?),
                () = &mut ahead, if looking => looking = false,
            }
        }
        Ok(LayerResults(results))
    }

    /// Finds all layers of an image without reading them. `None` if some have to be read.
    pub async fn find_all(&self, image: &Image) -> Result<Option<LayerResults>, Error> {
        let layers = image.layers.iter().zip(image.config.diff_ids());
        let found = try_join_all(layers.map(async |(id, diff_id)| {
            let found = self.find(diff_id).await?;
            Ok::<_, Error>(found.map(|(blob, outcome)| {
                let result = LayerResult {
                    entry: format!("layer {}", id.0),
                    name: None,
                    diff_id: diff_id.clone(),
                    read: None,
                    blob,
                    outcome,
                    packed: false,
                    key: None,
                };
                (*id, result)
            }))
        }))
        .await?;
        let Some(found) = found.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };
        (self.push.events)(Event::LayerCount(found.len()));
        for (id, result) in &found {
            self.report(*id, result);
        }
        Ok(Some(LayerResults(found.into_iter().collect())))
    }

    /// Looks for all expected layers at once. Otherwise the reader would wait for a round trip for
    /// each layer. Errors are ignored here: they occur again when the layer comes.
    async fn find_ahead(&self) {
        let (diff_ids, keys) = &self.expected;
        let of_keys = keys.iter().map(async |key| {
            if let Some(diff_id) = self.known.diff_id_of(key).await {
                let _ = self.find(&diff_id).await;
            }
        });
        let of_diff_ids = diff_ids.iter().map(async |diff_id| drop(self.find(diff_id).await));
        tokio::join!(join_all(of_keys), join_all(of_diff_ids));
    }

    /// The blob of a layer that is in the repository, or can be mounted into it.
    async fn find(&self, diff_id: &DiffId) -> Result<FoundBlob, Error> {
        let cell = self.found.lock().entry(diff_id.clone()).or_default().clone();
        let find = async || {
            let mut candidates = self.known.candidates(diff_id).await;
            if self.trust == Trust::WhatIsKnown {
                let made = self.push.run.making.made(diff_id);
                candidates.extend(made.map(|blob| self.packed(blob)));
            }
            self.blobs.find(&candidates).await
        };
        cell.get_or_try_init(find).await.cloned()
    }

    fn packed(&self, blob: Blob) -> Candidate {
        let repository = self.blobs.repository().shared_name();
        Candidate { blob, repository, why: Why::SameBlob }
    }

    /// Brings one layer; `None` if the reader has to hash it first and yields it again.
    async fn bring(&self, layer: IncomingLayer) -> Result<Option<(LayerId, LayerResult)>, Failure> {
        let id = layer.id;
        let diff_id = match &layer.known {
            Some(diff_id) => Some(diff_id.clone()),
            None => self.claimed(&layer.claim).await,
        };
        let is_made = matches!(layer.claim, Claim::Key(_));
        if is_made && diff_id.is_none() && !self.known.knows_no_image().await {
            // Most layers are in the previous image, and hashing costs less than packing, so hash
            // it first.
            layer.verdict.send_replace(Decision::Hash);
            return Ok(None);
        }
        let found = match &diff_id {
            Some(diff_id) => self.find(diff_id).await?,
            None => None,
        };
        let result = match (found, diff_id) {
            (Some((blob, outcome)), Some(diff_id)) => {
                if matches!(layer.claim, Claim::Hint(_)) {
                    self.names_hold.store(true, Ordering::Relaxed);
                }
                self.skip(layer, diff_id, blob, outcome).await
            }
            (_, diff_id) => self.make(layer, diff_id).await?,
        };
        self.report(id, &result);
        Ok(Some((id, result)))
    }

    /// The diff ID to look for, if the claim gives one.
    async fn claimed(&self, claim: &Claim) -> Option<DiffId> {
        match claim {
            Claim::DiffId(diff_id) => Some(diff_id.clone()),
            Claim::Hint(diff_id) if self.trust == Trust::WhatIsKnown => Some(diff_id.clone()),
            Claim::Key(key) => self.known.diff_id_of(key).await,
            Claim::Hint(_) | Claim::Nothing => None,
        }
    }

    /// Skips a layer that need not be packed. If its bytes have to be read anyway, they are hashed.
    async fn skip(
        &self,
        mut layer: IncomingLayer,
        diff_id: DiffId,
        blob: Blob,
        outcome: Outcome,
    ) -> LayerResult {
        layer.verdict.send_replace(Decision::Skip(diff_id.clone()));
        let Ok(read) = layer.passed.await else {
            return stopped().await;
        };
        let name = layer.begun.try_recv().ok().and_then(|begun| begun.name);
        let made = self.push.run.making.made(&diff_id);
        LayerResult {
            packed: made.is_some_and(|made| is_packed(&blob, &made, layer.size)),
            entry: layer.entry,
            name,
            diff_id,
            read: read.or(layer.known),
            blob,
            outcome,
            key: layer.claim.into_key(),
        }
    }

    /// Makes a layer that the registry does not have: packs it here, or waits for another image of
    /// the run to pack it.
    async fn make(
        &self,
        layer: IncomingLayer,
        diff_id: Option<DiffId>,
    ) -> Result<LayerResult, Failure> {
        let wanted = match (&diff_id, &layer.claim) {
            _ if self.trust == Trust::OnlyThisRun => None,
            (Some(diff_id), _) => Some(WantedLayer::Layer(diff_id.clone())),
            (None, Claim::Key(key)) => Some(WantedLayer::Key(key.clone())),
            (None, _) => None,
        };
        let Some(wanted) = wanted else {
            return Ok(self.pack(layer, diff_id, None).await?);
        };
        let making = &self.push.run.making;
        match making.role(&wanted) {
            MakeRole::Make(maker) => Ok(self.pack(layer, diff_id, Some(maker)).await?),
            MakeRole::Wait(waiter) => self.wait(layer, diff_id, waiter).await,
            MakeRole::Share(MadeLayer { diff_id, blob, spool: Some(spool) }) => {
                Ok(self.share(layer, diff_id, blob, spool).await?)
            }
            MakeRole::Share(MadeLayer { diff_id: made, blob, spool: None }) => {
                match self.blobs.find(&[self.packed(blob)]).await? {
                    Some((blob, outcome)) => Ok(self.skip(layer, made, blob, outcome).await),
                    None => Ok(self.pack(layer, diff_id, Some(making.remake(&wanted))).await?),
                }
            }
        }
    }

    /// Waits for a layer that another image packs.
    async fn wait(
        &self,
        layer: IncomingLayer,
        diff_id: Option<DiffId>,
        waiter: Waiter,
    ) -> Result<LayerResult, Failure> {
        // The reader can skip the layer at once.
        if let Some(diff_id) = diff_id {
            layer.verdict.send_replace(Decision::Skip(diff_id));
        }
        match waiter.made().await {
            Some(MadeLayer { diff_id, blob, spool: Some(spool) }) => {
                Ok(self.share(layer, diff_id, blob, spool).await?)
            }
            // The other image's push reports the reason. Another attempt can pack the layer here.
            _ => Err(Failure::Untrue(Error::Failed(format!(
                "layer {:?} could not be packed by another image of this run",
                layer.entry
            )))),
        }
    }

    /// Brings a layer that was packed by another image.
    async fn share(
        &self,
        layer: IncomingLayer,
        diff_id: DiffId,
        packed: Blob,
        spool: Spool,
    ) -> Result<LayerResult, Error> {
        layer.verdict.send_replace(Decision::Skip(diff_id.clone()));
        let (blob, outcome) = match self.find(&diff_id).await? {
            Some(found) => found,
            None => {
                let upload = self.upload(&layer, None, spool);
                let holders = self.known.holders(&packed).await;
                let outcome = self.blobs.ensure(&packed, &holders, &upload).await?;
                (packed, outcome)
            }
        };
        Ok(self.skip(layer, diff_id, blob, outcome).await)
    }

    /// Packs a layer and brings its blob. `looked_for` is the diff ID that was not found.
    async fn pack(
        &self,
        mut layer: IncomingLayer,
        looked_for: Option<DiffId>,
        maker: Option<Maker>,
    ) -> Result<LayerResult, Error> {
        layer.verdict.send_replace(Decision::Pack);
        let Ok(begun) = (&mut layer.begun).await else {
            return stopped().await;
        };
        let Some(spool) = begun.spool else {
            return stopped().await;
        };
        let upload = self.upload(&layer, begun.name.as_ref(), spool.clone());
        let is_streamed = self.is_streamed(&layer).await;
        let brought = async {
            let announce = |packed: &Packed| {
                if let Some(maker) = maker {
                    maker.done(packed, &spool);
                }
            };
            if is_streamed {
                return self.blobs.ensure_growing(&spool, &upload, announce).await;
            }
            let expected = self.blobs.expect_upload(None);
            let packed = spool.finished().await.map_err(UploadError::Packing)?;
            drop(expected);
            announce(&packed);
            if looked_for.as_ref() != Some(&packed.diff_id)
                && let Some(found) = self.find(&packed.diff_id).await?
            {
                // The entry's name was not the diff ID, so the blob could be found only now.
                return Ok(found);
            }
            let holders = self.known.holders(&packed.blob).await;
            let outcome = self.blobs.ensure(&packed.blob, &holders, &upload).await?;
            Ok((packed.blob, outcome))
        };
        let passed = async { Ok((&mut layer.passed).await) };
        let ((blob, outcome), read) = match try_join!(brought, passed) {
            Ok((brought, Ok(Some(read)))) => (brought, read),
            // The reader has stopped and reports the reason.
            Ok(_) | Err(UploadError::Packing(pack::Error::Abandoned)) => return stopped().await,
            Err(UploadError::Packing(source)) => {
                let image = self.push.item.image.to_string();
                return Err(Error::Pack { image, entry: layer.entry, source });
            }
            Err(UploadError::Push(error)) => return Err(error),
        };
        // Already finished, so this returns at once.
        let Ok(packed) = spool.finished().await else {
            return stopped().await;
        };
        Ok(LayerResult {
            packed: is_packed(&blob, &packed.blob, layer.size),
            entry: layer.entry,
            name: begun.name,
            diff_id: packed.diff_id,
            read: Some(read),
            blob,
            outcome,
            key: layer.claim.into_key(),
        })
    }

    /// Whether to upload a layer while it is being compressed. It must be big, and the registry
    /// must not have it. A hint is not enough, because it may not be a diff ID.
    async fn is_streamed(&self, layer: &IncomingLayer) -> bool {
        let is_new = match layer.claim {
            Claim::DiffId(_) => true,
            Claim::Key(_) if layer.known.is_some() => true,
            Claim::Hint(_) if self.names_hold.load(Ordering::Relaxed) => true,
            Claim::Hint(_) | Claim::Key(_) | Claim::Nothing => self.known.knows_no_image().await,
        };
        is_new && layer.size >= STREAM_FROM && !self.push.options().dry_run
    }

    fn upload(&self, layer: &IncomingLayer, first_bytes: Option<&String>, spool: Spool) -> Upload {
        let name = self.names.get(&layer.id).or(first_bytes).cloned();
        let name = name.unwrap_or_else(|| match &layer.claim {
            Claim::DiffId(id) | Claim::Hint(id) => id.digest().short().to_owned(),
            Claim::Key(_) | Claim::Nothing => layer.entry.clone(),
        });
        let events = self.push.events.clone();
        Upload { layer: layer.id, name, content: Arc::new(spool), events }
    }

    /// Reports a layer. The format and a stream's history are not known yet.
    fn report(&self, layer: LayerId, result: &LayerResult) {
        let mut report = result.report(None, Format::Docker);
        if let Some(name) = self.names.get(&layer) {
            report.name = name.as_str().into();
        }
        if !self.reported.lock().insert(result.diff_id.clone()) {
            report.outcome = Outcome::Reused { why: Known::SameAsLayer };
        }
        (self.push.events)(Event::LayerDone { layer, report });
    }

    /// Checks that the layers are those that the config lists, and returns them for the manifest,
    /// lowest first.
    pub fn verify(
        &self,
        image: &Image,
        results: &LayerResults,
    ) -> Result<Vec<ManifestLayer>, Failure> {
        let mut layers = Vec::with_capacity(image.layers.len());
        for (index, (id, listed)) in image.layers.iter().zip(image.config.diff_ids()).enumerate() {
            let Some(layer) = results.get(*id) else {
                return Err(
                    Error::Failed(format!("layer {index} of the image was not read")).into()
                );
            };
            let actual = layer.read.as_ref().unwrap_or(&layer.diff_id);
            let mismatch = || source::LayerMismatch {
                file: self.push.item.image.to_string(),
                layer: index + 1,
                entry: layer.entry.clone(),
                listed: listed.clone(),
                actual: actual.clone(),
            };
            if actual != listed {
                return Err(source::Error::from(mismatch()).into());
            }
            if layer.diff_id != *listed {
                // The entry's name is the diff ID of another layer, so the blob of that layer was
                // used. These bytes need another blob.
                return Err(Failure::Untrue(source::Error::from(mismatch()).into()));
            }
            // Written only if the user asks for it. Otherwise the manifest would depend on whether
            // the image's script was read, run or piped.
            let key = layer.key.clone().filter(|_| self.push.options().trust_annotations);
            layers.push(ManifestLayer { blob: layer.blob.clone(), key });
        }
        Ok(layers)
    }
}

impl LayerResult {
    /// The report of the layer. The image's history gives its name, if the history is known.
    pub fn report(&self, history: Option<&History>, format: Format) -> LayerReport {
        let name = history
            .and_then(source::name_from_history)
            .or_else(|| self.name.clone())
            .unwrap_or_else(|| self.diff_id.digest().short().to_owned());
        let media_type = self.blob.compression.media_type(format);
        LayerReport {
            name: name.into(),
            diff_id: Some(self.diff_id.clone()),
            digest: self.blob.digest.clone(),
            size: self.blob.size,
            media_type: media_type.unwrap_or_default().into(),
            compression: self.blob.compression,
            outcome: self.outcome.clone(),
        }
    }
}

impl LayerResults {
    pub fn get(&self, id: LayerId) -> Option<&LayerResult> {
        self.0.get(&id)
    }

    /// The blobs that were packed here, with the diff IDs that they are for.
    pub fn packed(&self) -> Vec<(DiffId, Blob)> {
        let packed = self.0.values().filter(|layer| layer.packed);
        packed.map(|layer| (layer.diff_id.clone(), layer.blob.clone())).collect()
    }

    /// The layers that the source made, with their diff IDs.
    pub fn made(&self) -> Vec<(LayerKey, DiffId)> {
        let made = |layer: &LayerResult| Some((layer.key.clone()?, layer.read.clone()?));
        self.0.values().filter_map(made).collect()
    }
}

/// Whether the blob was packed here. A layer that is stored compressed is used as it is; it does
/// not show how this program compresses the layer.
fn is_packed(blob: &Blob, made: &Blob, stored_size: u64) -> bool {
    blob == made && (blob.size != stored_size || blob.compression == Compression::None)
}

/// Never returns. The reader has stopped and reports the reason; then this future is dropped.
async fn stopped<T>() -> T {
    pending().await
}
