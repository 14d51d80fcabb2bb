//! The push: the one place where source, reuse, pack and registry meet.
//!
//! [`push`] opens the image, begins to ask the registry what it has, lets each layer settle, and
//! puts the manifest when all have. Reading, packing, asking and uploading go on at the same time:
//! the image is read on a thread of its own, and each layer is a future.

mod content;
mod destination;
mod input;
mod layer;
mod read;
mod report;
mod settled;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::try_join;
use oci_client::Reference;

use self::destination::Destination;
use self::input::{Input, Opened};
use self::layer::Layers;
use self::settled::SettledLayers;
use crate::error::Error;
use crate::event::{Event, Events};
use crate::image::{Blob, Compression, Digest, Format, Manifest, Platform};
use crate::pack::{self, Packer};
use crate::registry::{self, Registry, Repository};
use crate::report::Report;
use crate::reuse::{self, Cache, CachedImage, Previous, Reuse};
use crate::source::{self, Contents, Image, Source};

/// What to push, and where to.
#[derive(Clone, Debug)]
pub struct Item {
    /// Where the image is.
    pub image: source::Location,
    /// Which, where there are several.
    pub selection: source::Selection,
    /// Where it goes; `None`: the one name that the image itself carries.
    pub destination: Option<Reference>,
    /// Tags besides the destination's own, in the same repository.
    pub tags: Vec<String>,
}

/// Images of several platforms, and the index over them.
#[derive(Clone, Debug)]
pub struct Index {
    /// Where the index goes, and by their digests the images.
    pub destination: Reference,
    /// Tags besides the destination's own, in the same repository.
    pub tags: Vec<String>,
    /// The images. Their platforms are those of their configs.
    pub images: Vec<IndexItem>,
}

/// An image of an [`Index`].
#[derive(Clone, Debug)]
pub struct IndexItem {
    /// Where it is.
    pub image: source::Location,
    /// Which, where there are several.
    pub selection: source::Selection,
    /// The platform that it is thought to be for; another is an error.
    pub platform: Option<Platform>,
}

/// How to push.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// The manifest's format; `None` (the default): Docker's, or OCI's where a layer is
    /// zstd-compressed. Manifests that are stored as such are put as they are.
    pub format: Option<Format>,
    /// How new blobs are compressed. Default: gzip.
    pub compression: Compression,
    /// The compressor's level, 1 to 12 for gzip (libdeflate's levels), 1 to 22 for zstd; `None`:
    /// the default of each.
    pub level: Option<i32>,
    /// Blobs uploaded at the same time. Default: [`DEFAULT_JOBS`].
    pub jobs: usize,
    /// Find out everything, upload nothing.
    pub dry_run: bool,
    /// Other images of the same registry whose layers may be used.
    pub reuse_from: Vec<Reference>,
    /// Whether a previous image is believed that says by an annotation what its layers were made
    /// of. Default: no.
    pub trust_annotations: bool,
    /// Whether an image that is a program may be run. Default: yes.
    pub may_run: bool,
    /// Whether images that are pushed together are given up when one of them has failed. Default:
    /// no.
    pub fail_fast: bool,
    /// Where the local cache is; `None`: none is used.
    pub cache: Option<reuse::CacheLocation>,
    /// How to talk to the registry.
    pub registry: registry::Options,
}

/// How many blobs are uploaded at the same time unless told otherwise.
pub const DEFAULT_JOBS: usize = 8;

/// How long a push takes at most to cancel the upload sessions that it leaves open.
const CANCEL_WITHIN: Duration = Duration::from_secs(2);

/// What an attempt found to be untrue, and the next one does not rely on any more.
#[derive(Clone, Debug, Default)]
struct Doubts {
    /// Entries are not named by the diff IDs of their layers.
    names: bool,
    /// The table of the previous image and the cache.
    table: bool,
    /// Blobs that answered the HEAD, and yet the registry says it does not know them.
    blobs: HashSet<Digest>,
}

/// Why an attempt did not get through.
enum Setback {
    /// For good.
    Failed(Error),
    /// Something relied on was untrue. The image is to be read again without that.
    Doubt(Box<Doubts>, Error),
}

