//! The table that the registry itself keeps: the config of the previous image lists diff IDs, and
//! its manifest lists the blobs in the same order.
//!
//! The table may be wrong, old or malicious, so it only suggests candidates.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, join_all};
use oci_client::manifest::{OciDescriptor, OciImageManifest};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

use super::Cache;
use crate::changes::Inventory;
use crate::image::{
    Blob, Compression, Config, DIFF_ID_ANNOTATION, DiffId, Digest, Format, KEY_ANNOTATION,
    LayerKey, Listed, MAX_CONFIG_BYTES, ManifestLayer, Platform,
};
use crate::registry::Repository;

/// How long the reading of a previous image may take in total. After that the push goes on without
/// it.
const TIME_LIMIT: Duration = Duration::from_secs(6);
/// More layers than any runtime can use.
const MAX_LAYERS: usize = 4096;
/// How many images of an index are read if the platform is not known.
const MAX_PLATFORMS: usize = 8;

/// An image that was pushed before: a repository, and a tag or digest there.
#[derive(Clone, Debug)]
pub(crate) struct Previous {
    pub repository: Repository,
    /// Its tag or digest.
    pub reference: String,
    name: Arc<str>,
}

/// The manifests that a reference points to now.
#[derive(Debug)]
pub(crate) struct Manifests {
    /// The digest of the manifest or index that the reference points to.
    pub digest: Digest,
    /// The manifest, or the manifests for the platform that the index lists.
    images: Vec<OciImageManifest>,
}

/// A layer of a previous image.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub diff_id: DiffId,
    pub blob: Blob,
    /// The key of what the layer was made from, if the image says it.
    pub key: Option<LayerKey>,
}

/// Why nothing of a previous image can be reused. It is shown with `-v`.
type Problem = String;

/// The problem of a reference that does not exist.
const ABSENT: &str = "there is no such manifest";

type PendingRead<T> = Shared<BoxFuture<'static, Arc<Result<T, Problem>>>>;

/// A previous image that is being read, or was read. Its config is fetched only when the layers are
/// needed.
pub(super) struct PreviousReading {
    pub image: Arc<Previous>,
    pub manifests: PendingRead<Manifests>,
    pub layers: PendingRead<Vec<Row>>,
    /// The image's config, once it has been read. For an index, the config of one of its images.
    pub config: Arc<OnceLock<Config>>,
    known: KnownAtRead,
}

/// The image's name, and the platform for which it is read.
pub(super) type ReadingKey = (Arc<str>, Option<Platform>);

/// What is known when a previous image is read.
#[derive(Clone)]
pub(super) struct KnownAtRead {
    /// The platform of the image being pushed, if it is known.
    pub platform: Option<Platform>,
    /// The config of the image being pushed, if it is known. If the previous image has the same
    /// config, it need not be fetched.
    pub config: Option<Config>,
    /// A weak reference, because the run closes the cache.
    pub cache: Weak<Cache>,
}

impl Previous {
    pub fn new(repository: Repository, reference: &str) -> Self {
        let separator = if reference.contains(':') { '@' } else { ':' };
        let name = format!("{repository}{separator}{reference}").into();
        Self { repository, reference: reference.to_owned(), name }
    }

    /// As a user would write it.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }
}

impl KnownAtRead {
    pub fn key(&self, image: &Previous) -> ReadingKey {
        (image.name().clone(), self.platform.clone())
    }
}

impl PreviousReading {
    /// Whether the registry answered: with a manifest, or that the image does not exist.
    pub async fn was_answered(&self) -> bool {
        match &*self.manifests.clone().await {
            Ok(_) => true,
            Err(problem) => problem == ABSENT,
        }
    }

