//! What images that are pushed together have in common: the registries, the cache, the threads that
//! compress, layers that one of them makes for all, and what was brought to which repository.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use oci_client::Reference;

use super::destination::Destination;
use super::{CANCEL_WITHIN, Item, PushOptions};
use crate::error::Error;
use crate::event::{Event, Events};
use crate::image::{Blob, DiffId, Digest};
use crate::pack::{self, Packer, Spool};
use crate::registry::{Registry, Repository};
use crate::reuse::{self, Cache, Fetched, Previous};
use crate::source::LayerKey;

/// Reading a source that takes more memory than this is left to one image at a time.
const MUCH_MEMORY: usize = 4 << 20;

/// The most memory that reading any source takes.
const MOST_MEMORY: usize = 70 << 20;

/// Blobs that are kept once they are shipped, an open file each.
const MOST_KEPT: usize = 256;

/// What all images of one run share.
pub struct Together {
    /// The local cache.
    pub cache: Arc<Cache>,
    /// Blobs being uploaded, by whichever image.
    pub uploads: Semaphore,
    /// The tables of previous images that several of the images may use.
    pub fetched: Arc<Fetched>,
    options: pack::Options,
    registry_options: Arc<crate::registry::Options>,
    /// Where it goes what a registry has to tell that is not about one image.
    events: Events,
    /// Whether there are several images.
    several: bool,
    /// How many more blobs may be kept for images that have not come to them yet.
    keep: Arc<AtomicUsize>,
    /// Where they go, as far as that is known before they are read.
    destinations: Vec<Reference>,
    registries: Mutex<HashMap<String, Arc<Registry>>>,
    packer: Mutex<Option<Packer>>,
    memory: Arc<Semaphore>,
    /// Which item puts what: `registry/repository` and a tag or digest.
    taken: Mutex<HashMap<(String, String), usize>>,
    layers: Mutex<HashMap<Wanted, watch::Receiver<Stage>>>,
    places: Mutex<HashMap<(String, Digest), Arc<Place>>>,
}

/// A layer that several may need.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// The one with this diff ID.
    Layer(DiffId),
    /// The one that would be made of this.
    Made(LayerKey),
}

/// How far a layer is that somebody makes.
#[derive(Clone)]
enum Stage {
    /// Its bytes are being read.
    Making,
    /// They were read.
    Read(DiffId),
    /// It was shipped, or was there.
    Done(Known),
    /// Nothing will come of it.
    GivenUp,
}

/// A layer whose blob is known.
#[derive(Clone)]
pub struct Known {
    /// The layer.
    pub diff_id: DiffId,
    /// Its blob.
    pub blob: Blob,
    /// The blob's bytes, where they were made here and are still there.
    pub spool: Option<Spool>,
}

/// Who makes a layer.
pub enum Part {
    /// Whoever asked.
    Lead(Lead),
    /// Somebody else does.
    Follow(Follow),
    /// Nobody has to.
    Known(Known),
}

/// The duty to make a layer. Dropped undone, it lets down whoever waits for the layer.
pub struct Lead {
    wanted: Wanted,
    stage: watch::Sender<Stage>,
    keep: Arc<AtomicUsize>,
}

/// A layer that somebody else makes.
pub struct Follow(watch::Receiver<Stage>);

/// A blob's whereabouts at a registry.
#[derive(Default)]
pub struct Place {
    /// Held by whoever brings the blob to the registry, so that only one does.
    pub bringing: tokio::sync::Mutex<()>,
    repositories: Mutex<Vec<String>>,
}

impl Together {
    /// For images that go to these destinations; nothing was done yet. What a registry tells that
    /// is not about one image goes to `events`.
    pub fn new(options: &PushOptions, items: &[Item], events: Events) -> Self {
        let several = items.len() > 1;
        let cache = reuse::open_cache(options.cache.as_ref());
        Self {
            cache,
            uploads: Semaphore::new(options.jobs.max(1)),
            fetched: Arc::default(),
            options: pack::Options {
                compression: options.compression,
                level: options.level,
                threads: 0,
                taken: if several { MOST_MEMORY } else { 0 },
                spool_dir: std::env::temp_dir(),
            },
            registry_options: Arc::new(options.registry.clone()),
            events,
            several,
            keep: Arc::new(AtomicUsize::new(if several { MOST_KEPT } else { 0 })),
            destinations: items.iter().filter_map(|item| item.destination.clone()).collect(),
            registries: Mutex::default(),
            packer: Mutex::default(),
            memory: Arc::new(Semaphore::new(1)),
            taken: Mutex::default(),
            layers: Mutex::default(),
            places: Mutex::default(),
        }
    }

