//! The table that the registry itself keeps: the image pushed last has the diff IDs in its config,
//! and in its manifest, in the same order, the blobs.
//!
//! The table may be wrong, stale or malicious. It is only looked up: a blob that it names counts
//! once the registry has answered the HEAD for it.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use futures::future::{BoxFuture, Shared, join_all};
use futures::{FutureExt, poll};
use oci_client::manifest::{OciDescriptor, OciImageManifest};

use super::Cache;
use super::heads::Heads;
use crate::event::{Event, Events};
use crate::image::{
    Blob, Compression, Config, DiffId, Digest, KEY_ANNOTATION, LayerKey, Listed, MAX_CONFIG_BYTES,
    ManifestLayer, Platform,
};
use crate::registry::Repository;

/// More layers than any runtime can stack.
const MAX_LAYERS: usize = 4096;
/// How many images of an index are read where no platform singles one out.
const MAX_PLATFORMS: usize = 8;

/// An image that was pushed before: a repository, and a tag or digest there.
#[derive(Clone, Debug)]
pub struct Previous {
    /// Where it is.
    pub repository: Repository,
    /// Its tag or digest.
    pub reference: String,
}

/// Which blobs are known for a diff ID, and which diff IDs for layers that are made.
#[derive(Debug, Default)]
pub struct Table {
    listings: HashMap<DiffId, Vec<Listing>>,
    made: HashMap<LayerKey, DiffId>,
}

/// What was read of images that several pushes ask for; each is read once.
#[derive(Default)]
pub struct Fetched(Mutex<HashMap<String, Fetching>>);

/// The layers of an image that are being read, or were.
type Fetching = Shared<BoxFuture<'static, Arc<Vec<Row>>>>;

/// A layer of an earlier image: its diff ID, its blob, and what it says that it was made of.
type Row = (DiffId, Listing, Option<LayerKey>);

/// A blob that an earlier image lists for a layer.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The blob.
    pub blob: Blob,
    /// The image that lists it.
    pub image: Arc<Previous>,
}

/// With what the tables are asked for.
#[derive(Clone)]
pub struct Asking {
    /// The image's platform, where it is known.
    pub platform: Option<Platform>,
    /// Where HEADs go out for all that a manifest lists; `None`: nowhere.
    pub heads: Option<Arc<Heads>>,
    /// What was pushed before need not be read again.
    pub cache: Arc<Cache>,
    /// What others have read.
    pub fetched: Arc<Fetched>,
    /// Whether images are believed that say what their layers were made of.
    pub trusted: bool,
}

impl Asking {
    fn expect(&self, layers: &[Option<ManifestLayer>]) {
        for layer in layers.iter().flatten() {
            if let Some(heads) = &self.heads {
                heads.expect(&layer.blob.digest);
            }
        }
    }

    /// What a tag points to, without reading it: as an earlier push from this machine left it, if
    /// the registry says that it is still that.
    async fn unchanged(&self, image: &Previous) -> Option<(OciImageManifest, Config)> {
        let known = self.cache.previous(&image.name()).await?;
        let now = image.repository.hastily().manifest_digest(&image.reference).await.ok()??;
        let Ok(Listed::Image(manifest)) = Listed::parse(&known.manifest) else { return None };
        (now == known.digest).then_some((*manifest, known.config))
    }
}

impl Previous {
    /// As a user would write it.
    pub fn name(&self) -> String {
        let mark = if self.reference.contains(':') { '@' } else { ':' };
        format!("{}{mark}{}", self.repository, self.reference)
    }
}

impl Table {
    /// What is known for a layer, the images asked first first.
    pub fn get(&self, diff_id: &DiffId) -> &[Listing] {
        self.listings.get(diff_id).map_or(&[], Vec::as_slice)
    }

    /// The diff ID of the layer that is made of this.
    pub fn diff_id_of(&self, key: &LayerKey) -> Option<DiffId> {
        self.made.get(key).cloned()
    }

    /// Whether it knows nothing at all.
    pub fn is_empty(&self) -> bool {
        self.listings.is_empty()
    }

    /// Reads the tables of all these images at once; HEADs for what they list in the destination's
    /// repository go out as soon as a manifest has come. What cannot be read is left out, with a
    /// note.
    pub async fn fetch(images: &[Previous], asking: &Asking, events: &Events) -> Self {
        let tables = join_all(images.iter().map(|image| async {
            match listings(image, asking).await {
                Ok(listings) => listings,
                Err(why) => {
                    let note = format!("nothing is reused of {}: {why}", image.name());
                    events(Event::Note(note));
                    Vec::new()
                }
            }
        }))
        .await;
        let mut table = Self::default();
        for row in tables.into_iter().flatten() {
            table.add(row, asking.trusted);
        }
        table
    }

    /// The tables of images that are being pushed at the same time. Nothing is asked of what they
    /// list before it is needed, and each is read once for all who are interested.
    pub async fn of_siblings(images: &[Previous], asking: &Asking) -> Self {
        let tables = join_all(images.iter().map(|image| asking.fetched.get(image, asking))).await;
        let mut table = Self::default();
        for row in tables.iter().flat_map(|rows| rows.iter()) {
            table.add(row.clone(), asking.trusted);
        }
        table
    }

    /// Adds what another table knows, to be asked after all that is known already.
    pub fn extend(&mut self, other: Self) {
        for (diff_id, listings) in other.listings {
            self.listings.entry(diff_id).or_default().extend(listings);
        }
        for (key, diff_id) in other.made {
            self.made.entry(key).or_insert(diff_id);
        }
    }

