//! What becomes of one layer: found at the registry, or packed and uploaded; and of all of them.

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use futures::future::try_join_all;
use futures::stream::FuturesUnordered;
use tokio::sync::{OnceCell, Semaphore, mpsc};

use super::content::InMemory;
use super::read::{Seen, Verdict};
use super::settled::{Settled, SettledLayers};
use super::{Doubts, Item, PushOptions, Setback};
use crate::error::Error;
use crate::event::{Event, Events};
use crate::image::{Blob, Compression, Config, DiffId, Digest, Format};
use crate::pack::{self, Spool};
use crate::registry::Repository;
use crate::registry::upload::{Content, Progress, Session};
use crate::report::{Known, Outcome};
use crate::reuse::{Lookup, Reuse};
use crate::source::{self, Claim, Image, LayerId};

/// A layer of that many bytes is uploaded while it is still being compressed. Of a smaller one the
/// digest is known in a moment, and whether the registry has it.
const STREAM_FROM: u64 = 64 << 20;

/// Done once, by whoever comes first; the others wait for it.
type Once<T> = Arc<OnceCell<T>>;

/// Lets layers settle.
pub struct Layers<'a> {
    item: &'a Item,
    options: &'a PushOptions,
    repository: &'a Repository,
    reuse: &'a Reuse,
    doubts: &'a Doubts,
    events: &'a Events,
    /// What the history calls the layers, where it is known before they are read.
    names: HashMap<LayerId, String>,
    uploads: Semaphore,
    /// Whether an entry's name was the diff ID of a layer that the registry has: then those of the
    /// others are diff IDs as well.
    names_hold: AtomicBool,
    /// Big layers by their diff IDs: one that occurs twice goes once.
    growing: Mutex<HashMap<DiffId, Once<(Blob, Outcome)>>>,
    /// Blobs that were uploaded, by this attempt or one before.
    sent: &'a Mutex<HashSet<Digest>>,
    /// Blobs that this push has settled, or is about to: a blob that occurs twice goes once.
    blobs: Mutex<HashMap<Digest, Once<Outcome>>>,
}

impl<'a> Layers<'a> {
    /// No layer has come yet.
    pub fn new(
        item: &'a Item,
        options: &'a PushOptions,
        repository: &'a Repository,
        reuse: &'a Reuse,
        doubts: &'a Doubts,
        events: &'a Events,
        sent: &'a Mutex<HashSet<Digest>>,
        early: Option<&Image>,
    ) -> Self {
        let names = early.into_iter().flat_map(|image| {
            let history = image.config.layer_history();
            let named = |(id, entry): (&LayerId, _)| Some((*id, source::name_from_history(entry)?));
            image.layers.iter().zip(history).filter_map(named)
        });
        Self {
            names: names.collect(),
            names_hold: AtomicBool::new(false),
            growing: Mutex::default(),
            sent,
            uploads: Semaphore::new(options.jobs.max(1)),
            item,
            options,
            repository,
            reuse,
            doubts,
            events,
            blobs: Mutex::default(),
        }
    }

    /// Settles the layers as they come, all at the same time.
    pub async fn settle_all(
        &self,
        seen: &mut mpsc::Receiver<Seen>,
    ) -> Result<SettledLayers, Setback> {
        let mut settled = HashMap::new();
        let mut settling = FuturesUnordered::new();
        let mut more = true;
        loop {
            tokio::select! {
                layer = seen.recv(), if more => match layer {
                    Some(layer) => settling.push(self.settle(layer)),
                    None => more = false,
                },
                Some(layer) = settling.next() => {
                    let (id, layer) = layer?;
                    settled.insert(id, layer);
                }
                else => return Ok(SettledLayers(settled)),
            }
        }
    }

    /// Settles the layers of an image without its bytes; `None` where some have to be read.
    pub async fn settle_unread(&self, image: &Image) -> Result<Option<SettledLayers>, Error> {
        let ids = image.layers.iter().zip(image.config.diff_ids());
        let found = try_join_all(ids.map(async |(id, diff_id)| {
            let found = match self.reuse.find(diff_id).await? {
                Lookup::There { blob, outcome } => Some((blob, outcome)),
                Lookup::Missing { .. } => None,
            };
            Ok::<_, Error>((*id, diff_id, found))
        }))
        .await?;
        if found.iter().any(|(_, _, found)| found.is_none()) {
            return Ok(None);
        }
        (self.events)(Event::LayerCount(found.len()));
        let settled = found.into_iter().filter_map(|(id, diff_id, found)| {
            let (blob, outcome) = found?;
            let entry = format!("layer {}", id.0);
            let diff_id = diff_id.clone();
            let layer =
                Settled { entry, name: None, diff_id, read: None, blob, outcome, packed: false };
            self.tell(id, &layer);
            Some((id, layer))
        });
        Ok(Some(SettledLayers(settled.collect())))
    }

