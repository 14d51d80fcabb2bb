//! What becomes of one layer: found at the registry, or packed and uploaded; and of all of them.

use std::collections::HashMap;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;
use futures::future::try_join_all;
use futures::stream::FuturesUnordered;
use futures::try_join;
use tokio::sync::mpsc;

use super::lookup::Lookups;
use super::read::{Seen, Verdict};
use super::settled::{Settled, SettledLayers};
use super::ship::{Cargo, Shipping, Trouble};
use super::together::{Follow, Known, Lead, Part, Wanted};
use super::{Item, Setback};
use crate::error::Error;
use crate::event::{Event, Events};
use crate::image::{Blob, Compression, Config, DiffId, Format, LayerKey, ManifestLayer};
use crate::pack::{self, Spool};
use crate::registry::upload::Session;
use crate::report::Outcome;
use crate::reuse::Lookup;
use crate::source::{self, Claim, Image, LayerId};

/// A layer of that many bytes is uploaded while it is still being compressed. Of a smaller one the
/// digest is known in a moment, and whether the registry has it.
const STREAM_FROM: u64 = 64 << 20;

/// Lets layers settle.
pub struct Layers<'a> {
    item: &'a Item,
    events: &'a Events,
    shipping: Shipping<'a>,
    /// What the history calls the layers, where it is known before they are read.
    names: HashMap<LayerId, String>,
    /// What was found of them before they came.
    lookups: Lookups,
    /// The diff IDs of the layers that will come, as far as they are known.
    expected: Vec<DiffId>,
    /// What others that will come are made of.
    keys: Vec<LayerKey>,
    /// Whether an entry's name was the diff ID of a layer that the registry has: then those of the
    /// others are diff IDs as well.
    names_hold: AtomicBool,
}

impl<'a> Layers<'a> {
    /// No layer has come yet.
    pub fn new(
        item: &'a Item,
        events: &'a Events,
        shipping: Shipping<'a>,
        early: Option<&Image>,
        keys: Vec<LayerKey>,
    ) -> Self {
        let names = early.into_iter().flat_map(|image| {
            let history = image.config.layer_history();
            let named = |(id, entry): (&LayerId, _)| Some((*id, source::name_from_history(entry)?));
            image.layers.iter().zip(history).filter_map(named)
        });
        Self {
            item,
            events,
            shipping,
            names: names.collect(),
            lookups: Lookups::default(),
            expected: early.map_or(Vec::new(), |image| image.config.diff_ids().to_vec()),
            keys,
            names_hold: AtomicBool::new(false),
        }
    }

    /// Settles the layers as they come, all at the same time.
    pub async fn settle_all(
        &self,
        seen: &mut mpsc::Receiver<Seen>,
    ) -> Result<SettledLayers, Setback> {
        let mut settled = HashMap::new();
        let mut settling = FuturesUnordered::new();
        let mut ahead = pin!(self.lookups.ahead(&self.shipping, &self.expected, &self.keys));
        let (mut looking, mut more) = (true, true);
        while more || !settling.is_empty() {
            tokio::select! {
                layer = seen.recv(), if more => match layer {
                    Some(layer) => settling.push(self.settle(layer)),
                    None => more = false,
                },
                Some(layer) = settling.next() => {
                    settled.extend(layer?);
                }
                () = &mut ahead, if looking => looking = false,
            }
        }
        Ok(SettledLayers(settled))
    }

