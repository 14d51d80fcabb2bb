//! One blob's way to the registry: asked for, mounted, or uploaded; by one image for all.

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::content::InMemory;
use super::together::{Place, Together};
use super::{PushOptions, Trust};
use crate::error::Error;
use crate::event::{Event, Events};
use crate::image::{Blob, Compression, Config, Digest};
use crate::pack::{self, Spool};
use crate::registry::Repository;
use crate::registry::upload::{Content, Progress, Session};
use crate::report::{Known, Outcome};
use crate::reuse::{Lookup, Reuse};
use crate::source::LayerId;

/// From how many of the repositories that have a blob it is tried to mount: what the first two do
/// not give, others will not.
const MOUNTS: usize = 2;

/// Blobs that an image has brought to its repository, by all its attempts.
pub type Sent = Mutex<HashMap<Digest, Outcome>>;

/// Brings the blobs of one image to its repository.
pub struct Shipping<'a> {
    /// How to push.
    pub options: &'a PushOptions,
    /// Where to.
    pub repository: &'a Repository,
    /// What is there.
    pub reuse: &'a Reuse,
    /// What is not believed.
    pub trust: &'a Trust,
    /// What is shared with other images.
    pub together: &'a Together,
    /// Repositories from which anything may be mounted.
    pub sources: Vec<String>,
    /// What was done before.
    pub sent: &'a Sent,
    /// Blobs that this attempt has settled.
    pub seen: Mutex<HashSet<Digest>>,
}

/// A layer's blob on its way to the registry.
pub struct Cargo {
    /// The layer.
    pub layer: LayerId,
    /// Its name for people.
    pub name: String,
    /// The bytes.
    pub content: Arc<dyn Content>,
    /// Who hears of it.
    pub events: Events,
}

/// Why a blob was not shipped.
pub enum Trouble {
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

impl Shipping<'_> {
    /// Ships a blob that is whole. `session` is one that a mount left open.
    pub async fn ship(
        &self,
        blob: &Blob,
        cargo: &Cargo,
        session: Option<Session>,
    ) -> Result<Outcome, Error> {
        let mut session = match self.bring(blob, session).await? {
            Lookup::There { outcome, .. } => return Ok(outcome),
            Lookup::Missing { session } => session,
        };
        let place = self.place(blob);
        let mut bringing = place.bringing.lock().await;
        if !place.repositories().is_empty() {
            // Somebody has brought it meanwhile. Mounts need not wait for each other.
            drop(bringing);
            session = match self.bring(blob, session).await? {
                Lookup::There { outcome, .. } => return Ok(outcome),
                Lookup::Missing { session } => session,
            };
            bringing = place.bringing.lock().await;
        }
        if self.options.dry_run {
            return Ok(self.settled(blob, Outcome::WouldUpload));
        }
        // Nobody closes the semaphore; without a permit the upload would still be right.
        let _permit = self.together.uploads.acquire().await;
        self.upload(cargo, session).await?;
        let outcome = self.settled(blob, Outcome::Uploaded);
        drop(bringing);
        Ok(outcome)
    }

    /// Has a blob in the repository without sending its bytes, if that can be.
    pub async fn bring(&self, blob: &Blob, session: Option<Session>) -> Result<Lookup, Error> {
        let found = self.look(blob).await?;
        if matches!(found, Lookup::There { .. }) {
            return Ok(found);
        }
        if self.trust.doubts(&blob.digest) {
            return Ok(Lookup::Missing { session });
        }
        let mut brought = self.place(blob).repositories();
        brought.truncate(MOUNTS);
        if self.options.dry_run
            && let Some(from) = brought.first()
        {
            let outcome = self.settled(blob, Outcome::WouldMount { from: from.clone() });
            return Ok(Lookup::There { blob: blob.clone(), outcome });
        }
        let mut found = self.reuse.mount_from(blob, &brought).await?;
        // Where a mount left a session open, another attempt would open one more.
        if matches!(found, Lookup::Missing { session: None }) && session.is_none() {
            found = self.reuse.mount_from(blob, &self.sources).await?;
            if matches!(found, Lookup::Missing { session: None }) {
                found = self.reuse.mount_from_siblings(blob).await?;
            }
        }
        Ok(match found {
            Lookup::There { outcome, .. } => {
                let outcome = self.settled(blob, outcome);
                Lookup::There { blob: blob.clone(), outcome }
            }
            Lookup::Missing { session: opened } => Lookup::Missing { session: opened.or(session) },
        })
    }

