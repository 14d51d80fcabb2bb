//! What is known about blobs, from images that were pushed before and from the local cache.
//!
//! [`Reuse`] names candidates for a diff ID: blobs that a repository may have, and the reason. It
//! only reads previous images from the registry. The ledger finds out whether a candidate exists.

mod cache;
mod images;
mod previous;
mod table;

use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, join_all};
use parking_lot::Mutex;
use tokio::task::JoinSet;

pub use cache::CacheLocation;
pub(crate) use cache::{Cache, CachedImage};
pub(crate) use images::{Destinations, PreviousImages};
pub(crate) use previous::Previous;
use previous::{KnownAtRead, PreviousReading};
use table::KnownLayers;

use crate::changes::{Changes, Inventory};
use crate::event::Events;
use crate::image::{Blob, Compression, Config, DiffId, Digest, LayerKey, Platform};
use crate::registry::Repository;
use crate::report;

/// Which previous images to read, and what to use of them.
#[derive(Default)]
pub(crate) struct Options {
    /// The images that the destination's tags point to now.
    pub tags: Vec<Previous>,
    /// The image that is read if none of the tags exists. A push to a new tag for each commit finds
    /// the previous commit's image here.
    pub fallback: Option<Previous>,
    /// Other images of the same registry (`--reuse-from`).
    pub reuse_from: Vec<Previous>,
    /// The images that the destinations of this run's other images point to.
    pub siblings: Option<Destinations>,
    /// Whether to trust what a previous image says about what its layers were made from.
    pub trust_annotations: bool,
    /// The image's platform, if it is known before the layers are read.
    pub platform: Option<Platform>,
    /// The image's config, if it is known before the layers are read.
    pub config: Option<Config>,
    /// The compressions that the new manifest can name.
    pub allowed: Vec<Compression>,
    /// How this push packs. Only cached blobs that this push would make identically are used, so
    /// the cache changes only the time. `None`: no cached blobs are used.
    pub recipe: Option<String>,
}

/// A blob that may have the wanted content, in a repository that may have the blob.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub blob: Blob,
    /// The name of the repository, at the same registry.
    pub repository: Arc<str>,
    pub why: Why,
}

/// Why a blob is a candidate.
#[derive(Clone, Debug)]
pub(crate) enum Why {
    /// The manifest that a tag of this push points to now lists it. Holds the image's name.
    Tagged(Arc<str>),
    /// Another image lists it. Holds the image's name.
    Listed(Arc<str>),
    /// The local cache remembers it.
    Cached,
    /// It is the wanted blob itself. The registry may have it.
    SameBlob,
}

/// What is known about the blobs of one image.
pub(crate) struct Reuse {
    repository: Repository,
    tags: Vec<Arc<PreviousReading>>,
    others: Vec<Arc<PreviousReading>>,
    /// The table of `tags`.
    tagged: Pending<KnownLayers>,
    /// The table of `others`, and of the image that is read if no tag exists.
    listed: Pending<KnownLayers>,
    /// The image that is read if no tag exists, once reading has begun.
    otherwise: Arc<Mutex<Option<Arc<PreviousReading>>>>,
    images: Arc<PreviousImages>,
    /// Reads the images that the run's other destinations point to, if no other table has a layer.
    /// `None`: these images are not used.
    siblings: Option<Shared<BoxFuture<'static, ()>>>,
    cache: Arc<Cache>,
    remembered: Mutex<HashMap<DiffId, Vec<Blob>>>,
    made: Mutex<HashMap<LayerKey, DiffId>>,
    allowed: Vec<Compression>,
    recipe: Option<String>,
    /// Background tasks that read. They end with this value.
    reading: Mutex<JoinSet<()>>,
}

type Pending<T> = Shared<BoxFuture<'static, Arc<T>>>;

impl From<Why> for report::Known {
    fn from(why: Why) -> Self {
        match why {
            Why::Tagged(image) | Why::Listed(image) => Self::PreviousImage(image),
            Why::Cached => Self::Cache,
            Why::SameBlob => Self::AnsweredHead,
        }
    }
}