/// Pushes an image. The tags are put last of all: an error leaves them as they were.
///
/// Dropping the future stops everything at once; [`registry::Options::sessions`] then still holds
/// the upload sessions that were open.
pub async fn push(item: &Item, options: &PushOptions, events: &Events) -> Result<Report, Error> {
    let cache = reuse::open_cache(options.cache.as_ref());
    let result = until_believed(item, options, &cache, events).await;
    let sessions = &options.registry.sessions;
    match result {
        // A mount that was not done opens a session, which is not needed where the blob is there.
        Ok(_) => sessions.cancel_abandoned(CANCEL_WITHIN).await,
        Err(_) => sessions.cancel_all(CANCEL_WITHIN).await,
    }
    if let Some(cache) = Arc::into_inner(cache)
        && let Some(trouble) = cache.close().await
    {
        events(Event::Note(trouble));
    }
    result
}

/// Pushes several images at once: what they share is read, compressed and uploaded once, and mounted
/// into the repositories of the others. The results are in the order of the items.
///
/// `events` gives the sink for each item. One failure does not stop the others, unless
/// [`PushOptions::fail_fast`] is set.
pub async fn push_all(
    items: &[Item],
    options: &PushOptions,
    events: &(dyn Fn(usize) -> Events + Sync),
) -> Vec<Result<Report, Error>> {
    let mut results = Vec::new();
    for (index, item) in items.iter().enumerate() {
        results.push(push(item, options, &events(index)).await);
    }
    results
}

/// Pushes the images of an index by their digests, and then the index under its tags.
///
/// `events` gives the sink for each image.
pub async fn push_index(
    index: &Index,
    options: &PushOptions,
    events: &(dyn Fn(usize) -> Events + Sync),
) -> Result<Report, Error> {
    let _ = (index, options, events);
    Err(Error::Usage("no index yet".to_owned()))
}

/// Attempts the push, and again without what it relied on where that proves untrue.
async fn until_believed(
    item: &Item,
    options: &PushOptions,
    cache: &Arc<Cache>,
    events: &Events,
) -> Result<Report, Error> {
    let input = match item.destination {
        Some(_) => Input::new(&item.image, options.may_run),
        // The name that the image carries is read before the image.
        None => Input::repeatable(&item.image, options.may_run).await?,
    };
    let shared =
        Shared { started: Instant::now(), registry: OnceLock::new(), sent: Mutex::default() };
    let mut doubts = Doubts::default();
    loop {
        let attempt = Attempt {
            item,
            options,
            input: &input,
            cache,
            events,
            doubts: &doubts,
            shared: &shared,
        };
        match attempt.run().await {
            Ok(report) => return Ok(report),
            Err(Setback::Failed(error)) => return Err(error),
            Err(Setback::Doubt(_, error)) if !input.can_be_read_again() => {
                return Err(Error::Unrepeatable(Box::new(error)));
            }
            Err(Setback::Doubt(found, error)) => {
                events(Event::Warning(format!("{error}; the image is read again")));
                doubts = *found;
            }
        }
    }
}

/// What all attempts of a push have in common.
struct Shared {
    started: Instant,
    registry: OnceLock<Arc<Registry>>,
    /// Blobs that were uploaded, whichever attempt did it.
    sent: Mutex<HashSet<Digest>>,
}

struct Attempt<'a> {
    shared: &'a Shared,
    item: &'a Item,
    options: &'a PushOptions,
    input: &'a Input,
    cache: &'a Arc<Cache>,
    events: &'a Events,
    doubts: &'a Doubts,
}

