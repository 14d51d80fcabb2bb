//! Sends an image to a machine over SSH, into Docker, podman or containerd there, without a
//! registry.
//!
//! A connection runs a script on the machine, which finds the runtime and lists the layers that it
//! has. Then the runtime loads an archive without these layers. A runtime that has some layers but
//! cannot load such an archive pulls from a registry in this program, through a port that a
//! connection forwards. If an archive did not arrive completely, the machine keeps its beginning
//! for a day, so that the next connection sends only the rest.
//!
//! - [`Host`]: `ssh://[user@]host[:port]`. [`Options`]: how it is reached, and which runtime gets
//!   the image.
//! - `runtime`: the table of runtimes, and the script. `session`, `stderr`: a connection. `there`:
//!   what was found on the machine.
//! - `image`: the image to send. `sending`, `archive`, `transfer`: send it as an archive.
//!   `pulling`: lets the machine pull it.

mod archive;
mod error;
mod host;
mod image;
mod options;
mod pulling;
mod runtime;
mod sending;
mod session;
mod stderr;
mod there;
mod transfer;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::event::{Event, Events};
use crate::image::{Compression, Digest, LayerId, Reference, short_repository};
use crate::push::{self, Index, IndexItem, Item, PushOptions};
use crate::report::{Known, LayerReport, Outcome, Report};

pub use self::error::Error;
pub use self::host::{Host, InvalidHost};
pub use self::options::{Options, RuntimeName};

use self::error::Reached;
use self::image::HostImage;
use self::pulling::PullServer;
use self::runtime::{RUNTIMES, Runtime};
use self::sending::{SendFailure, Sending};
use self::session::{Connect, HostSession};
use self::there::There;
use self::transfer::Encoding;

/// How many connections are tried for one image.
const ATTEMPTS: usize = 3;
/// The pause before the second connection. Each further pause is twice as long.
const PAUSE: Duration = Duration::from_secs(1);
/// How long to wait for the end of a connection.
const GRACE: Duration = Duration::from_secs(5);
/// After this many lost pulls, the image is sent as an archive, whose transfer can be resumed.
const LOST_PULLS: usize = 2;
/// If at least this many more bytes have arrived, the next attempt counts as the first one.
const PROGRESS: u64 = 1 << 20;

/// The runtime with this name on the command line.
pub(crate) fn runtime_by_word(word: &str) -> Option<RuntimeName> {
    Runtime::by_word(word).map(|row| row.name)
}

/// The names of all runtimes on the command line.
pub(crate) fn runtime_words() -> impl Iterator<Item = &'static str> {
    let words = RUNTIMES.iter().map(|row| row.word).enumerate();
    let is_first = |place: usize, word| RUNTIMES[..place].iter().all(|row| row.word != word);
    words.filter(move |(place, word)| is_first(*place, *word)).map(|(_, word)| word)
}

/// Whether the text is a valid namespace of containerd.
pub(crate) fn is_namespace(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !text.is_empty() && text.len() <= 76 && !text.starts_with('-') && text.chars().all(fits)
}

impl Host {
    /// The readable name of an image on the machine.
    pub(crate) fn reference(&self, image: &Reference, tag: &str) -> String {
        let name = match short_repository(image) {
            Some(short) => short.to_owned(),
            None => format!("{}/{}", image.registry(), image.repository()),
        };
        match tag {
            "" => format!("{self}/{name}"),
            tag => format!("{self}/{name}:{tag}"),
        }
    }
}

/// The push of an image to a machine.
pub(crate) struct HostPush<'a> {
    /// Several images belong to an index. The one for the machine's platform is sent.
    images: Vec<IndexItem>,
    destination: Option<&'a Reference>,
    /// Tags besides the destination's own.
    tags: &'a [String],
    host: &'a Host,
    options: &'a PushOptions,
    events: &'a Events,
}

/// How an image is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Only the layers that the machine does not have.
    WhatIsMissing,
    /// An archive with all layers.
    Whole,
}

/// What is kept between attempts.
#[derive(Default)]
struct State {
    image: Option<Arc<HostImage>>,
    server: Option<PullServer>,
    lost_pulls: usize,
    /// Bytes of archives that were sent.
    sent: Arc<AtomicU64>,
}

/// Why an attempt failed.
enum AttemptFailure {
    Final(crate::Error),
    /// Another attempt may succeed.
    Machine {
        error: Error,
        /// Whether only a part of the image was sent, or the machine had to pull it.
        was_partial: bool,
        /// How many bytes of the archive the machine already had.
        kept: u64,
    },
}

impl From<crate::Error> for AttemptFailure {
    fn from(error: crate::Error) -> Self {
        Self::Final(error)
    }
}

impl From<Error> for AttemptFailure {
    fn from(error: Error) -> Self {
        Self::Machine { error, was_partial: false, kept: 0 }
    }
}