    fn add(&mut self, (diff_id, listing, key): Row, trusted: bool) {
        if let Some(key) = key.filter(|_| trusted) {
            self.made.entry(key).or_insert_with(|| diff_id.clone());
        }
        self.listings.entry(diff_id).or_default().push(listing);
    }
}

impl Fetched {
    fn get(&self, image: &Previous, asking: &Asking) -> impl Future<Output = Arc<Vec<Row>>> {
        let fetch = || {
            let image = image.clone();
            // It may be of any platform; and nothing is asked for on its behalf.
            let asking = Asking { platform: None, heads: None, ..asking.clone() };
            async move { Arc::new(listings(&image, &asking).await.unwrap_or_default()) }
                .boxed()
                .shared()
        };
        // A map is whole between any two of its operations.
        let mut fetched = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        fetched.entry(image.name()).or_insert_with(fetch).clone()
    }
}

async fn listings(image: &Previous, asking: &Asking) -> Result<Vec<Row>, String> {
    if let Some((manifest, config)) = asking.unchanged(image).await {
        let layers = listed(&manifest)?;
        asking.expect(&layers);
        return paired(image, &config, layers);
    }
    match get(image, &image.reference).await? {
        Listed::Image(manifest) => of_manifest(image, &manifest, asking).await,
        Listed::Index(entries) => {
            let chosen: Vec<_> = entries
                .into_iter()
                .filter(|(_, theirs)| {
                    asking.platform.as_ref().is_none_or(|ours| ours.matches(theirs))
                })
                // Attestations are no images.
                .filter(|(_, theirs)| theirs.os != "unknown")
                .take(MAX_PLATFORMS)
                .collect();
            if chosen.is_empty() {
                return Err("the index has no image of this platform".to_owned());
            }
            let tables = join_all(chosen.iter().map(|(digest, _)| async move {
                match get(image, digest.as_str()).await? {
                    Listed::Image(manifest) => of_manifest(image, &manifest, asking).await,
                    Listed::Index(_) => Err("the index holds another index".to_owned()),
                }
            }))
            .await;
            // One platform's image may be gone while the others are there.
            let mut found = Vec::new();
            let mut trouble = None;
            for table in tables {
                match table {
                    Ok(listings) => found.extend(listings),
                    Err(why) => trouble = Some(why),
                }
            }
            match trouble {
                Some(why) if found.is_empty() => Err(why),
                _ => Ok(found),
            }
        }
    }
}

async fn get(image: &Previous, reference: &str) -> Result<Listed, String> {
    // The push goes on without it, so it is not worth a long wait.
    let fetched = image
        .repository
        .hastily()
        .manifest(reference)
        .await
        .map_err(|error| error.to_string())?
        .ok_or("there is no such manifest")?;
    Listed::parse(&fetched.bytes).map_err(|error| error.to_string())
}

async fn of_manifest(
    image: &Previous,
    manifest: &OciImageManifest,
    asking: &Asking,
) -> Result<Vec<Row>, String> {
    let layers = listed(manifest)?;
    let config: Digest =
        manifest.config.digest.parse().map_err(|error| format!("its config: {error}"))?;
    let size = u64::try_from(manifest.config.size).unwrap_or(u64::MAX);
    if size > MAX_CONFIG_BYTES {
        return Err(format!("its config has {size} bytes"));
    }
    // All wait for the config: it is asked for first, over the connection that is open by now.
    let repository = image.repository.hastily();
    let mut getting = pin!(repository.blob(&config, size));
    let got = poll!(getting.as_mut());
    asking.expect(&layers);
    let got = match got {
        Poll::Ready(got) => got,
        Poll::Pending => getting.await,
    };
    let config = got.map_err(|error| error.to_string())?.ok_or("its config is gone")?;
    let config = Config::parse(config).map_err(|error| error.to_string())?;
    paired(image, &config, layers)
}

/// The layers that a manifest lists; `None` where one is of no use.
fn listed(manifest: &OciImageManifest) -> Result<Vec<Option<ManifestLayer>>, String> {
    if manifest.layers.len() > MAX_LAYERS {
        return Err(format!("it has {} layers", manifest.layers.len()));
    }
    let layer = |layer: &OciDescriptor| {
        // Foreign and encrypted layers have other media types: not to be had, or not as is.
        let compression = Compression::of_media_type(&layer.media_type)?;
        let size = u64::try_from(layer.size).ok()?;
        let blob = Blob { digest: layer.digest.parse().ok()?, size, compression };
        let key = layer.annotations.as_ref().and_then(|known| known.get(KEY_ANNOTATION));
        let key = key.and_then(|key| key.parse().ok()).map(LayerKey);
        Some(ManifestLayer { blob, key })
    };
    Ok(manifest.layers.iter().map(layer).collect())
}

/// A config's diff IDs with a manifest's layers, which are in the same order.
fn paired(
    image: &Previous,
    config: &Config,
    layers: Vec<Option<ManifestLayer>>,
) -> Result<Vec<Row>, String> {
    if config.diff_ids().len() != layers.len() {
        return Err(format!(
            "its config lists {} layers, its manifest {}",
            config.diff_ids().len(),
            layers.len()
        ));
    }
    let image = Arc::new(image.clone());
    let row = |(diff_id, layer): (DiffId, Option<ManifestLayer>)| {
        let ManifestLayer { blob, key } = layer?;
        Some((diff_id, Listing { blob, image: image.clone() }, key))
    };
    Ok(config.diff_ids().iter().cloned().zip(layers).filter_map(row).collect())
}