    async fn settle(&self, layer: Seen) -> Result<(LayerId, Settled), Error> {
        let id = layer.id;
        let mut session = None;
        let claimed = match &layer.claim {
            Claim::DiffId(diff_id) => Some(diff_id.clone()),
            Claim::Hint(diff_id) if !self.doubts.names => Some(diff_id.clone()),
            Claim::Hint(_) | Claim::Key(_) | Claim::Nothing => None,
        };
        let found = match &claimed {
            Some(diff_id) => match self.reuse.find(diff_id).await? {
                Lookup::There { blob, outcome } => Some((diff_id.clone(), blob, outcome)),
                Lookup::Missing { session: opened } => {
                    session = opened;
                    None
                }
            },
            None => None,
        };
        if found.is_some() && matches!(layer.claim, Claim::Hint(_)) {
            self.names_hold.store(true, Ordering::Relaxed);
        }
        let settled = match found {
            Some((diff_id, blob, outcome)) => self.pass(layer, diff_id, blob, outcome).await,
            None => self.pack(layer, claimed, session).await?,
        };
        let mut settled = settled;
        let found_again = matches!(settled.outcome, Outcome::Reused { why: Known::AnsweredHead });
        if found_again && self.lock_sent().contains(&settled.blob.digest) {
            // By an attempt before this one.
            settled.outcome = Outcome::Uploaded;
        }
        self.tell(id, &settled);
        Ok((id, settled))
    }

    /// A layer that the registry has: its bytes pass to be hashed, if they have to be read at all.
    async fn pass(
        &self,
        mut layer: Seen,
        diff_id: DiffId,
        blob: Blob,
        outcome: Outcome,
    ) -> Settled {
        layer.verdict.send_replace(Verdict::Skip);
        let Ok(read) = layer.passed.await else {
            return stopped().await;
        };
        let name = layer.begun.try_recv().ok().and_then(|begun| begun.name);
        Settled { entry: layer.entry, name, diff_id, read, blob, outcome, packed: false }
    }

    /// A layer of which nothing is known, or nothing that helps: a blob is made of it and sent.
    async fn pack(
        &self,
        layer: Seen,
        looked_for: Option<DiffId>,
        session: Option<Session>,
    ) -> Result<Settled, Error> {
        layer.verdict.send_replace(Verdict::Pack);
        let Ok(begun) = layer.begun.await else {
            return stopped().await;
        };
        let Some(spool) = begun.spool else {
            return stopped().await;
        };
        let name = self.names.get(&layer.id).or(begun.name.as_ref()).cloned();
        let name = name.unwrap_or_else(|| match &layer.claim {
            Claim::DiffId(id) | Claim::Hint(id) => id.digest().short().to_owned(),
            Claim::Key(_) | Claim::Nothing => layer.entry.clone(),
        });
        let cargo = Cargo { layer: layer.id, name, spool };
        // Sent before its digest is known: only what cannot be there. A hint may be no diff ID.
        let is_new = match layer.claim {
            Claim::DiffId(_) => true,
            Claim::Hint(_) if self.names_hold.load(Ordering::Relaxed) => true,
            Claim::Hint(_) | Claim::Key(_) | Claim::Nothing => self.reuse.knows_no_image().await,
        };
        let growing = is_new && layer.size >= STREAM_FROM && !self.options.dry_run;
        let shipped = async {
            if growing {
                return self.ship_growing_once(looked_for.as_ref(), &cargo, session).await;
            }
            let packed = cargo.spool.finished().await.map_err(Trouble::Packing)?;
            if looked_for.as_ref() != Some(&packed.diff_id)
                && let Lookup::There { blob, outcome } = self.reuse.find(&packed.diff_id).await?
            {
                // The entry's name was no diff ID, or another's; only now there is one to look for.
                return Ok((blob, outcome));
            }
            let outcome = self.ship(&packed.blob, &cargo, session).await?;
            Ok((packed.blob, outcome))
        };
        let (blob, outcome) = match shipped.await {
            Ok(shipped) => shipped,
            // The reader has given the layer up, and has the reason to tell.
            Err(Trouble::Packing(pack::Error::Abandoned)) => match layer.passed.await {
                Ok(Some(_)) => return Err(Error::Failed("packing a layer stopped".to_owned())),
                Ok(None) | Err(_) => return stopped().await,
            },
            Err(Trouble::Packing(source)) => {
                return Err(Error::Pack { entry: layer.entry, source });
            }
            Err(Trouble::Push(error)) => return Err(error),
        };
        let Ok(Some(read)) = layer.passed.await else {
            return stopped().await;
        };
        // It is whole, or it could not have been shipped; asked once more it says so again.
        let Ok(packed) = cargo.spool.finished().await else {
            return stopped().await;
        };
        Ok(Settled {
            // A layer stored compressed is its own blob; another archive may hold it otherwise.
            packed: blob == packed.blob
                && (blob.size != layer.size || blob.compression == Compression::None),
            entry: layer.entry,
            name: begun.name,
            diff_id: packed.diff_id,
            read: Some(read),
            blob,
            outcome,
        })
    }

