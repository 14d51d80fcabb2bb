//! What is already uploaded: the previous image's table, and the local cache.
//!
//! [`Reuse`] answers one question: is there a blob for this diff ID? It asks the images that the
//! destination's tags point to, then what this machine remembers having packed; and it believes
//! neither before the registry has answered the HEAD for the blob, or mounted it.

mod cache;
mod heads;
mod previous;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use futures::future::{BoxFuture, Shared};
use futures::{FutureExt, join};
use reqwest::StatusCode;
use tokio::task::JoinSet;

pub use cache::{Cache, CachedImage};
pub use heads::Heads;
use previous::Asking;
pub use previous::{Fetched, Previous, Table};

use crate::event::{Event, Events};
use crate::image::{Blob, Compression, Config, DiffId, Digest, LayerKey, Manifest, Platform};
use crate::registry::upload::Session;
use crate::registry::{Error, Mount, Present, Repository};
use crate::report::{Known, Outcome};

/// Where the local cache is kept.
#[derive(Clone, Debug)]
pub enum CacheLocation {
    /// The user's cache folder (`$XDG_CACHE_HOME/pushimg`, else `~/.cache/pushimg`).
    User,
    /// This folder.
    Folder(PathBuf),
}

/// Which earlier images to ask, and what of them is of use.
#[derive(Default)]
pub struct Options {
    /// The images that the destination's tags point to now.
    pub tags: Vec<Previous>,
    /// The image asked instead where none of those exists; a push to a new tag, one for each
    /// commit, finds its predecessor here.
    pub otherwise: Option<Previous>,
    /// Other images of the same registry (`--reuse-from`).
    pub others: Vec<Previous>,
    /// The images that the tags of those point to which are pushed together with this one.
    pub siblings: Vec<Previous>,
    /// What was read of such images already.
    pub fetched: Arc<Fetched>,
    /// Whether an image is believed that says what its layers were made of.
    pub trust_annotations: bool,
    /// The image's platform, where it is known this early.
    pub platform: Option<Platform>,
    /// The compressions that the manifest to be made can name.
    pub allowed: Vec<Compression>,
    /// How this push packs: only blobs that would come out the same are taken from the cache, so
    /// that the cache changes nothing but time. `None`: nothing is taken.
    pub recipe: Option<String>,
    /// Ask only; mount nothing.
    pub dry_run: bool,
}

/// Finds the blobs of layers that need not be packed.
pub struct Reuse {
    repository: Repository,
    heads: Arc<Heads>,
    table: Shared<BoxFuture<'static, Arc<Table>>>,
    cache: Arc<Cache>,
    remembered: Mutex<HashMap<DiffId, Vec<Blob>>>,
    made: Mutex<HashMap<LayerKey, DiffId>>,
    allowed: Vec<Compression>,
    recipe: Option<String>,
    dry_run: bool,
    events: Events,
    /// Fetches the table; ends with this.
    _fetching: JoinSet<()>,
}

/// What came of looking for a layer.
#[derive(Debug)]
pub enum Lookup {
    /// The registry has this blob, now, in the destination's repository (or, in a dry run, would
    /// have after a mount).
    There {
        /// The blob.
        blob: Blob,
        /// How it came to be there.
        outcome: Outcome,
    },
    /// It has to be uploaded.
    Missing {
        /// A session that the registry opened instead of mounting.
        session: Option<Session>,
    },
}

impl Reuse {
    /// Begins to ask, in the background.
    pub fn begin(
        repository: Repository,
        options: Options,
        cache: Arc<Cache>,
        events: Events,
    ) -> Self {
        let heads = Arc::new(Heads::new(repository.clone()));
        let Options { tags, otherwise, others, siblings, .. } = options;
        let Options { platform, allowed, recipe, dry_run, .. } = options;
        let asking = Asking {
            platform,
            heads: Some(heads.clone()),
            cache: cache.clone(),
            fetched: options.fetched,
            trusted: options.trust_annotations,
        };
        let telling = events.clone();
        let table = async move {
            let events = telling;
            let mut images = tags;
            images.extend(others);
            let own = async {
                let table = Table::fetch(&images, &asking, &events).await;
                match otherwise {
                    Some(otherwise) if table.is_empty() => {
                        Table::fetch(&[otherwise], &asking, &events).await
                    }
                    _ => table,
                }
            };
            let (mut table, theirs) = join!(own, Table::of_siblings(&siblings, &asking));
            table.extend(theirs);
            Arc::new(table)
        };
        let table = table.boxed().shared();
        let mut fetching = JoinSet::new();
        fetching.spawn(table.clone().map(drop));
        Self {
            repository,
            heads,
            table,
            cache,
            remembered: Mutex::default(),
            made: Mutex::default(),
            allowed,
            recipe,
            dry_run,
            events,
            _fetching: fetching,
        }
    }