impl Reuse {
    /// Starts to read, in the background, the manifests that the tags point to.
    pub fn begin(
        repository: Repository,
        options: Options,
        images: &Arc<PreviousImages>,
        cache: Arc<Cache>,
        events: Events,
    ) -> Self {
        let Options { allowed, recipe, trust_annotations: trusted, .. } = options;
        let known = KnownAtRead {
            platform: options.platform,
            config: options.config,
            cache: Arc::downgrade(&cache),
        };
        let tags: Vec<_> =
            options.tags.iter().map(|image| images.read_own(image, &known)).collect();
        let others: Vec<_> =
            options.reuse_from.iter().map(|image| images.read(image, &known)).collect();
        let tagged = {
            let (tags, images, known) = (tags.clone(), images.clone(), known.clone());
            let events = events.clone();
            async move {
                let table = KnownLayers::read(&tags, trusted, &events).await;
                for tag in &tags {
                    images.siblings.add(tag, known.key(&tag.image), trusted).await;
                }
                Arc::new(table)
            }
            .boxed()
            .shared()
        };
        let stands_in = Arc::<Mutex<Option<Arc<PreviousReading>>>>::default();
        let listed = {
            let (mut readings, tags, tagged) = (others.clone(), tags.clone(), tagged.clone());
            let (images, known, events) = (images.clone(), known.clone(), events.clone());
            let (otherwise, stands_in) = (options.fallback, stands_in.clone());
            async move {
                if let Some(otherwise) = otherwise
                    && tagged.await.layers.is_empty()
                    && join_all(tags.iter().map(|tag| tag.was_answered()))
                        .await
                        .iter()
                        .all(|was| *was)
                {
                    let reading = images.read(&otherwise, &known);
                    *stands_in.lock() = Some(reading.clone());
                    readings.push(reading);
                }
                Arc::new(KnownLayers::read(&readings, trusted, &events).await)
            }
            .boxed()
            .shared()
        };
        let siblings = options.siblings.map(|destinations| {
            let images = images.clone();
            let reading = async move { images.read_siblings(&destinations, &known, trusted).await };
            reading.boxed().shared()
        });
        let mut reading = JoinSet::new();
        for image in &tags {
            reading.spawn(image.manifests.clone().map(drop));
        }
        Self {
            repository,
            tags,
            others,
            tagged,
            listed,
            otherwise: stands_in,
            images: images.clone(),
            siblings,
            cache,
            remembered: Mutex::default(),
            made: Mutex::default(),
            allowed,
            recipe,
            reading: Mutex::new(reading),
        }
    }

    /// Starts to read the tables in the background, and at once looks up these layers in the cache.
    /// Without this call, only the manifests of previous images are read.
    pub async fn expect(&self, diff_ids: &[DiffId], keys: &[LayerKey]) {
        for table in [&self.tagged, &self.listed] {
            self.reading.lock().spawn(table.clone().map(drop));
        }
        if let Some(first) = self.tags.first() {
            self.reading.lock().spawn(first.clone().read_config());
        }
        let made = self.cache.made(keys).await;
        let Some(recipe) = &self.recipe else { return };
        let all: Vec<DiffId> = diff_ids.iter().chain(made.values()).cloned().collect();
        let found = self.cache.blobs_of(recipe, &all).await;
        self.made.lock().extend(made);
        self.remembered.lock().extend(found);
    }

    /// How this image differs from the image that the first tag points to, or else from `latest`.
    /// `None` if there is no difference, no such image, or it has not been read.
    pub fn changes(&self, config: &Config) -> Option<Changes> {
        let otherwise = self.otherwise.lock().clone();
        let readings = self.tags.iter().take(1).chain(&otherwise);
        let old = readings.filter_map(|reading| reading.inventory()).next()?;
        let mut new = Inventory::of(config);
        if old.store_paths.is_empty() {
            // Only the layers of the old image are known.
            new.store_paths.clear();
        }
        Some(Changes::between(&old, &new)).filter(|changes| !changes.is_empty())
    }

    /// The diff ID of the layer with this key, according to the cache or to a trusted previous
    /// image.
    pub async fn diff_id_of(&self, key: &LayerKey) -> Option<DiffId> {
        if let Some(diff_id) = self.made.lock().get(key) {
            return Some(diff_id.clone());
        }
        for table in [&self.tagged, &self.listed] {
            if let Some(diff_id) = table.clone().await.made.get(key) {
                return Some(diff_id.clone());
            }
        }
        self.in_siblings(|table| table.made.get(key).cloned()).await
    }

    /// Whether no previous image could be read, as on a first push.
    pub async fn knows_no_image(&self) -> bool {
        for table in [&self.tagged, &self.listed] {
            if !table.clone().await.layers.is_empty() {
                return false;
            }
        }
        !self.in_siblings(|table| !table.layers.is_empty()).await
    }

    /// Searches the table of the images that the run's other destinations point to.
    async fn in_siblings<T: Default>(&self, look_up: impl FnOnce(&KnownLayers) -> T) -> T {
        let Some(siblings) = self.siblings.clone() else {
            return T::default();
        };
        siblings.await;
        self.images.siblings.of(self.repository.registry(), look_up)
    }