    /// Ends the work: sessions that nobody needs are closed, and the cache is written.
    pub async fn close(self, events: &Events) {
        // A mount that was not done opens a session, which is not needed where the blob is there;
        // what failed leaves others.
        self.registry_options.sessions.cancel_abandoned(CANCEL_WITHIN).await;
        if let Some(cache) = Arc::into_inner(self.cache)
            && let Some(trouble) = cache.close().await
        {
            events(Event::Note(trouble));
        }
    }

    /// The images that are where others of this run go, besides the destination's own.
    pub fn siblings(&self, repository: &Repository) -> Vec<Previous> {
        let registry = repository.registry();
        let theirs = self.destinations.iter().filter(|theirs| {
            theirs.registry() == registry.host() && theirs.repository() != repository.name()
        });
        let previous = |theirs: &Reference| Previous {
            repository: registry.readable_repository(theirs.repository()),
            reference: theirs.tag().or(theirs.digest()).unwrap_or("latest").to_owned(),
        };
        theirs.map(previous).collect()
    }

    /// Reserves a destination's tags for the item at this place, which no other may put then.
    pub fn take(&self, place: usize, destination: &Destination) -> Result<(), Error> {
        let mut taken = lock(&self.taken);
        for tag in destination.tags() {
            let repository = format!("{}/{}", destination.host(), destination.repository());
            let key = (repository, tag.clone());
            if *taken.entry(key).or_insert(place) != place {
                return Err(Error::Usage(format!(
                    "two images have the destination {}/{}:{tag}; give each its own: \
                     pushimg IMAGE=DESTINATION …",
                    destination.host(),
                    destination.repository(),
                )));
            }
        }
        Ok(())
    }

    /// The registry of this name; all images use the same connections.
    pub fn registry(&self, host: &str) -> Arc<Registry> {
        let mut registries = lock(&self.registries);
        let new = || Registry::new(host, self.registry_options.clone(), self.events.clone());
        registries.entry(host.to_owned()).or_insert_with(new).clone()
    }

    /// Where the layers of a source are packed that takes so much memory, and the leave to read it.
    pub async fn packer(
        &self,
        taken: usize,
    ) -> Result<(Packer, Option<OwnedSemaphorePermit>), Error> {
        if !self.several {
            let options = pack::Options { taken, ..self.options.clone() };
            return Ok((Packer::new(options)?, None));
        }
        let permit = match taken > MUCH_MEMORY {
            // Nobody closes the semaphore.
            true => self.memory.clone().acquire_owned().await.ok(),
            false => None,
        };
        let mut packer = lock(&self.packer);
        let packer = match &mut *packer {
            Some(packer) => packer.clone(),
            none => none.insert(Packer::new(self.options.clone())?).clone(),
        };
        Ok((packer, permit))
    }

    /// Who makes this layer.
    pub fn part(&self, wanted: &Wanted) -> Part {
        let mut layers = lock(&self.layers);
        if let Some(stage) = layers.get(wanted) {
            // A leader that is gone without a result has given up.
            let is_led = stage.has_changed().is_ok();
            match &*stage.borrow() {
                Stage::Done(known) => return Part::Known(known.clone()),
                Stage::Making | Stage::Read(_) if is_led => {
                    return Part::Follow(Follow(stage.clone()));
                }
                Stage::Making | Stage::Read(_) | Stage::GivenUp => {}
            }
        }
        Part::Lead(self.begin(&mut layers, wanted))
    }

    /// A layer whose blob is known already.
    pub fn known(&self, wanted: &Wanted) -> Option<Known> {
        match &*lock(&self.layers).get(wanted)?.borrow() {
            Stage::Done(known) => Some(known.clone()),
            Stage::Making | Stage::Read(_) | Stage::GivenUp => None,
        }
    }