impl<'a> HostPush<'a> {
    /// The push of an item whose destination is a machine.
    pub fn of_item(item: &'a Item, options: &'a PushOptions, events: &'a Events) -> Option<Self> {
        let Item { image, selection, destination, tags, host } = item;
        let (image, selection) = (image.clone(), selection.clone());
        let images = vec![IndexItem { image, selection, platform: None }];
        let (host, destination) = (host.as_ref()?, destination.as_ref());
        Some(Self { images, destination, tags, host, options, events })
    }

    /// The push of an index. Only the image for the machine's platform is sent.
    pub fn of_index(
        index: &'a Index,
        options: &'a PushOptions,
        events: &'a Events,
    ) -> Option<Self> {
        let Index { destination, tags, images, host } = index;
        let (host, images, destination) = (host.as_ref()?, images.clone(), Some(destination));
        Some(Self { images, destination, tags, host, options, events })
    }

    /// Sends the image.
    pub async fn run(&self) -> Result<Report, crate::Error> {
        let began = Instant::now();
        let host = self.host;
        let Some(name) = self.destination.filter(|name| name.digest().is_none()) else {
            return Err(crate::Error::Usage(format!(
                "{host}: the image has a name and a tag there; write {host}/name:tag"
            )));
        };
        let tags = self.all_tags(name);
        if tags.is_empty() {
            return Err(crate::Error::Usage(format!(
                "{host}: without a tag, the image would have no name there; write {host}/name:tag"
            )));
        }
        let attempt = Attempt { push: self, name, tags: &tags, began };
        let mut state = State::default();
        let (mut way, mut attempts, mut arrived) = (Way::WhatIsMissing, 0, 0);
        let mut pause = PAUSE;
        let retry_for = self.options.registry.retry_for;
        loop {
            attempts += 1;
            let (error, was_partial, kept) = match attempt.run(way, &mut state).await {
                Ok(report) => return Ok(report),
                Err(AttemptFailure::Final(error)) => return Err(error),
                Err(AttemptFailure::Machine { error, was_partial, kept }) => {
                    (error, was_partial, kept)
                }
            };
            if kept >= arrived + PROGRESS {
                (attempts, pause, arrived) = (1, PAUSE, kept);
            }
            let can_repeat = attempts < ATTEMPTS;
            match &error {
                // The machine has deleted the bytes that it had kept.
                Error::Load { .. } if kept > 0 && can_repeat => {
                    self.warn(format!("{}; it is sent from the start", headline(&error)));
                }
                Error::Load { .. } | Error::Pull { .. } if was_partial && can_repeat => {
                    way = Way::Whole;
                    self.warn(format!("{}; the whole image is sent", headline(&error)));
                }
                error if error.may_pass() && can_repeat && !retry_for.is_zero() => {
                    (self.events)(Event::Retry { why: headline(error), wait: pause });
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                    if way == Way::WhatIsMissing && state.lost_pulls == LOST_PULLS {
                        (way, attempts) = (Way::Whole, 0);
                        self.warn(
                            "the pull was lost again; the whole image is sent, which can be resumed"
                                .to_owned(),
                        );
                    }
                }
                _ => return Err(error.into()),
            }
        }
    }

    fn warn(&self, warning: String) {
        (self.events)(Event::Warning(warning));
    }

    /// The destination's tag and the further tags, each once.
    fn all_tags(&self, name: &Reference) -> Vec<String> {
        let own = name.tag().map(str::to_owned);
        let mut tags: Vec<String> = own.into_iter().chain(self.tags.iter().cloned()).collect();
        let mut seen = HashSet::new();
        tags.retain(|tag| seen.insert(tag.clone()));
        tags
    }
}

fn headline(error: &Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// One attempt to send an image.
struct Attempt<'a> {
    push: &'a HostPush<'a>,
    /// The image's name on the machine.
    name: &'a Reference,
    tags: &'a [String],
    began: Instant,
}

/// The result for the layers.
struct LayersBrought {
    layers: Vec<LayerReport>,
    config_sent: bool,
    bytes_sent: u64,
}