    /// The blobs that may have the content of a layer, the most likely first. If the images of the
    /// destination's own tags list one, nothing else is searched.
    pub async fn candidates(&self, diff_id: &DiffId) -> Vec<Candidate> {
        let tagged = self.in_table(&*self.tagged.clone().await, diff_id, Why::Tagged);
        if !tagged.is_empty() {
            return tagged;
        }
        let mut found = self.in_table(&*self.listed.clone().await, diff_id, Why::Listed);
        let remembered = self.remembered.lock().get(diff_id).cloned();
        let remembered = match (remembered, &self.recipe) {
            (Some(blobs), _) => blobs,
            (None, None) => Vec::new(),
            (None, Some(recipe)) => {
                let mut known = self.cache.blobs_of(recipe, std::slice::from_ref(diff_id)).await;
                known.remove(diff_id).unwrap_or_default()
            }
        };
        for blob in remembered.into_iter().filter(|blob| self.is_allowed(blob)) {
            let own = self.repository.shared_name();
            found.push(Candidate { blob: blob.clone(), repository: own, why: Why::Cached });
            found.extend(self.cached_holders(&blob).await);
        }
        if found.is_empty() {
            let find = |table: &KnownLayers| self.in_table(table, diff_id, Why::Listed);
            found = self.in_siblings(find).await;
        }
        found
    }

    /// Candidates for this blob: the repositories that may have it.
    pub async fn holders(&self, blob: &Blob) -> Vec<Candidate> {
        let mut found = self.listing(&self.tags, blob, Why::Tagged).await;
        if found.is_empty() {
            found = self.listing(&self.others, blob, Why::Listed).await;
            found.extend(self.cached_holders(blob).await);
        }
        found
    }

    async fn listing(
        &self,
        readings: &[Arc<PreviousReading>],
        blob: &Blob,
        why: fn(Arc<str>) -> Why,
    ) -> Vec<Candidate> {
        let mut found = Vec::new();
        for reading in readings {
            let PreviousReading { image, manifests, .. } = &**reading;
            if let Ok(manifests) = &*manifests.clone().await
                && manifests.blobs().any(|digest| digest == blob.digest.as_str())
            {
                found.push(Candidate {
                    blob: blob.clone(),
                    repository: image.repository.shared_name(),
                    why: why(image.name().clone()),
                });
            }
        }
        found
    }

    /// The other repositories that had this blob at an earlier time.
    async fn cached_holders(&self, blob: &Blob) -> Vec<Candidate> {
        let host = self.repository.registry().host();
        let mut known = self.cache.repositories_of(host, std::slice::from_ref(&blob.digest)).await;
        let mut repositories = known.remove(&blob.digest).unwrap_or_default();
        repositories.retain(|repository| repository != self.repository.name());
        let candidate = |repository: String| Candidate {
            blob: blob.clone(),
            repository: repository.into(),
            why: Why::Cached,
        };
        repositories.into_iter().map(candidate).collect()
    }

    fn in_table(
        &self,
        table: &KnownLayers,
        diff_id: &DiffId,
        why: fn(Arc<str>) -> Why,
    ) -> Vec<Candidate> {
        let rows = table.layers.get(diff_id).into_iter().flatten();
        let candidate = |(blob, image): &(Blob, Arc<Previous>)| Candidate {
            blob: blob.clone(),
            repository: image.repository.shared_name(),
            why: why(image.name().clone()),
        };
        rows.filter(|(blob, _)| self.is_allowed(blob)).map(candidate).collect()
    }

    fn is_allowed(&self, blob: &Blob) -> bool {
        self.allowed.contains(&blob.compression)
    }

    /// Remembers the blobs that layers were packed into.
    pub fn remember_packed(&self, packed: &[(DiffId, Blob)]) {
        if let Some(recipe) = &self.recipe {
            for (diff_id, blob) in packed {
                self.cache.remember_layer(recipe, diff_id.clone(), blob.clone());
            }
        }
    }

    /// Remembers the blobs that the repository has.
    pub fn remember_blobs(&self, present: &[Digest]) {
        let host = self.repository.registry().host();
        self.cache.remember_blobs(host, self.repository.name(), present);
    }

    /// Remembers the diff IDs of layers that the source made.
    pub fn remember_made(&self, made: Vec<(LayerKey, DiffId)>) {
        for (key, diff_id) in made {
            self.cache.remember_made(key, diff_id);
        }
    }

    /// Forgets that these repositories have these blobs, because mounts from there failed.
    pub fn forget(&self, refused: &[(Arc<str>, Digest)]) {
        let host = self.repository.registry().host();
        for (repository, digest) in refused {
            self.cache.forget_blob(host, repository, digest);
        }
    }

    /// Remembers the config of the image, so that the next push need not read it.
    pub fn remember_config(&self, config: &Config) {
        self.cache.remember_config(config);
    }
}

/// The local cache, or one that knows nothing. Problems are reported when it is closed.
pub(crate) fn open_cache(location: Option<&CacheLocation>) -> Arc<Cache> {
    Arc::new(location.map_or_else(Cache::disabled, Cache::open))
}