    pub fn begin(
        image: Previous,
        known: KnownAtRead,
        digests: Arc<Mutex<HashMap<Arc<str>, Digest>>>,
    ) -> Self {
        // The time limit starts when the first answer is awaited, not while the archive is opened.
        let image = Arc::new(image);
        let limited = |image: &Arc<Previous>, known: &KnownAtRead| {
            let (image, known) = (image.clone(), known.clone());
            let deadline = Instant::now() + TIME_LIMIT;
            async move {
                let read = timeout_at(deadline, manifests(&image, &known)).await;
                let read = read.unwrap_or_else(slow);
                if let Ok(manifests) = &read {
                    digests.lock().insert(image.name().clone(), manifests.digest.clone());
                }
                read
            }
        };
        let manifests: PendingRead<Manifests> =
            limited(&image, &known).map(Arc::new).boxed().shared();
        let deadline = Instant::now() + TIME_LIMIT;
        let (theirs, listed, config) = (image.clone(), manifests.clone(), Arc::default());
        let (kept, with) = (Arc::clone(&config), known.clone());
        let layers = async move {
            let rows = match &*listed.await {
                Ok(listed) => {
                    let rows = rows(&theirs, listed, &with, &kept);
                    timeout_at(deadline, rows).await.unwrap_or_else(slow)
                }
                Err(problem) => Err(problem.clone()),
            };
            Arc::new(rows)
        };
        Self { image, manifests, layers: layers.boxed().shared(), config, known }
    }

    /// Reads the config if the layers were already known from the manifest alone. Then it is needed
    /// only to report what changed.
    pub async fn read_config(self: Arc<Self>) {
        if let Ok(listed) = &*self.manifests.clone().await
            && let [manifest] = listed.images.as_slice()
            && annotated(manifest).is_some()
        {
            let reading = config(&self.image, manifest, &self.known);
            if let Ok(Ok(config)) = timeout(TIME_LIMIT, reading).await {
                let _ = self.config.set(config);
            }
        }
    }

    /// The image's layers, and its packages if its config has been read. Does not wait.
    pub fn inventory(&self) -> Option<Inventory> {
        if let Some(config) = self.config.get() {
            return Some(Inventory::of(config));
        }
        let rows = self.layers.clone().now_or_never()?;
        let diff_ids = rows.as_ref().as_ref().ok()?.iter().map(|row| row.diff_id.clone());
        Some(Inventory { diff_ids: diff_ids.collect(), store_paths: Vec::new() })
    }
}

fn slow<T>(_: tokio::time::error::Elapsed) -> Result<T, Problem> {
    Err(format!("it could not be read within {} s", TIME_LIMIT.as_secs()))
}

impl Manifests {
    /// All blobs that the manifests list, including configs.
    pub fn blobs(&self) -> impl Iterator<Item = &str> {
        let descriptors =
            self.images.iter().flat_map(|image| [&image.config].into_iter().chain(&image.layers));
        descriptors.map(|blob| blob.digest.as_str())
    }
}

async fn manifests(image: &Previous, known: &KnownAtRead) -> Result<Manifests, Problem> {
    let (digest, listed) = get(image, &image.reference).await?;
    let images = match listed {
        Listed::Image(manifest) => vec![*manifest],
        Listed::Index(entries) => of_index(image, entries, known).await?,
    };
    Ok(Manifests { digest, images })
}

async fn of_index(
    image: &Previous,
    entries: Vec<(Digest, Platform)>,
    known: &KnownAtRead,
) -> Result<Vec<OciImageManifest>, Problem> {
    let fits = |theirs: &Platform| known.platform.as_ref().is_none_or(|ours| ours.matches(theirs));
    let chosen: Vec<Digest> = entries
        .into_iter()
        // Skip attestations: their platform is "unknown".
        .filter(|(_, theirs)| !theirs.is_unknown() && fits(theirs))
        .map(|(digest, _)| digest)
        .take(MAX_PLATFORMS)
        .collect();
    if chosen.is_empty() {
        return Err("the index has no image of this platform".to_owned());
    }
    let read =
        join_all(chosen.iter().map(async |digest| match get(image, digest.as_str()).await? {
            (_, Listed::Image(manifest)) => Ok(*manifest),
            (_, Listed::Index(_)) => Err("the index holds another index".to_owned()),
        }));
    some_of(read.await)
}

/// All values if at least one succeeded, else the first problem. The image of one platform may be
/// missing.
fn some_of<T>(results: Vec<Result<T, Problem>>) -> Result<Vec<T>, Problem> {
    let (mut good, mut problem) = (Vec::new(), None);
    for result in results {
        match result {
            Ok(value) => good.push(value),
            Err(why) => problem = problem.or(Some(why)),
        }
    }
    match problem {
        Some(why) if good.is_empty() => Err(why),
        _ => Ok(good),
    }
}