    /// Settles the layers of an image without its bytes; `None` where some have to be read.
    pub async fn settle_unread(&self, image: &Image) -> Result<Option<SettledLayers>, Error> {
        let ids = image.layers.iter().zip(image.config.diff_ids());
        let found = try_join_all(ids.map(async |(id, diff_id)| {
            let found = match self.lookups.find(&self.shipping, diff_id).await? {
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
            let layer = Settled {
                entry,
                name: None,
                diff_id,
                read: None,
                blob,
                outcome,
                packed: false,
                key: None,
            };
            self.tell(id, &layer);
            Some((id, layer))
        });
        Ok(Some(SettledLayers(settled.collect())))
    }

    /// `None` where the layer comes once more.
    async fn settle(&self, layer: Seen) -> Result<Option<(LayerId, Settled)>, Setback> {
        let id = layer.id;
        let mut session = None;
        let claimed = match &layer.known {
            Some(diff_id) => Some(diff_id.clone()),
            None => self.claimed(&layer.claim).await,
        };
        let is_made = matches!(layer.claim, Claim::Key(_));
        if is_made && claimed.is_none() && !self.shipping.reuse.knows_no_image().await {
            // Most layers are those of the image before: to hash them costs less than to pack them.
            layer.verdict.send_replace(Verdict::Hash);
            return Ok(None);
        }
        if let Some(diff_id) = &claimed {
            match self.lookups.find(&self.shipping, diff_id).await? {
                Lookup::There { blob, outcome } => {
                    if matches!(layer.claim, Claim::Hint(_)) {
                        self.names_hold.store(true, Ordering::Relaxed);
                    }
                    let settled = self.pass(layer, diff_id.clone(), blob, outcome).await;
                    return Ok(Some(self.told(id, settled)));
                }
                Lookup::Missing { session: opened } => session = opened,
            }
        }
        let wanted = match (&claimed, &layer.claim) {
            _ if !self.shipping.trust.is_full() => None,
            (Some(diff_id), _) => Some(Wanted::Layer(diff_id.clone())),
            (None, Claim::Key(key)) => Some(Wanted::Made(key.clone())),
            (None, _) => None,
        };
        let settled = match wanted {
            None => self.pack(layer, claimed, session, None).await?,
            Some(wanted) => self.share(layer, claimed, session, &wanted).await?,
        };
        Ok(Some(self.told(id, settled)))
    }

    /// The diff ID that a layer is looked for by.
    async fn claimed(&self, claim: &Claim) -> Option<DiffId> {
        match claim {
            Claim::DiffId(diff_id) => Some(diff_id.clone()),
            Claim::Hint(diff_id) if self.shipping.trust.is_full() => Some(diff_id.clone()),
            Claim::Key(key) => self.shipping.reuse.diff_id_of(key).await,
            Claim::Hint(_) | Claim::Nothing => None,
        }
    }

    /// A layer that the registry has: its bytes pass to be hashed, if they have to be read at all.
    async fn pass(
        &self,
        mut layer: Seen,
        diff_id: DiffId,
        blob: Blob,
        outcome: Outcome,
    ) -> Settled {
        layer.verdict.send_replace(Verdict::Skip(diff_id.clone()));
        let Ok(read) = layer.passed.await else {
            return stopped().await;
        };
        let name = layer.begun.try_recv().ok().and_then(|begun| begun.name);
        let (key, read) = (layer.claim.into_key(), read.or(layer.known));
        Settled { entry: layer.entry, name, diff_id, read, blob, outcome, packed: false, key }
    }

    /// A layer that another image may need too: one makes its blob for all.
    async fn share(
        &self,
        layer: Seen,
        claimed: Option<DiffId>,
        session: Option<Session>,
        wanted: &Wanted,
    ) -> Result<Settled, Setback> {
        match self.shipping.together.part(wanted) {
            Part::Lead(lead) => Ok(self.pack(layer, claimed, session, Some(lead)).await?),
            Part::Follow(follow) => self.follow(layer, follow, session).await,
            Part::Known(Known { diff_id, blob, spool }) => {
                let Some(spool) = spool else {
                    // It was found somewhere, from where it may be mounted.
                    return match self.shipping.bring(&blob, session).await? {
                        Lookup::There { outcome, .. } => {
                            Ok(self.pass(layer, diff_id, blob, outcome).await)
                        }
                        Lookup::Missing { session } => {
                            let lead = self.shipping.together.lead(wanted);
                            Ok(self.pack(layer, claimed, session, Some(lead)).await?)
                        }
                    };
                };
                // The reader need not wait.
                layer.verdict.send_replace(Verdict::Skip(diff_id.clone()));
                let cargo = self.cargo(&layer, None, spool);
                let outcome = self.shipping.ship(&blob, &cargo, session).await?;
                Ok(self.pass(layer, diff_id, blob, outcome).await)
            }
        }
    }

    /// A layer that somebody else makes: it is shipped when they have.
    async fn follow(
        &self,
        layer: Seen,
        mut follow: Follow,
        session: Option<Session>,
    ) -> Result<Settled, Setback> {
        let let_down = || {
            // Whoever made it has failed, and tells why; our own bytes are still there.
            let why = format!("layer {:?} was not made by another image after all", layer.entry);
            Setback::untrue(Error::Failed(why))
        };
        let diff_id = match &layer.claim {
            Claim::DiffId(diff_id) | Claim::Hint(diff_id) => Some(diff_id.clone()),
            Claim::Key(_) | Claim::Nothing => follow.diff_id().await,
        };
        // From here on the reader need not wait.
        layer.verdict.send_replace(Verdict::Skip(diff_id.ok_or_else(let_down)?));
        let Known { diff_id, blob, spool } = follow.done().await.ok_or_else(let_down)?;
        let outcome = match spool {
            Some(spool) => {
                let cargo = self.cargo(&layer, None, spool);
                self.shipping.ship(&blob, &cargo, session).await?
            }
            None => match self.shipping.bring(&blob, session).await? {
                Lookup::There { outcome, .. } => outcome,
                Lookup::Missing { .. } => return Err(let_down()),
            },
        };
        Ok(self.pass(layer, diff_id, blob, outcome).await)
    }

    /// A layer of which nothing is known, or nothing that helps: a blob is made of it and sent.
    async fn pack(
        &self,
        mut layer: Seen,
        looked_for: Option<DiffId>,
        session: Option<Session>,
        lead: Option<Lead>,
    ) -> Result<Settled, Error> {
        layer.verdict.send_replace(Verdict::Pack);
        let Ok(begun) = (&mut layer.begun).await else {
            return stopped().await;
        };
        let Some(spool) = begun.spool else {
            return stopped().await;
        };
        let cargo = self.cargo(&layer, begun.name.as_ref(), spool.clone());
        // Sent before its digest is known: only what cannot be there. A hint may be no diff ID.
        let is_new = match layer.claim {
            Claim::DiffId(_) => true,
            Claim::Key(_) if layer.known.is_some() => true,
            Claim::Hint(_) if self.names_hold.load(Ordering::Relaxed) => true,
            Claim::Hint(_) | Claim::Key(_) | Claim::Nothing => {
                self.shipping.reuse.knows_no_image().await
            }
        };
        let growing = is_new && layer.size >= STREAM_FROM && !self.shipping.options.dry_run;
        let shipped = async {
            if growing {
                return self.shipping.ship_growing(&spool, &cargo, session).await;
            }
            let packed = spool.finished().await.map_err(Trouble::Packing)?;
            if looked_for.as_ref() != Some(&packed.diff_id)
                && let Lookup::There { blob, outcome } =
                    self.lookups.find(&self.shipping, &packed.diff_id).await?
            {
                // The entry's name was no diff ID, or another's; only now there is one to look for.
                return Ok((blob, outcome));
            }
            let outcome = self.shipping.ship(&packed.blob, &cargo, session).await?;
            Ok((packed.blob, outcome))
        };
        let passing = async {
            let read = (&mut layer.passed).await;
            if let (Some(lead), Ok(Some(diff_id))) = (&lead, &read) {
                lead.read(diff_id);
            }
            Ok(read)
        };
        let ((blob, outcome), read) = match try_join!(shipped, passing) {
            Ok(both) => both,
            // The reader has given the layer up, and has the reason to tell.
            Err(Trouble::Packing(pack::Error::Abandoned)) => return stopped().await,
            Err(Trouble::Packing(source)) => {
                return Err(Error::Pack { entry: layer.entry, source });
            }
            Err(Trouble::Push(error)) => return Err(error),
        };
        let Ok(Some(read)) = read else {
            return stopped().await;
        };
        // It is whole, or it could not have been shipped; asked once more it says so again.
        let Ok(packed) = spool.finished().await else {
            return stopped().await;
        };
        if let Some(lead) = lead {
            lead.done(&packed.diff_id, &blob, (blob == packed.blob).then_some(&spool));
        }
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
            key: layer.claim.into_key(),
        })
    }

