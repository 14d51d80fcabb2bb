//! The push: the one place where source, reuse, pack and registry meet.
//!
//! [`push`] opens the image, begins to ask the registry what it has, lets each layer settle, and
//! puts the manifest when all have. Reading, packing, asking and uploading go on at the same time:
//! the image is read on a thread of its own, and each layer is a future.

mod content;
mod destination;
mod expand;
mod input;
mod layer;
mod layout;
mod lookup;
mod options;
mod read;
mod report;
mod settled;
mod several;
mod ship;
mod together;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::try_join;

pub use self::expand::expand;

use self::destination::Destination;
use self::input::{Images, Input, Opened};
use self::layer::Layers;
pub use self::options::{DEFAULT_JOBS, Index, IndexItem, Item, PushOptions};
use self::settled::SettledLayers;
use self::several::Place;
pub use self::several::{push_all, push_index};
use self::ship::{Sent, Shipping};
use self::together::Together;
use crate::error::Error;
use crate::event::{Event, Events};
use crate::image::{Compression, Digest, Format, IndexEntry, Manifest, ManifestLayer};
use crate::registry::{self, Repository};
use crate::report::Report;
use crate::reuse::{self, CachedImage, Previous, Reuse};
use crate::source::{Contents, Image, Source};

/// How long a push takes at most to cancel the upload sessions that it leaves open.
const CANCEL_WITHIN: Duration = Duration::from_secs(2);

/// What an attempt relies on. An image is attempted at most twice: once with each of these.
#[derive(Debug)]
enum Trust {
    /// Previous images, the cache, entry names, other images of the run, and every HEAD.
    WhatIsKnown,
    /// Nothing but what the registry showed in this run.
    OnlyThisRun {
        /// Blobs that answered the HEAD, and then the registry did not know them.
        unknown: HashSet<Digest>,
    },
}

impl Trust {
    /// Whether anything may be relied on that was learnt before this run, or from another image.
    fn is_full(&self) -> bool {
        matches!(self, Self::WhatIsKnown)
    }

    /// Whether the registry's HEAD for this blob proved untrue.
    fn doubts(&self, digest: &Digest) -> bool {
        matches!(self, Self::OnlyThisRun { unknown } if unknown.contains(digest))
    }
}

/// Why an attempt did not get through.
enum Setback {
    /// For good.
    Failed(Error),
    /// Something that the attempt relied on was untrue.
    Untrue {
        /// Blobs that answered the HEAD, and then the registry did not know them.
        unknown: HashSet<Digest>,
        /// What showed it.
        error: Error,
    },
}

impl Setback {
    /// The error, with nothing to doubt among the blobs.
    fn untrue(error: impl Into<Error>) -> Self {
        Self::Untrue { unknown: HashSet::new(), error: error.into() }
    }
}

/// Pushes an image. The tags are put last of all: an error leaves them as they were.
///
/// Dropping the future stops everything at once; [`registry::Options::sessions`] then still holds
/// the upload sessions that were open.
pub async fn push(item: &Item, options: &PushOptions, events: &Events) -> Result<Report, Error> {
    let together = Together::new(options, std::slice::from_ref(item), events.clone());
    let pushed = push_one(item, 0, options, &together, None, events).await;
    together.close(events).await;
    Ok(pushed?.report)
}

/// Pushes one image of those that are pushed together.
///
/// `number` is its place among them.
async fn push_one(
    item: &Item,
    number: usize,
    options: &PushOptions,
    together: &Together,
    place: Option<&Place<'_>>,
    events: &Events,
) -> Result<Pushed, Error> {
    let input = match item.destination {
        Some(_) => Input::new(&item.image, options.may_run),
        // The name that the image carries is read before the image.
        None => Input::repeatable(&item.image, options.may_run).await?,
    };
    let shared = Shared {
        started: Instant::now(),
        sent: Sent::default(),
        has_others: AtomicBool::new(false),
    };
    let attempt = async |trust: &Trust| {
        let attempt = Attempt {
            item,
            number,
            options,
            together,
            place,
            input: &input,
            events,
            trust,
            shared: &shared,
        };
        attempt.run().await
    };
    let (unknown, error) = match attempt(&Trust::WhatIsKnown).await {
        Ok(pushed) => return Ok(pushed),
        Err(Setback::Failed(error)) => return Err(error),
        Err(Setback::Untrue { unknown, error }) => (unknown, error),
    };
    if !input.can_be_read_again() {
        return Err(Error::Unrepeatable(Box::new(error)));
    }
    events(Event::Warning(format!("{error}; the image is read again")));
    match attempt(&Trust::OnlyThisRun { unknown }).await {
        Ok(pushed) => Ok(pushed),
        Err(Setback::Failed(error) | Setback::Untrue { error, .. }) => Err(error),
    }
}

/// An image that was pushed.
struct Pushed {
    report: Report,
    /// What an index lists for it.
    listed: Vec<IndexEntry>,
}