impl Attempt<'_> {
    async fn run(&self, way: Way, state: &mut State) -> Result<Report, AttemptFailure> {
        let HostPush { options, events, .. } = *self.push;
        events(Event::Destination { reference: self.reference() });
        let mut session = self.connect().open().await?;
        let runtime = session.there.runtime;
        if let Some(said) = session.there.unlisted.take() {
            let word = runtime.word;
            self.push.warn(format!(
                "{word} there did not list all its layers, so more may be sent than needed: {said}"
            ));
        }
        let image = match &state.image {
            Some(image) => image.clone(),
            None => state.image.insert(Arc::new(self.open(&session.there).await?)).clone(),
        };
        events(Event::LayerCount(image.part.layers.len()));
        let mut is_there = session.there.layers.have(&image.part.layers);
        events(Event::Note(format!(
            "{} there has {} of the image's layers",
            runtime.word,
            is_there.iter().filter(|is_there| **is_there).count()
        )));
        let pulls = runtime.pull.is_some() && is_there.contains(&true);
        let brought = match way {
            _ if options.dry_run => {
                session.leave().await;
                self.plan(&image, &is_there)
            }
            Way::WhatIsMissing if pulls => {
                session.leave().await;
                events(Event::Note("it pulls the others".to_owned()));
                self.pull(&image, runtime, state).await?
            }
            Way::WhatIsMissing | Way::Whole => {
                if way == Way::Whole || runtime.pull.is_some() {
                    is_there.fill(false);
                }
                self.send(session, is_there, &image, state).await?
            }
        };
        Ok(self.report(&image, runtime, brought))
    }

    fn connect(&self) -> Connect<'_> {
        let HostPush { host, options, .. } = *self.push;
        Connect { host, options: &options.ssh, image: self.name, tags: self.tags }
    }

    /// Opens the image for the machine's platform.
    async fn open(&self, there: &There) -> Result<HostImage, crate::Error> {
        let HostPush { images, options, host, events, .. } = self.push;
        let fits = |image: &&IndexItem| match (&image.platform, &there.platform) {
            (Some(theirs), Some(wanted)) => theirs.matches(wanted),
            _ => false,
        };
        let chosen = images.iter().find(fits);
        let chosen = chosen.or_else(|| images.iter().find(|image| image.platform.is_none()));
        let Some(image) = chosen else {
            let platform = there.platform.as_ref();
            let platform = platform.map_or("unknown".to_owned(), ToString::to_string);
            return Err(crate::Error::Usage(format!(
                "{host} is {platform}, and none of the images is for it"
            )));
        };
        let wanted = there.platform.clone();
        let opened = HostImage::open(
            (&image.image, &image.selection),
            self.name,
            wanted,
            options.may_run,
            events,
        )
        .await?;
        let platform = &opened.part.platform;
        if let Some(expected) = &image.platform {
            push::check_platform(&image.image, platform, expected)?;
        } else if let Some(machine) = &there.platform
            && !machine.matches(platform)
        {
            self.push.warn(format!("the image is for {platform}, and {host} is {machine}"));
        }
        Ok(opened)
    }

    /// What would be sent.
    fn plan(&self, image: &HostImage, is_there: &[bool]) -> LayersBrought {
        let outcome = |is_there: bool| match is_there {
            true => Outcome::Reused { why: Known::OnHost },
            false => Outcome::WouldUpload,
        };
        let layers = image.layers().zip(is_there);
        let layers = layers
            .map(|(layer, is_there)| image.settle(layer, outcome(*is_there), self.push.events));
        LayersBrought { layers: layers.collect(), config_sent: true, bytes_sent: 0 }
    }

    /// Lets the runtime pull the layers that it does not have.
    async fn pull(
        &self,
        image: &Arc<HostImage>,
        runtime: &'static Runtime,
        state: &mut State,
    ) -> Result<LayersBrought, AttemptFailure> {
        let HostPush { options, events, .. } = *self.push;
        let server = state.server.get_or_insert_with(|| PullServer::new(image, events));
        if let Err(error) = server.pull(self.connect(), runtime, options.compression).await {
            state.lost_pulls += usize::from(error.may_pass());
            if matches!(error, Error::Load { .. }) {
                let to_check = image
                    .layers()
                    .filter(|layer| server.was_taken(*layer) || !image.contains(*layer));
                self.check_layers(image, to_check.collect()).await?;
            }
            let was_partial = matches!(error, Error::Pull { .. });
            return Err(AttemptFailure::Machine { error, was_partial, kept: 0 });
        }
        Ok(LayersBrought {
            layers: server.layers(),
            config_sent: server.config_sent(),
            bytes_sent: server.bytes_sent(),
        })
    }

    /// An error if one of these layers is missing or damaged. This is checked here, because the
    /// runtime's message would not name the file.
    async fn check_layers(
        &self,
        image: &Arc<HostImage>,
        layers: Vec<LayerId>,
    ) -> Result<(), crate::Error> {
        let image = image.clone();
        let checked = tokio::task::spawn_blocking(move || {
            layers.into_iter().try_for_each(|layer| image.check(layer))
        });
        checked.await.map_err(|error| self.failed(&error.to_string()))?
    }

    /// Sends an archive to the runtime, without the layers that the machine has.
    async fn send(
        &self,
        session: HostSession,
        is_there: Vec<bool>,
        image: &Arc<HostImage>,
        state: &State,
    ) -> Result<LayersBrought, AttemptFailure> {
        let HostPush { options, events, .. } = *self.push;
        let there = &session.there;
        if !there.can_receive {
            return Err(Error::no_dd(self.push.host.to_string()).into());
        }
        let was_partial = is_there.contains(&true);
        let encoding = match options.compression {
            Compression::None => Encoding::Plain,
            Compression::Gzip | Compression::Zstd => there.encoding,
        };
        let form = there.runtime.form;
        let names = there.runtime.names_in_archive(self.name, self.tags);
        // Everything that determines the archive's bytes.
        let version = env!("CARGO_PKG_VERSION");
        let what = (&image.manifest.digest, &is_there, form, encoding, &names, version);
        let key = Digest::of(format!("{what:?}").as_bytes()).hex().to_owned();
        let begun = there.kept(&key);
        let kept = begun.as_ref().map_or(0, |(_, length)| *length);
        if kept > 0 {
            events(Event::Note(format!("{kept} bytes of the archive are there already")));
        }
        let (out, loading) = session.load(encoding, &key, begun.as_ref()).await?;
        let (events, sent) = (events.clone(), state.sent.clone());
        let sending = Sending { events, is_there, form, encoding, kept, names, sent };
        let theirs = image.clone();
        let layers = tokio::task::spawn_blocking(move || sending.send(&theirs, out)).await;
        let layers = match layers.map_err(|error| self.failed(&error.to_string()))? {
            Err(SendFailure::Image(error)) => {
                // Tells the machine that it need not keep the bytes.
                let _ = tokio::time::timeout(GRACE, loading.finish(Reached::Machine)).await;
                return Err(error.into());
            }
            layers => layers,
        };
        let failed = |error| AttemptFailure::Machine { error, was_partial, kept };
        let reached = if layers.is_ok() { Reached::Image } else { Reached::Machine };
        let id = loading.finish(reached).await.map_err(failed)?;
        let Ok(layers) = layers else {
            return Err(self.failed("the image was not taken to its end").into());
        };
        self.check(id, image).map_err(failed)?;
        let pulled = state.server.as_ref().map_or(0, PullServer::bytes_sent);
        let bytes_sent = state.sent.load(Ordering::Relaxed) + pulled;
        Ok(LayersBrought { layers, config_sent: true, bytes_sent })
    }

    /// Checks that the machine has the image that was sent. Runtimes identify it by the digest of
    /// its config or of its manifest.
    fn check(&self, id: Option<Digest>, image: &HostImage) -> Result<(), Error> {
        let is_ours = |id: &Digest| [&image.part.config, &image.manifest.digest].contains(&id);
        match id.filter(|id| !is_ours(id)) {
            None => Ok(()),
            Some(id) => {
                let said = format!("the image there is {id}, not {}", image.part.config);
                Err(Error::load(self.push.host.to_string(), "the runtime", &said))
            }
        }
    }

    fn failed(&self, why: &str) -> crate::Error {
        crate::Error::Failed(format!("{}: {why}", self.push.host))
    }

    /// The first name, to be shown to the user.
    fn reference(&self) -> String {
        self.push.host.reference(self.name, self.tags.first().map_or("latest", String::as_str))
    }

    fn report(&self, image: &HostImage, runtime: &Runtime, brought: LayersBrought) -> Report {
        let LayersBrought { layers, config_sent, bytes_sent } = brought;
        let tag = self.tags.first().map_or("latest", String::as_str);
        let name = runtime.name_of(self.name, tag);
        let repository = name.rsplit_once(':').map_or(name.as_str(), |(repository, _)| repository);
        let is_sent =
            |outcome: &Outcome| matches!(outcome, Outcome::Uploaded | Outcome::WouldUpload);
        let sum = |wanted: bool| -> u64 {
            let layers = layers.iter().filter(|layer| is_sent(&layer.outcome) == wanted);
            let same = Outcome::Reused { why: Known::SameAsLayer };
            layers.filter(|layer| layer.outcome != same).map(|layer| layer.size).sum()
        };
        let config_size = image.blob(&image.part.config).map_or(0, |config| config.size);
        let own = image.manifest.bytes.len() as u64 + config_size;
        let dry_run = self.push.options.dry_run;
        Report {
            reference: self.reference(),
            pinned: format!("{repository}@{}", image.manifest.digest),
            tags: self.tags.to_vec(),
            digest: image.manifest.digest.clone(),
            media_type: image.manifest.media_type.clone(),
            format: image.manifest.format(),
            platform: Some(image.part.platform.to_string()),
            size: own + sum(true) + sum(false),
            config: Some(image.part.config.clone()),
            config_sent,
            bytes_sent: if dry_run { own + sum(true) } else { bytes_sent },
            bytes_reused: sum(false),
            manifests: Vec::new(),
            changes: None,
            seconds: self.began.elapsed().as_secs_f64(),
            dry_run,
            compression: None,
            layers,
        }
    }
}