    /// A blob that is whole: asked for, mounted or uploaded, once however often it occurs.
    async fn ship(
        &self,
        blob: &Blob,
        cargo: &Cargo,
        session: Option<Session>,
    ) -> Result<Outcome, Trouble> {
        let cell = self.lock_blobs().entry(blob.digest.clone()).or_default().clone();
        let mut first = false;
        let outcome = cell
            .get_or_try_init(|| {
                first = true;
                self.ship_once(blob, cargo, session)
            })
            .await?;
        Ok(if first { outcome.clone() } else { Outcome::Reused { why: Known::SameAsLayer } })
    }

    async fn ship_once(
        &self,
        blob: &Blob,
        cargo: &Cargo,
        session: Option<Session>,
    ) -> Result<Outcome, Trouble> {
        let mut session = session;
        if !self.doubts.blobs.contains(&blob.digest) {
            if session.is_some() {
                // Opened by a mount that was not done: another attempt would open one more.
                if self.reuse.is_there(blob).await? {
                    return Ok(Outcome::Reused { why: Known::AnsweredHead });
                }
            } else {
                match self.reuse.find_blob(blob).await? {
                    Lookup::There { outcome, .. } => return Ok(outcome),
                    Lookup::Missing { session: opened } => session = opened,
                }
            }
        }
        if self.options.dry_run {
            return Ok(Outcome::WouldUpload);
        }
        // Nobody closes the semaphore; without a permit the upload would still be right.
        let _permit = self.uploads.acquire().await;
        self.upload(cargo, session).await?;
        Ok(Outcome::Uploaded)
    }

    /// The same, for a layer that may occur twice.
    async fn ship_growing_once(
        &self,
        diff_id: Option<&DiffId>,
        cargo: &Cargo,
        session: Option<Session>,
    ) -> Result<(Blob, Outcome), Trouble> {
        let Some(diff_id) = diff_id else {
            return self.ship_growing(cargo, session).await;
        };
        let cell = {
            // A map is whole between any two of its operations.
            let mut growing = self.growing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            growing.entry(diff_id.clone()).or_default().clone()
        };
        let mut first = false;
        let shipped = cell.get_or_try_init(|| {
            first = true;
            self.ship_growing(cargo, session)
        });
        let (blob, outcome) = shipped.await?.clone();
        Ok((blob, if first { outcome } else { Outcome::Reused { why: Known::SameAsLayer } }))
    }

    /// A big blob: uploaded while it is being made, unless it proves to be there already.
    async fn ship_growing(
        &self,
        cargo: &Cargo,
        session: Option<Session>,
    ) -> Result<(Blob, Outcome), Trouble> {
        let permit = self.uploads.acquire().await;
        let there = async {
            let packed = cargo.spool.finished().await.map_err(Trouble::Packing)?;
            if !self.doubts.blobs.contains(&packed.blob.digest)
                && self.reuse.is_there(&packed.blob).await?
            {
                return Ok((packed.blob, Outcome::Reused { why: Known::AnsweredHead }));
            }
            // Only the upload can end this.
            pending().await
        };
        let shipped = tokio::select! {
            biased;
            there = there => {
                let sessions = &self.options.registry.sessions;
                sessions.cancel_abandoned(super::CANCEL_WITHIN).await;
                there
            }
            sent = self.upload(cargo, session) => {
                sent?;
                let packed = cargo.spool.finished().await.map_err(Trouble::Packing)?;
                Ok((packed.blob, Outcome::Uploaded))
            }
        };
        drop(permit);
        if let Ok((blob, outcome)) = &shipped {
            // The same blob of another layer, if it comes later, finds this one settled.
            let cell = self.lock_blobs().entry(blob.digest.clone()).or_default().clone();
            let _ = cell.set(outcome.clone());
        }
        shipped
    }