impl Attempt<'_> {
    /// The diagram of the crate's front page, as code.
    async fn run(&self) -> Result<Report, Setback> {
        let opened = self.input.open(self.cache, self.events).await?;
        let destination = Destination::choose(self.item, self.input, opened.images()).await?;
        (self.events)(Event::Destination { reference: destination.name() });

        let registry = self.shared.registry.get_or_init(|| {
            let settings = Arc::new(self.options.registry.clone());
            Registry::new(destination.host(), settings, self.events.clone())
        });
        let repository = if self.options.dry_run {
            registry.readable_repository(destination.repository())
        } else {
            registry.repository(destination.repository())
        };
        let early = opened.images().map(|images| destination.pick(images)).transpose()?;
        let reuse = self.reuse(&repository, &destination, early.as_ref()).await?;
        let layers = Layers::new(
            self.item,
            self.options,
            &repository,
            &reuse,
            self.doubts,
            self.events,
            &self.shared.sent,
            early.as_ref(),
        );

        let (image, config_sent, settled) = match opened {
            Opened::Remembered(images) => {
                self.settle_remembered(&images, &destination, &layers).await?
            }
            Opened::Layout(_) => return Err(Error::Usage("a layout".to_owned()).into()),
            Opened::Source(source) => self.settle(source, &destination, &layers, None).await?,
        };
        let blobs = layers.verify(&image, &settled)?;
        let mut manifest = Manifest::of(&image.config, &blobs, self.format(&blobs))?;
        destination.check(&manifest.digest)?;
        if !self.options.dry_run {
            let mut put =
                self.put_manifest(&repository, &destination, &manifest, &image, &settled).await;
            if let Err(Setback::Failed(Error::Registry(error))) = &put
                && let Some(other) = self.docker_form(error, &image, &blobs, &manifest)
            {
                destination.check(&other.digest)?;
                manifest = other;
                put =
                    self.put_manifest(&repository, &destination, &manifest, &image, &settled).await;
            }
            put?;
            self.remember(&reuse, &destination, &image, &manifest, &settled);
        }
        let totals = report::Totals {
            config_sent,
            bytes_sent: registry.bytes_sent(),
            took: self.shared.started.elapsed(),
            dry_run: self.options.dry_run,
            compression: self.options.compression,
        };
        Ok(report::of(&destination, &image, &manifest, &settled, &totals))
    }

    /// Reads the image, and lets its layers and its config settle meanwhile.
    async fn settle(
        &self,
        source: Box<dyn Source>,
        destination: &Destination,
        layers: &Layers<'_>,
        config_sent: Option<bool>,
    ) -> Result<(Image, bool, SettledLayers), Setback> {
        let early = source.images().map(|images| destination.pick(images)).transpose()?;
        if let Some(image) = &early {
            (self.events)(Event::LayerCount(image.layers.len()));
        }
        let packer = self.packer(source.memory())?;
        let (mut seen, read) = read::start(source, packer, early.as_ref())?;
        let ship_config = async |image: &Image| match config_sent {
            Some(sent) => Ok(sent),
            None => layers.ship_config(&image.config).await,
        };
        let config = async {
            // A file tells its config first, and it goes up at once; a stream tells it last.
            let Some(image) = early else {
                let image = destination.pick(&read.images().await?)?;
                let sent = ship_config(&image).await?;
                return Ok((image, sent));
            };
            let (sent, _) = try_join!(ship_config(&image), read.images())?;
            Ok((image, sent))
        };
        let ((image, sent), settled) = try_join!(config, layers.settle_all(&mut seen))?;
        Ok((image, sent, settled))
    }

    /// The same for an image that the cache remembers: its file is read only if a layer is missing.
    async fn settle_remembered(
        &self,
        images: &[Image],
        destination: &Destination,
        layers: &Layers<'_>,
    ) -> Result<(Image, bool, SettledLayers), Setback> {
        let image = destination.pick(images)?;
        let (sent, settled) =
            try_join!(layers.ship_config(&image.config), layers.settle_unread(&image))?;
        match settled {
            Some(settled) => Ok((image, sent, settled)),
            None => {
                let Contents::Layers(source) = self.input.source(self.events).await? else {
                    let changed = "the image changed while it was being pushed".to_owned();
                    return Err(Error::Failed(changed).into());
                };
                self.settle(source, destination, layers, Some(sent)).await
            }
        }
    }

    /// Begins to find out what is there already.
    async fn reuse(
        &self,
        repository: &Repository,
        destination: &Destination,
        early: Option<&Image>,
    ) -> Result<Reuse, Error> {
        let previous = |repository: &Repository, reference: &str| Previous {
            repository: repository.clone(),
            reference: reference.to_owned(),
        };
        let mut options = reuse::Options {
            platform: early.map(|image| image.config.platform().clone()),
            allowed: allowed(self.options.format),
            dry_run: self.options.dry_run,
            ..reuse::Options::default()
        };
        if !self.doubts.table {
            let references = destination.references();
            options.tags = references.iter().map(|tag| previous(repository, tag)).collect();
            options.otherwise = (!references.iter().any(|tag| tag == "latest"))
                .then(|| previous(repository, "latest"));
            for image in &self.options.reuse_from {
                let theirs = repository.registry().readable_repository(image.repository());
                let reference = image.digest().or(image.tag()).unwrap_or("latest");
                options.others.push(previous(&theirs, reference));
            }
            options.recipe = Some(recipe(self.options));
        }
        let cache = self.cache.clone();
        let reuse = Reuse::begin(repository.clone(), options, cache, self.events.clone());
        if let Some(image) = early {
            reuse.expect(image.config.diff_ids()).await;
        }
        Ok(reuse)
    }

    fn packer(&self, taken: usize) -> Result<Packer, Error> {
        Ok(Packer::new(pack::Options {
            compression: self.options.compression,
            level: self.options.level,
            threads: 0,
            taken,
            spool_dir: std::env::temp_dir(),
        })?)
    }

    /// Docker's format where it can say what the layers are; OCI's where it cannot.
    fn format(&self, blobs: &[Blob]) -> Format {
        let zstd = |blob: &Blob| blob.compression == Compression::Zstd;
        let fitting = if blobs.iter().any(zstd) { Format::Oci } else { Format::Docker };
        self.options.format.unwrap_or(fitting)
    }

    /// Every blob is there by now; only this makes the push visible.
    async fn put_manifest(
        &self,
        repository: &Repository,
        destination: &Destination,
        manifest: &Manifest,
        image: &Image,
        settled: &SettledLayers,
    ) -> Result<(), Setback> {
        (self.events)(Event::Tagging);
        let references = destination.references();
        let puts = references.iter().map(|tag| repository.put_manifest(tag, manifest));
        // Each is put, whatever becomes of the others: broken off, one might be put or not.
        let (mut put, mut failed) = (Vec::new(), None);
        for (tag, result) in references.iter().zip(join_all(puts).await) {
            match result {
                Ok(()) => put.push(tag.clone()),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let Some(error) = failed else {
            return Ok(());
        };
        if !put.is_empty() {
            return Err(Error::SomeTags { put, source: error.into() }.into());
        }
        if !error.has_code("MANIFEST_BLOB_UNKNOWN") && !error.has_code("BLOB_UNKNOWN") {
            return Err(error.into());
        }
        // It answered the HEAD for a blob that it does not have, as after a garbage collection
        // with a stale cache before it.
        let mut believed = settled.reused();
        believed.insert(image.config.digest().clone());
        let mut blobs = error.said().map(registry::Said::digests).unwrap_or_default();
        blobs.retain(|digest| believed.contains(digest));
        // Where it does not say which, none is believed any more; nor where it goes on with others,
        // as registries do that name no more than the first.
        if blobs.is_empty() || self.doubts.table {
            blobs = believed;
        }
        if blobs.is_subset(&self.doubts.blobs) {
            return Err(error.into());
        }
        blobs.extend(self.doubts.blobs.iter().cloned());
        let names = self.doubts.names;
        let doubts = Doubts { names, table: true, blobs };
        Err(Setback::Doubt(Box::new(doubts), error.into()))
    }

    /// The same image's Docker manifest, for a registry that takes no OCI media types, if it can
    /// say what the layers are.
    fn docker_form(
        &self,
        error: &registry::Error,
        image: &Image,
        blobs: &[Blob],
        refused: &Manifest,
    ) -> Option<Manifest> {
        let is_refused = matches!(error.status().map(|status| status.as_u16()), Some(400 | 415))
            && ["MANIFEST_INVALID", "UNSUPPORTED"].iter().any(|code| error.has_code(code));
        if refused.format() != Format::Oci || !is_refused {
            return None;
        }
        let docker = Manifest::of(&image.config, blobs, Format::Docker).ok()?;
        let warning = format!("{error}; it is put in Docker's format instead");
        (self.events)(Event::Warning(warning));
        Some(docker)
    }

    /// Leaves what was learnt for the next push.
    fn remember(
        &self,
        reuse: &Reuse,
        destination: &Destination,
        image: &Image,
        manifest: &Manifest,
        settled: &SettledLayers,
    ) {
        let mut present = settled.digests();
        present.push(image.config.digest().clone());
        reuse.remember(&settled.packed(), &present);
        reuse.remember_image(&destination.references(), manifest, &image.config);
        if let Some(key) = self.input.identity() {
            let image = CachedImage {
                names: image.names.clone(),
                config: image.config.clone(),
                layers: image.layers.iter().map(|layer| layer.0).collect(),
            };
            self.cache.remember_image(&key, vec![image]);
        }
    }
}

/// The compressions that a manifest of this format can name.
fn allowed(format: Option<Format>) -> Vec<Compression> {
    [Compression::Gzip, Compression::Zstd, Compression::None]
        .into_iter()
        .filter(|c| format.is_none_or(|format| c.media_type(format).is_some()))
        .collect()
}

/// How this program packs with these options; another version may do it otherwise.
fn recipe(options: &PushOptions) -> String {
    let level = options.level.map_or("default".to_owned(), |level| level.to_string());
    format!("pushimg {} {} {level}", env!("CARGO_PKG_VERSION"), options.compression)
}

impl<E: Into<Error>> From<E> for Setback {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}
