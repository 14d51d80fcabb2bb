//! What all images of one run share: registries, cache, previous images, ledger and packing
//! threads. It also records which image puts which tag, because only one image may put a tag.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::image::{Reference, SharedTexts};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::blobs::Ledger;
use super::destination::Destination;
use super::making::Making;
use super::options::{Item, PushOptions};
use crate::error::Error;
use crate::event::{Event, Events};
use crate::pack::{self, Packer};
use crate::registry::{self, Registry, Repository};
use crate::reuse::{self, Cache, Previous, PreviousImages};

/// The most time that a run takes to cancel the upload sessions that it leaves open.
const CANCEL_WITHIN: Duration = Duration::from_secs(2);

/// A source that needs more memory than this is not read at the same time as another one.
const MUCH_MEMORY: usize = 4 << 20;

/// The most memory that any source needs for reading.
const MOST_MEMORY: usize = 70 << 20;

/// How many connections for blob bodies are opened early: one for a layer and one for the config.
const CONNECTIONS_AHEAD: usize = 2;

/// What all images of one run share.
pub struct Run {
    pub options: PushOptions,
    pub cache: Arc<Cache>,
    pub previous: Arc<PreviousImages>,
    pub ledger: Ledger,
    pub making: Making,
    pub texts: SharedTexts,
    /// Receives the events of registries that do not belong to a single image.
    events: Events,
    images: usize,
    /// The destinations that are known before the images are read.
    destinations: Arc<[Reference]>,
    registry_options: Arc<registry::Options>,
    registries: Mutex<HashMap<String, Arc<Registry>>>,
    /// Tasks that were started early. They end with the run.
    ahead: Mutex<JoinSet<()>>,
    packer: Mutex<Option<Packer>>,
    memory: Arc<Semaphore>,
    /// Which image puts which tag. The key is `registry/repository` and a tag.
    reserved: Mutex<HashMap<(String, String), usize>>,
}

impl Run {
    pub fn new(options: &PushOptions, items: &[Item], events: Events) -> Self {
        // A push to a machine does not use the cache.
        let has_registry = items.iter().any(|item| item.host.is_none());
        Self {
            cache: reuse::open_cache(options.cache.as_ref().filter(|_| has_registry)),
            previous: Arc::default(),
            ledger: Ledger::new(options.jobs, options.dry_run),
            making: Making::new(items.len()),
            texts: SharedTexts::default(),
            events,
            images: items.len(),
            destinations: items
                .iter()
                .filter(|item| item.host.is_none())
                .filter_map(|item| item.destination.clone())
                .collect(),
            registry_options: Arc::new(options.registry.clone()),
            registries: Mutex::default(),
            ahead: Mutex::default(),
            packer: Mutex::default(),
            memory: Arc::new(Semaphore::new(1)),
            reserved: Mutex::default(),
            options: options.clone(),
        }
    }

    /// Whether there is only one image.
    pub fn is_single(&self) -> bool {
        self.images == 1
    }

    /// Ends the run: closes the sessions that are left open, and writes the cache.
    pub async fn close(self) {
        // This marks its open sessions as abandoned.
        drop(self.ledger);
        drop(self.previous);
        self.registry_options.sessions.cancel_abandoned(CANCEL_WITHIN).await;
        if let Some(cache) = Arc::into_inner(self.cache)
            && let Some(problem) = cache.close().await
        {
            (self.events)(Event::Note(problem));
        }
    }

    /// The destination's repository. A dry run does not ask for permission to push.
    pub fn repository(&self, destination: &Destination) -> Repository {
        let registry = self.registry(destination.host());
        match self.options.dry_run {
            true => registry.readable_repository(destination.repository()),
            false => registry.repository(destination.repository()),
        }
    }

    fn registry(&self, host: &str) -> Arc<Registry> {
        let new = || {
            let registry = Registry::new(host, self.registry_options.clone(), self.events.clone());
            if !self.options.dry_run {
                let theirs = registry.clone();
                let opening = async move { theirs.open_connections(CONNECTIONS_AHEAD).await };
                self.ahead.lock().spawn(opening);
            }
            registry
        };
        self.registries.lock().entry(host.to_owned()).or_insert_with(new).clone()
    }

    /// Returns the images that the other destinations of this run at the same registry point to.
    pub fn siblings(&self, repository: &Repository) -> reuse::Destinations {
        let (registry, own) = (repository.registry().clone(), repository.name().to_owned());
        let destinations = self.destinations.clone();
        Box::new(move || {
            let theirs = destinations.iter().filter(|theirs| {
                theirs.registry() == registry.host() && theirs.repository() != own
            });
            let previous = |theirs: &Reference| {
                let reference = theirs.tag().or(theirs.digest()).unwrap_or("latest");
                Previous::new(registry.readable_repository(theirs.repository()), reference)
            };
            theirs.map(previous).collect()
        })
    }

    /// Reserves a destination's tags for the image with this number.
    pub fn reserve(&self, number: usize, destination: &Destination) -> Result<(), Error> {
        let mut reserved = self.reserved.lock();
        for tag in destination.tags() {
            let repository = format!("{}/{}", destination.host(), destination.repository());
            if *reserved.entry((repository.clone(), tag.clone())).or_insert(number) != number {
                return Err(Error::Usage(format!(
                    "two images have the destination {repository}:{tag}; give each its own: \
                     pushimg IMAGE=DESTINATION …"
                )));
            }
        }
        Ok(())
    }

    /// The packer for the layers of a source that needs this much memory, and the permit to read
    /// the source.
    pub async fn packer(
        &self,
        taken: usize,
    ) -> Result<(Packer, Option<OwnedSemaphorePermit>), Error> {
        let several = self.images > 1;
        let options = pack::Options {
            compression: self.options.compression,
            level: self.options.level,
            threads: 0,
            taken: if several { MOST_MEMORY } else { taken },
            spool_dir: std::env::temp_dir(),
        };
        let permit = match several && taken > MUCH_MEMORY {
            // The semaphore is never closed.
            true => self.memory.clone().acquire_owned().await.ok(),
            false => None,
        };
        let mut packer = self.packer.lock();
        let packer = match &mut *packer {
            // With a single image, make a new packer: the image may be read twice, and the second
            // reading may need another amount of memory.
            Some(packer) if several => packer.clone(),
            packer => packer.insert(Packer::new(options)?).clone(),
        };
        Ok((packer, permit))
    }
}