    /// A big blob: uploaded while it is being made, unless it proves to be there already.
    pub async fn ship_growing(
        &self,
        spool: &Spool,
        cargo: &Cargo,
        session: Option<Session>,
    ) -> Result<(Blob, Outcome), Trouble> {
        let permit = self.together.uploads.acquire().await;
        let there = async {
            let packed = spool.finished().await.map_err(Trouble::Packing)?;
            let place = self.place(&packed.blob);
            let _bringing = place.bringing.lock().await;
            if let Lookup::There { outcome, .. } = self.look(&packed.blob).await? {
                return Ok((packed.blob, outcome));
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
                let packed = spool.finished().await.map_err(Trouble::Packing)?;
                let outcome = self.settled(&packed.blob, Outcome::Uploaded);
                Ok((packed.blob, outcome))
            }
        };
        drop(permit);
        shipped
    }

    /// Uploads the config, if it is not there; answers whether it was missing.
    pub async fn ship_config(&self, config: &Config) -> Result<bool, Error> {
        let digest = config.digest().clone();
        let size = config.bytes().len() as u64;
        let blob = Blob { digest: digest.clone(), size, compression: Compression::None };
        if lock(self.sent).contains_key(&digest) {
            return Ok(true);
        }
        if !self.trust.doubts(&digest) && self.reuse.is_there(&blob).await? {
            return Ok(false);
        }
        if !self.options.dry_run {
            let bytes = config.bytes().clone();
            let content = Arc::new(InMemory { bytes, digest: digest.clone() });
            self.repository.upload(content, None, Arc::new(|_| {})).await?;
            lock(self.sent).insert(digest, Outcome::Uploaded);
        }
        Ok(true)
    }

    /// Whether a blob is in the repository, by what is known of it or by the registry's word.
    async fn look(&self, blob: &Blob) -> Result<Lookup, Error> {
        let there = |outcome| Ok(Lookup::There { blob: blob.clone(), outcome });
        if let Some(outcome) = self.known_here(&blob.digest) {
            return there(outcome);
        }
        if !self.trust.doubts(&blob.digest) && self.reuse.is_there(blob).await? {
            return there(self.settled(blob, Outcome::Reused { why: Known::AnsweredHead }));
        }
        Ok(Lookup::Missing { session: None })
    }

    async fn upload(&self, cargo: &Cargo, session: Option<Session>) -> Result<(), Error> {
        let (layer, name) = (cargo.layer, cargo.name.clone());
        let total = cargo.content.whole().map(|(_, size)| size);
        (cargo.events)(Event::UploadStarted { layer, name, total });
        let (events, content) = (cargo.events.clone(), cargo.content.clone());
        let progress: Progress = Arc::new(move |position| {
            let total = content.whole().map(|(_, size)| size);
            events(Event::UploadProgress { layer, position, total });
        });
        self.repository.upload(cargo.content.clone(), session, progress).await?;
        Ok(())
    }

    /// What became of a blob that this run has settled in this very repository.
    fn known_here(&self, digest: &Digest) -> Option<Outcome> {
        let place = self.together.place(self.repository, digest);
        if !place.has(self.repository) {
            return None;
        }
        let same = Outcome::Reused { why: Known::SameAsLayer };
        let is_first = lock(&self.seen).insert(digest.clone());
        // By an attempt before this one, or by another image.
        let before = || lock(self.sent).get(digest).cloned();
        Some(if is_first { before().unwrap_or(same) } else { same })
    }

    /// Takes note of what became of a blob.
    pub fn settled(&self, blob: &Blob, outcome: Outcome) -> Outcome {
        self.place(blob).add(self.repository);
        lock(&self.seen).insert(blob.digest.clone());
        if matches!(outcome, Outcome::Uploaded | Outcome::Mounted { .. }) {
            lock(self.sent).insert(blob.digest.clone(), outcome.clone());
        }
        outcome
    }

    fn place(&self, blob: &Blob) -> Arc<Place> {
        self.together.place(self.repository, &blob.digest)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Maps and sets are whole between any two of their operations.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
