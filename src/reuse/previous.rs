//! The table that the registry itself keeps: the image pushed last has the diff IDs in its config,
//! and in its manifest, in the same order, the blobs.
//!
//! The table may be wrong, stale or malicious. It is only looked up: a blob that it names counts
//! once the registry has answered the HEAD for it.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use futures::future::join_all;
use futures::poll;
use oci_client::manifest::{OciDescriptor, OciImageManifest};

use super::Cache;
use super::heads::Heads;
use crate::event::{Event, Events};
use crate::image::{Blob, Compression, Config, DiffId, Digest, Listed, MAX_CONFIG_BYTES, Platform};
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

/// Which blobs are known for a diff ID.
#[derive(Debug, Default)]
pub struct Table(HashMap<DiffId, Vec<Listing>>);

/// A blob that an earlier image lists for a layer.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The blob.
    pub blob: Blob,
    /// The image that lists it.
    pub image: Arc<Previous>,
}

/// With what the tables are asked for.
pub struct Asking {
    /// The image's platform, where it is known.
    pub platform: Option<Platform>,
    /// Where HEADs go out.
    pub heads: Arc<Heads>,
    /// What was pushed before need not be read again.
    pub cache: Arc<Cache>,
}

impl Asking {
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
        self.0.get(diff_id).map_or(&[], Vec::as_slice)
    }

    /// Whether it knows nothing at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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
        for (diff_id, listing) in tables.into_iter().flatten() {
            table.0.entry(diff_id).or_default().push(listing);
        }
        table
    }
}

async fn listings(image: &Previous, asking: &Asking) -> Result<Vec<(DiffId, Listing)>, String> {
    if let Some((manifest, config)) = asking.unchanged(image).await {
        let blobs = listed(&manifest)?;
        for blob in blobs.iter().flatten() {
            asking.heads.expect(&blob.digest);
        }
        return paired(image, &config, blobs);
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
) -> Result<Vec<(DiffId, Listing)>, String> {
    let blobs = listed(manifest)?;
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
    for blob in blobs.iter().flatten() {
        asking.heads.expect(&blob.digest);
    }
    let got = match got {
        Poll::Ready(got) => got,
        Poll::Pending => getting.await,
    };
    let config = got.map_err(|error| error.to_string())?.ok_or("its config is gone")?;
    let config = Config::parse(config).map_err(|error| error.to_string())?;
    paired(image, &config, blobs)
}

/// The blobs that a manifest lists; `None` where one is of no use.
fn listed(manifest: &OciImageManifest) -> Result<Vec<Option<Blob>>, String> {
    if manifest.layers.len() > MAX_LAYERS {
        return Err(format!("it has {} layers", manifest.layers.len()));
    }
    let blob = |layer: &OciDescriptor| {
        // Foreign and encrypted layers have other media types: not to be had, or not as is.
        let compression = Compression::of_media_type(&layer.media_type)?;
        let size = u64::try_from(layer.size).ok()?;
        Some(Blob { digest: layer.digest.parse().ok()?, size, compression })
    };
    Ok(manifest.layers.iter().map(blob).collect())
}

/// A config's diff IDs with a manifest's blobs, which are in the same order.
fn paired(
    image: &Previous,
    config: &Config,
    blobs: Vec<Option<Blob>>,
) -> Result<Vec<(DiffId, Listing)>, String> {
    if config.diff_ids().len() != blobs.len() {
        return Err(format!(
            "its config lists {} layers, its manifest {}",
            config.diff_ids().len(),
            blobs.len()
        ));
    }
    let image = Arc::new(image.clone());
    Ok(config
        .diff_ids()
        .iter()
        .cloned()
        .zip(blobs)
        .filter_map(|(diff_id, blob)| {
            Some((diff_id, Listing { blob: blob?, image: image.clone() }))
        })
        .collect())
}