async fn get(image: &Previous, reference: &str) -> Result<(Digest, Listed), Problem> {
    let fetched = image.repository.hastily().manifest(reference).await;
    let fetched = fetched.map_err(|error| error.to_string())?.ok_or(ABSENT)?;
    let listed = Listed::parse(&fetched.bytes).map_err(|error| error.to_string())?;
    Ok((fetched.digest, listed))
}

async fn rows(
    image: &Previous,
    manifests: &Manifests,
    known: &KnownAtRead,
    kept: &OnceLock<Config>,
) -> Result<Vec<Row>, Problem> {
    let tables = manifests.images.iter().map(|manifest| of_manifest(image, manifest, known, kept));
    Ok(some_of(join_all(tables).await)?.into_iter().flatten().collect())
}

async fn of_manifest(
    image: &Previous,
    manifest: &OciImageManifest,
    known: &KnownAtRead,
    kept: &OnceLock<Config>,
) -> Result<Vec<Row>, Problem> {
    if manifest.layers.len() > MAX_LAYERS {
        return Err(format!("it has {} layers", manifest.layers.len()));
    }
    let diff_ids = match annotated(manifest) {
        Some(diff_ids) => diff_ids,
        None => {
            let config = config(image, manifest, known).await?;
            kept.get_or_init(|| config.clone());
            config.diff_ids().to_vec()
        }
    };
    if diff_ids.len() != manifest.layers.len() {
        return Err(format!(
            "its config lists {} layers, its manifest {}",
            diff_ids.len(),
            manifest.layers.len()
        ));
    }
    let row = |(diff_id, layer): (&DiffId, &OciDescriptor)| {
        let ManifestLayer { blob, key } = usable(layer)?;
        Some(Row { diff_id: diff_id.clone(), blob, key })
    };
    Ok(diff_ids.iter().zip(&manifest.layers).filter_map(row).collect())
}

/// The diff IDs in the annotations of an OCI manifest, if every layer has one.
fn annotated(manifest: &OciImageManifest) -> Option<Vec<DiffId>> {
    if manifest.config.media_type != Format::Oci.config_media_type() {
        return None;
    }
    let diff_id =
        |layer: &OciDescriptor| layer.annotations.as_ref()?.get(DIFF_ID_ANNOTATION)?.parse().ok();
    manifest.layers.iter().map(diff_id).collect()
}

/// The config of a previous image: the new image's own if it is the same, else the cached one, else
/// the registry's.
async fn config(
    image: &Previous,
    manifest: &OciImageManifest,
    known: &KnownAtRead,
) -> Result<Config, Problem> {
    let digest: Digest =
        manifest.config.digest.parse().map_err(|error| format!("its config: {error}"))?;
    if let Some(ours) = known.config.as_ref().filter(|ours| *ours.digest() == digest) {
        return Ok(ours.clone());
    }
    if let Some(cache) = known.cache.upgrade()
        && let Some(cached) = cache.config(&digest).await
    {
        return Ok(cached);
    }
    let size = u64::try_from(manifest.config.size).unwrap_or(u64::MAX);
    if size > MAX_CONFIG_BYTES {
        return Err(format!("its config has {size} bytes"));
    }
    let bytes = image.repository.hastily().blob(&digest, size).await;
    let bytes = bytes.map_err(|error| error.to_string())?.ok_or("its config is gone")?;
    Config::parse(bytes).map_err(|error| error.to_string())
}

/// A listed layer. `None` if it cannot be reused: foreign and encrypted layers have other media
/// types.
fn usable(layer: &OciDescriptor) -> Option<ManifestLayer> {
    let compression = Compression::of_media_type(&layer.media_type)?;
    let size = u64::try_from(layer.size).ok()?;
    let blob = Blob { digest: layer.digest.parse().ok()?, size, compression };
    let key = layer.annotations.as_ref().and_then(|all| all.get(KEY_ANNOTATION));
    Some(ManifestLayer { blob, key: key.and_then(|key| key.parse().ok()).map(LayerKey) })
}