    /// Makes a layer the asker's to make, although its blob is known: that is out of reach.
    pub fn lead(&self, wanted: &Wanted) -> Lead {
        self.begin(&mut lock(&self.layers), wanted)
    }

    fn begin(&self, layers: &mut HashMap<Wanted, watch::Receiver<Stage>>, wanted: &Wanted) -> Lead {
        let (stage, following) = watch::channel(Stage::Making);
        layers.insert(wanted.clone(), following);
        Lead { wanted: wanted.clone(), stage, keep: self.keep.clone() }
    }

    /// A layer's blob was found in a repository, from where others can mount it.
    pub fn found(&self, diff_id: &DiffId, blob: &Blob, repository: &Repository) {
        self.place(repository, &blob.digest).add(repository);
        if !self.several {
            return;
        }
        let known = Known { diff_id: diff_id.clone(), blob: blob.clone(), spool: None };
        lock(&self.layers)
            .entry(Wanted::Layer(diff_id.clone()))
            .or_insert_with(|| watch::channel(Stage::Done(known)).1);
    }

    /// Where a blob is at the registry of this repository.
    pub fn place(&self, repository: &Repository, digest: &Digest) -> Arc<Place> {
        let key = (repository.registry().host().to_owned(), digest.clone());
        lock(&self.places).entry(key).or_default().clone()
    }
}

impl Lead {
    /// The layer's bytes were read to the end.
    pub fn read(&self, diff_id: &DiffId) {
        self.stage.send_replace(Stage::Read(diff_id.clone()));
    }

    /// The layer's blob is whole, and was shipped if all went well.
    /// `spool` has its bytes, where they were made here.
    pub fn done(self, diff_id: &DiffId, blob: &Blob, spool: Option<&Spool>) {
        if matches!(&self.wanted, Wanted::Layer(wanted) if wanted != diff_id) {
            // It was only thought to be that layer.
            return;
        }
        // The map has one receiver; another waits for the bytes. Without one they are kept for
        // whoever may come, where mounting is refused, as long as there are not too many.
        let fewer = |left: usize| left.checked_sub(1);
        let is_wanted = self.stage.receiver_count() > 1
            || self.keep.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_ok();
        let spool = spool.filter(|_| is_wanted).cloned();
        let known = Known { diff_id: diff_id.clone(), blob: blob.clone(), spool };
        self.stage.send_replace(Stage::Done(known));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.stage.send_if_modified(|stage| {
            let undone = !matches!(stage, Stage::Done(_));
            if undone {
                *stage = Stage::GivenUp;
            }
            undone
        });
    }
}

impl Follow {
    /// Waits until the layer was read; `None` where nothing comes of it.
    pub async fn diff_id(&mut self) -> Option<DiffId> {
        let stage = self.0.wait_for(|stage| !matches!(stage, Stage::Making)).await.ok()?;
        match &*stage {
            Stage::Read(diff_id) => Some(diff_id.clone()),
            Stage::Done(known) => Some(known.diff_id.clone()),
            Stage::Making | Stage::GivenUp => None,
        }
    }

    /// Waits until the layer was shipped; `None` where nothing comes of it.
    pub async fn done(mut self) -> Option<Known> {
        let is_over = |stage: &Stage| matches!(stage, Stage::Done(_) | Stage::GivenUp);
        match &*self.0.wait_for(is_over).await.ok()? {
            Stage::Done(known) => Some(known.clone()),
            Stage::Making | Stage::Read(_) | Stage::GivenUp => None,
        }
    }
}

impl Place {
    /// A repository has the blob: by its own word, or as it was brought there.
    pub fn add(&self, repository: &Repository) {
        let mut repositories = lock(&self.repositories);
        if !repositories.iter().any(|name| name == repository.name()) {
            repositories.push(repository.name().to_owned());
        }
    }

    /// A repository turned out not to have it.
    pub fn forget(&self, repository: &Repository) {
        lock(&self.repositories).retain(|name| name != repository.name());
    }

    /// Whether a repository has it.
    pub fn has(&self, repository: &Repository) -> bool {
        lock(&self.repositories).iter().any(|name| name == repository.name())
    }

    /// The repositories that have it.
    pub fn repositories(&self) -> Vec<String> {
        lock(&self.repositories).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Maps and lists are whole between any two of their operations.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