/// What all attempts of a push have in common.
struct Shared {
    started: Instant,
    /// Blobs that were brought there, whichever attempt did it.
    sent: Sent,
    /// Whether the source holds more images than this one.
    has_others: AtomicBool,
}

struct Attempt<'a> {
    shared: &'a Shared,
    item: &'a Item,
    number: usize,
    options: &'a PushOptions,
    together: &'a Together,
    /// The image's place in an index, if it goes into one.
    place: Option<&'a Place<'a>>,
    input: &'a Input,
    events: &'a Events,
    trust: &'a Trust,
}

impl Attempt<'_> {
    /// The diagram of the crate's front page, as code.
    async fn run(&self) -> Result<Pushed, Setback> {
        let opened = self.input.open(&self.together.cache, self.events).await?;
        let opened = match opened {
            Opened::Layout(layout) => return self.run_layout(layout).await,
            Opened::Images(opened) => opened,
        };
        let destination = Destination::choose(self.item, self.input, &opened, self.place).await?;
        self.together.take(self.number, &destination)?;
        (self.events)(Event::Destination { reference: destination.name() });

        let repository = self.repository(&destination);
        let early = opened.images().map(|images| self.pick(&destination, images)).transpose()?;
        let reuse = self.reuse(&repository, &destination, early.as_ref()).await?;
        let keys = opened.keys();
        reuse.expect_made(&keys).await;
        let shipping = self.shipping(&repository, &reuse);
        let layers = Layers::new(self.item, self.events, shipping, early.as_ref(), keys);

        let (image, config_sent, settled) = match opened {
            Images::Remembered(images) => {
                self.settle_remembered(&images, &destination, &layers).await?
            }
            Images::Source(source) => self.settle(source, &destination, &layers, None).await?,
        };
        let listed = layers.verify(&image, &settled)?;
        let mut manifest = Manifest::of(&image.config, &listed, self.format(&listed))?;
        destination.check(&manifest.digest)?;
        if !self.options.dry_run {
            let put = async |manifest: &Manifest| {
                self.put_manifest(
                    &repository,
                    &destination,
                    manifest,
                    &image,
                    &settled,
                    config_sent,
                )
                .await
            };
            let mut result = put(&manifest).await;
            if let Err(Setback::Failed(Error::Registry(error))) = &result
                && let Some(other) = self.docker_form(error, &image, &listed, &manifest)
            {
                destination.check(&other.digest)?;
                manifest = other;
                result = put(&manifest).await;
            }
            result?;
            self.remember(&reuse, &destination, &image, &manifest, &settled);
        }
        let totals = report::Totals {
            config_sent,
            bytes_sent: repository.bytes_sent(),
            took: self.shared.started.elapsed(),
            dry_run: self.options.dry_run,
            compression: self.options.compression,
        };
        let report = report::of(&destination, &image, &manifest, &settled, &totals);
        let listed = vec![IndexEntry::of(&manifest, image.config.platform())];
        Ok(Pushed { report, listed })
    }

    fn repository(&self, destination: &Destination) -> Repository {
        let registry = self.together.registry(destination.host());
        if self.options.dry_run {
            registry.readable_repository(destination.repository())
        } else {
            registry.repository(destination.repository())
        }
    }

    fn shipping<'a>(&'a self, repository: &'a Repository, reuse: &'a Reuse) -> Shipping<'a> {
        Shipping {
            options: self.options,
            repository,
            reuse,
            trust: self.trust,
            together: self.together,
            sources: Vec::new(),
            sent: &self.shared.sent,
            seen: Mutex::default(),
        }
    }

    /// The image that is meant, which must fit where it goes.
    fn pick(&self, destination: &Destination, images: &[Image]) -> Result<Image, Error> {
        let image = destination.pick(&self.item.selection, images)?;
        self.shared.has_others.store(images.len() > 1, Ordering::Relaxed);
        if let Some(place) = self.place {
            place.take(image.config.platform())?;
        }
        Ok(image)
    }

    /// Reads the image, and lets its layers and its config settle meanwhile.
    async fn settle(
        &self,
        source: Box<dyn Source>,
        destination: &Destination,
        layers: &Layers<'_>,
        config_sent: Option<bool>,
    ) -> Result<(Image, bool, SettledLayers), Setback> {
        let early = source.images().map(|images| self.pick(destination, images)).transpose()?;
        if let Some(image) = &early {
            (self.events)(Event::LayerCount(image.layers.len()));
        }
        let (packer, _leave) = self.together.packer(source.memory()).await?;
        let (mut seen, read) = read::start(source, packer, early.as_ref())?;
        let ship_config = async |image: &Image| match config_sent {
            Some(sent) => Ok(sent),
            None => layers.ship_config(&image.config).await,
        };
        let config = async {
            // A file tells its config first, and it goes up at once; a stream tells it last.
            let Some(image) = early else {
                let image = self.pick(destination, &read.images().await?)?;
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
        let image = self.pick(destination, images)?;
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
            fetched: self.together.fetched.clone(),
            trust_annotations: self.options.trust_annotations,
            ..reuse::Options::default()
        };
        if self.trust.is_full() {
            let references = destination.lookups();
            options.siblings = self.together.siblings(repository);
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
        let cache = self.together.cache.clone();
        let reuse = Reuse::begin(repository.clone(), options, cache, self.events.clone());
        if let Some(image) = early {
            reuse.expect(image.config.diff_ids()).await;
        }
        Ok(reuse)
    }

    /// Docker's format where it can say what the layers are; OCI's where it cannot.
    fn format(&self, layers: &[ManifestLayer]) -> Format {
        let beyond_docker = |layer: &ManifestLayer| {
            layer.blob.compression == Compression::Zstd || layer.key.is_some()
        };
        let fitting = if layers.iter().any(beyond_docker) { Format::Oci } else { Format::Docker };
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
        config_sent: bool,
    ) -> Result<(), Setback> {
        (self.events)(Event::Tagging);
        let references = destination.references(&manifest.digest);
        let puts = references.iter().map(|tag| repository.put_manifest(tag, manifest));
        let Err(error) = all_put(&references, join_all(puts).await) else {
            return Ok(());
        };
        let Error::Registry(error) = error else {
            return Err(error.into());
        };
        let mut relied_on = settled.relied_on();
        if !config_sent {
            relied_on.insert(image.config.digest().clone());
        }
        let mut unsent: Vec<Digest> = settled.unsent().collect();
        unsent.push(image.config.digest().clone());
        Err(self.refused(repository, error, relied_on, unsent))
    }

    /// What the refusal of a manifest means, after blobs whose presence was only the registry's
    /// word.
    fn refused(
        &self,
        repository: &Repository,
        error: Arc<registry::Error>,
        relied_on: HashSet<Digest>,
        unsent: impl IntoIterator<Item = Digest>,
    ) -> Setback {
        if !error.has_code("MANIFEST_BLOB_UNKNOWN") && !error.has_code("BLOB_UNKNOWN") {
            return error.into();
        }
        let named = error.said().map(registry::ErrorMessage::digests).unwrap_or_default();
        let unknown: HashSet<Digest> =
            named.iter().filter(|digest| relied_on.contains(digest)).cloned().collect();
        let unsent: Vec<Digest> = unsent.into_iter().collect();
        let is_about_others = unknown.is_empty() && named.iter().any(|d| unsent.contains(d));
        if relied_on.is_empty() || is_about_others {
            return error.into();
        }
        self.forget(repository, unsent);
        // Registries that name one blob name only the first of those that they miss.
        let unknown = if unknown.len() > 1 { unknown } else { relied_on };
        Setback::Untrue { unknown, error: error.into() }
    }

    /// What a registry only said to have, or to have mounted, is asked for again.
    fn forget(&self, repository: &Repository, unsent: impl IntoIterator<Item = Digest>) {
        // A map is whole between any two of its operations.
        let mut sent = self.shared.sent.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in unsent {
            self.together.place(repository, &digest).forget(repository);
            sent.remove(&digest);
        }
    }

    /// The same image's Docker manifest, for a registry that takes no OCI media types, if it can
    /// say what the layers are.
    fn docker_form(
        &self,
        error: &registry::Error,
        image: &Image,
        layers: &[ManifestLayer],
        refused: &Manifest,
    ) -> Option<Manifest> {
        let is_refused = matches!(error.status().map(|status| status.as_u16()), Some(400 | 415))
            && ["MANIFEST_INVALID", "UNSUPPORTED"].iter().any(|code| error.has_code(code));
        if refused.format() != Some(Format::Oci) || !is_refused {
            return None;
        }
        let docker = Manifest::of(&image.config, layers, Format::Docker).ok()?;
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
        reuse.remember_made(settled.made());
        reuse.remember_image(&destination.references(&manifest.digest), manifest, &image.config);
        // Of several images, another may be meant the next time.
        let is_alone = !self.shared.has_others.load(Ordering::Relaxed);
        if let Some(key) = self.input.identity().filter(|_| is_alone) {
            let image = CachedImage {
                names: image.names.clone(),
                config: image.config.clone(),
                layers: image.layers.iter().map(|layer| layer.0).collect(),
            };
            self.together.cache.remember_image(&key, vec![image]);
        }
    }
}

/// The outcome of putting one manifest under several references. Each was put, whatever became of
/// the others: broken off, one might be put or not.
fn all_put(references: &[String], results: Vec<Result<(), registry::Error>>) -> Result<(), Error> {
    let (mut put, mut failed) = (Vec::new(), None);
    for (reference, result) in references.iter().zip(results) {
        match result {
            Ok(()) => put.push(reference.clone()),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match failed {
        None => Ok(()),
        Some(error) if put.is_empty() => Err(error.into()),
        Some(error) => Err(Error::SomeTags { put, source: error.into() }),
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