    /// These layers will be looked for: HEADs for what the cache knows of them go out now.
    pub async fn expect(&self, diff_ids: &[DiffId]) {
        let Some(recipe) = &self.recipe else { return };
        let found = self.cache.blobs_of(recipe, diff_ids).await;
        for blob in found.values().flatten() {
            self.heads.expect(&blob.digest);
        }
        self.lock_remembered().extend(found);
    }

    /// Layers made of this will come: what is known of their blobs is asked for now.
    pub async fn expect_made(&self, keys: &[LayerKey]) {
        let made = self.cache.made(keys).await;
        let diff_ids: Vec<DiffId> = made.values().cloned().collect();
        self.lock_made().extend(made);
        self.expect(&diff_ids).await;
    }

    /// The diff ID of the layer that is made of this, by the word of the cache or of a previous image
    /// that is trusted.
    pub async fn diff_id_of(&self, key: &LayerKey) -> Option<DiffId> {
        let remembered = self.lock_made().get(key).cloned();
        match remembered {
            Some(diff_id) => Some(diff_id),
            None => self.table.clone().await.diff_id_of(key),
        }
    }

    /// Looks for a layer's blob.
    pub async fn find(&self, diff_id: &DiffId) -> Result<Lookup, Arc<Error>> {
        let table = self.table.clone().await;
        let usable = |blob: &Blob| self.allowed.contains(&blob.compression);
        let listed: Vec<_> = table.get(diff_id).iter().filter(|l| usable(&l.blob)).collect();
        for listing in &listed {
            if self.is_there(&listing.blob).await? {
                let why = Known::PreviousImage(listing.image.name());
                let outcome = Outcome::Reused { why };
                return Ok(Lookup::There { blob: listing.blob.clone(), outcome });
            }
        }
        for listing in &listed {
            let theirs = &listing.image.repository;
            if theirs.name() == self.repository.name() {
                continue;
            }
            match self.mount(&listing.blob, theirs.name()).await? {
                Lookup::Missing { session: None } => {}
                settled => return Ok(settled),
            }
        }
        let remembered = self.remembered(diff_id).await;
        for blob in remembered.iter().filter(|blob| usable(blob)) {
            if self.is_there(blob).await? {
                let outcome = Outcome::Reused { why: Known::Cache };
                return Ok(Lookup::There { blob: blob.clone(), outcome });
            }
            match self.mount_from_siblings(blob).await? {
                Lookup::Missing { session: None } => {}
                settled => return Ok(settled),
            }
        }
        Ok(Lookup::Missing { session: None })
    }

    /// Whether none of the earlier images could be read, as on a first push.
    pub async fn knows_no_image(&self) -> bool {
        self.table.clone().await.is_empty()
    }