    async fn upload(&self, cargo: &Cargo, session: Option<Session>) -> Result<(), Trouble> {
        let (layer, name) = (cargo.layer, cargo.name.clone());
        let total = cargo.spool.length();
        (self.events)(Event::UploadStarted { layer, name, total });
        let (events, spool) = (self.events.clone(), cargo.spool.clone());
        let progress: Progress = Arc::new(move |position| {
            events(Event::UploadProgress { layer, position, total: spool.length() });
        });
        let content: Arc<dyn Content> = Arc::new(cargo.spool.clone());
        let (digest, _) = self.repository.upload(content, session, progress).await?;
        self.lock_sent().insert(digest);
        Ok(())
    }

    /// Uploads the config, if it is not there; answers whether it was missing.
    pub async fn ship_config(&self, config: &Config) -> Result<bool, Error> {
        let digest = config.digest().clone();
        let size = config.bytes().len() as u64;
        let blob = Blob { digest: digest.clone(), size, compression: Compression::None };
        if !self.doubts.blobs.contains(&digest) && self.reuse.is_there(&blob).await? {
            return Ok(self.lock_sent().contains(&digest));
        }
        if !self.options.dry_run {
            let bytes = config.bytes().clone();
            let content = Arc::new(InMemory { bytes, digest: digest.clone() });
            self.repository.upload(content, None, Arc::new(|_| {})).await?;
            self.lock_sent().insert(digest);
        }
        Ok(true)
    }

    /// Whether the layers are those that the config lists; their blobs, lowest first.
    pub fn verify(&self, image: &Image, settled: &SettledLayers) -> Result<Vec<Blob>, Setback> {
        let mut blobs = Vec::with_capacity(image.layers.len());
        for (index, (id, listed)) in image.layers.iter().zip(image.config.diff_ids()).enumerate() {
            let Some(layer) = settled.get(*id) else {
                let error = format!("layer {index} of the image was never read");
                return Err(Setback::Failed(Error::Failed(error)));
            };
            let actual = layer.read.as_ref().unwrap_or(&layer.diff_id);
            let mismatch = || source::Error::Mismatch {
                file: self.item.image.to_string(),
                layer: index + 1,
                entry: layer.entry.clone(),
                listed: listed.clone(),
                actual: actual.clone(),
            };
            if actual != listed {
                return Err(mismatch().into());
            }
            if layer.diff_id != *listed {
                // An entry named by the diff ID of another layer, which the registry happens to
                // have. The name was only a hint; now these bytes need a blob of their own.
                let doubts = Doubts { names: true, ..self.doubts.clone() };
                return Err(Setback::Doubt(Box::new(doubts), mismatch().into()));
            }
            blobs.push(layer.blob.clone());
        }
        Ok(blobs)
    }

    /// Tells what became of a layer. Of a stream the history is not known yet, nor the format.
    fn tell(&self, layer: LayerId, settled: &Settled) {
        let mut report = settled.report(None, Format::Docker);
        if let Some(name) = self.names.get(&layer) {
            report.name.clone_from(name);
        }
        (self.events)(Event::LayerSettled { layer, report });
    }

    fn lock_sent(&self) -> std::sync::MutexGuard<'_, HashSet<Digest>> {
        // A set is whole between any two of its operations.
        self.sent.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn lock_blobs(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Once<Outcome>>> {
        // A map is whole between any two of its operations.
        self.blobs.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A layer's blob on its way to the registry.
struct Cargo {
    layer: LayerId,
    name: String,
    spool: Spool,
}

/// Why a blob was not shipped.
enum Trouble {
    /// It could not be made.
    Packing(pack::Error),
    /// It could not be sent.
    Push(Error),
}

impl<E: Into<Error>> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self::Push(error.into())
    }
}

/// The reader has stopped and has the reason to tell; this future is dropped when it does.
async fn stopped<T>() -> T {
    pending().await
}