    fn cargo(&self, layer: &Seen, first_bytes: Option<&String>, spool: Spool) -> Cargo {
        let name = self.names.get(&layer.id).or(first_bytes).cloned();
        let name = name.unwrap_or_else(|| match &layer.claim {
            Claim::DiffId(id) | Claim::Hint(id) => id.digest().short().to_owned(),
            Claim::Key(_) | Claim::Nothing => layer.entry.clone(),
        });
        Cargo { layer: layer.id, name, content: Arc::new(spool), events: self.events.clone() }
    }

    /// Whether the layers are those that the config lists; how a manifest lists them, lowest first.
    pub fn verify(
        &self,
        image: &Image,
        settled: &SettledLayers,
    ) -> Result<Vec<ManifestLayer>, Setback> {
        let mut layers = Vec::with_capacity(image.layers.len());
        for (index, (id, listed)) in image.layers.iter().zip(image.config.diff_ids()).enumerate() {
            let Some(layer) = settled.get(*id) else {
                let error = format!("layer {index} of the image was never read");
                return Err(Setback::Failed(Error::Failed(error)));
            };
            let actual = layer.read.as_ref().unwrap_or(&layer.diff_id);
            let mismatch = || source::LayerMismatch {
                file: self.item.image.to_string(),
                layer: index + 1,
                entry: layer.entry.clone(),
                listed: listed.clone(),
                actual: actual.clone(),
            };
            if actual != listed {
                return Err(source::Error::from(mismatch()).into());
            }
            if layer.diff_id != *listed {
                // An entry named by the diff ID of another layer, which the registry happens to
                // have. The name was only a hint; now these bytes need a blob of their own.
                return Err(Setback::untrue(source::Error::from(mismatch())));
            }
            layers.push(ManifestLayer { blob: layer.blob.clone(), key: layer.key.clone() });
        }
        Ok(layers)
    }

    /// Tells what became of a layer. Of a stream the history is not known yet, nor the format.
    fn tell(&self, layer: LayerId, settled: &Settled) {
        let mut report = settled.report(None, Format::Docker);
        if let Some(name) = self.names.get(&layer) {
            report.name.clone_from(name);
        }
        (self.events)(Event::LayerSettled { layer, report });
    }

    fn told(&self, layer: LayerId, settled: Settled) -> (LayerId, Settled) {
        self.tell(layer, &settled);
        (layer, settled)
    }

    /// Whether the image's config, uploaded or found, was missing.
    pub async fn ship_config(&self, config: &Config) -> Result<bool, Error> {
        self.shipping.ship_config(config).await
    }
}

/// The reader has stopped and has the reason to tell; this future is dropped when it does.
async fn stopped<T>() -> T {
    pending().await
}