    /// Whether the registry has the blob, of that length, in the destination's repository.
    ///
    /// A registry that answers otherwise than yes or no, as one does that has put a blob into
    /// quarantine, does not have it; what is wrong shows when the blob is uploaded.
    pub async fn is_there(&self, blob: &Blob) -> Result<bool, Arc<Error>> {
        match self.heads.ask(&blob.digest).await {
            Ok(Some(Present { size })) => Ok(size.is_none_or(|size| size == blob.size)),
            Ok(None) => Ok(false),
            Err(error) if error.status().is_some_and(|s| s != StatusCode::UNAUTHORIZED) => {
                (self.events)(Event::Note(format!("taken for missing: {error}")));
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Remembers what came of layers that were made.
    pub fn remember_made(&self, made: Vec<(LayerKey, DiffId)>) {
        for (key, diff_id) in made {
            self.cache.remember_made(key, diff_id);
        }
    }

    /// Remembers what this push has learnt, for the next one.
    pub fn remember(&self, packed: &[(DiffId, Blob)], present: &[Digest]) {
        if let Some(recipe) = &self.recipe {
            for (diff_id, blob) in packed {
                self.cache.remember_layer(recipe, diff_id.clone(), blob.clone());
            }
        }
        let host = self.repository.registry().host();
        self.cache.remember_blobs(host, self.repository.name(), present);
    }

    /// Remembers what is now under these tags: as long as it is, nobody has to read it again.
    pub fn remember_image(&self, references: &[String], manifest: &Manifest, config: &Config) {
        for reference in references {
            let repository = self.repository.clone();
            let image = Previous { repository, reference: reference.clone() };
            self.cache.remember_previous(&image.name(), &manifest.digest, &manifest.bytes, config);
        }
    }

    /// Mounts a blob from one of these repositories.
    pub async fn mount_from(
        &self,
        blob: &Blob,
        repositories: &[String],
    ) -> Result<Lookup, Arc<Error>> {
        for theirs in repositories {
            if theirs == self.repository.name() {
                continue;
            }
            match self.mount(blob, theirs).await? {
                Lookup::Missing { session: None } => {}
                settled => return Ok(settled),
            }
        }
        Ok(Lookup::Missing { session: None })
    }

    /// Mounts a blob from a repository that had it once, as the cache remembers.
    pub async fn mount_from_siblings(&self, blob: &Blob) -> Result<Lookup, Arc<Error>> {
        let host = self.repository.registry().host().to_owned();
        let digests = [blob.digest.clone()];
        let mut siblings = self.cache.repositories_of(&host, &digests).await;
        for sibling in siblings.remove(&blob.digest).unwrap_or_default() {
            if sibling == self.repository.name() {
                continue;
            }
            match self.mount(blob, &sibling).await? {
                Lookup::Missing { session: None } => {
                    self.cache.forget_blob(&host, &sibling, &blob.digest);
                }
                settled => return Ok(settled),
            }
        }
        Ok(Lookup::Missing { session: None })
    }

    async fn mount(&self, blob: &Blob, from: &str) -> Result<Lookup, Arc<Error>> {
        let there = |outcome| Lookup::There { blob: blob.clone(), outcome };
        if self.dry_run {
            let theirs = self.repository.registry().readable_repository(from);
            return Ok(match theirs.head_blob(&blob.digest).await {
                Ok(Some(_)) => there(Outcome::WouldMount { from: from.to_owned() }),
                _ => Lookup::Missing { session: None },
            });
        }
        Ok(match self.repository.mount(&blob.digest, from).await? {
            Mount::Mounted => there(Outcome::Mounted { from: from.to_owned() }),
            Mount::Opened(session) => Lookup::Missing { session: Some(session) },
            Mount::Refused => Lookup::Missing { session: None },
        })
    }

    async fn remembered(&self, diff_id: &DiffId) -> Vec<Blob> {
        let Some(recipe) = &self.recipe else {
            return Vec::new();
        };
        if let Some(blobs) = self.lock_remembered().get(diff_id) {
            return blobs.clone();
        }
        let mut found = self.cache.blobs_of(recipe, std::slice::from_ref(diff_id)).await;
        found.remove(diff_id).unwrap_or_default()
    }

    fn lock_made(&self) -> std::sync::MutexGuard<'_, HashMap<LayerKey, DiffId>> {
        // A map is whole between any two of its operations.
        self.made.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn lock_remembered(&self) -> std::sync::MutexGuard<'_, HashMap<DiffId, Vec<Blob>>> {
        // A map is whole between any two of its operations.
        self.remembered.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The local cache, or one that knows nothing. What hinders it is told when it is closed.
pub fn open_cache(location: Option<&CacheLocation>) -> Arc<Cache> {
    Arc::new(location.map_or_else(Cache::disabled, Cache::open))
}
