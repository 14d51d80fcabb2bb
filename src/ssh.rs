//! To a machine over SSH: an image goes into Docker, podman or containerd there, without a registry.
//!
//! One connection, with one script: it finds the runtime and lists the layers that it has. Then it
//! takes an archive of the image without these into a file, and when that is whole, the runtime loads
//! it. Nothing listens on the machine. Of an archive that did not arrive whole, the machine keeps the
//! beginning for a day, so that the next connection sends only the rest.
//!
//! - [`Host`]: `ssh://[user@]host[:port]`; [`Options`]: how it is reached, and who gets the image
//! - `runtime`: the table of runtimes, and the script; `session`: the connection
//! - `image`, `archive`, `layer_bytes`: what is sent; `transfer`: how it is sent

mod archive;
mod error;
mod host;
mod image;
mod layer_bytes;
mod options;
mod runtime;
mod session;
mod transfer;

use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use crate::event::{Event, Events};
use crate::image::{Compression, Digest, Format, Reference};
use crate::push::{Index, IndexItem, Item, PushOptions};
use crate::report::{LayerReport, Outcome, Report};
use crate::source::Location;

pub use self::error::Error;
pub use self::host::{Host, InvalidHost};
pub use self::options::{Options, RuntimeName};

use self::image::{SendFailure, Sending, SentImage};
use self::runtime::{RUNTIMES, Runtime};
use self::session::{LayersThere, Session, There};
use self::transfer::Encoding;

/// How often a connection is begun for one image.
const ATTEMPTS: usize = 3;
/// How long the first pause between connections is; each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the end of a connection is waited for.
const GRACE: Duration = Duration::from_secs(5);
/// How many more bytes must have arrived for a connection to count as the first one again.
const PROGRESS: u64 = 1 << 20;

/// The runtime that users call so.
pub fn runtime_by_word(word: &str) -> Option<RuntimeName> {
    Runtime::by_word(word).map(|row| row.name)
}

/// The words for all runtimes.
pub fn runtime_words() -> impl Iterator<Item = &'static str> {
    RUNTIMES.iter().map(|row| row.word)
}

/// Whether text is a namespace of containerd.
pub fn is_namespace(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !text.is_empty() && text.len() <= 76 && !text.starts_with('-') && text.chars().all(fits)
}

/// Which layers are left out of the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    /// Those that the machine has.
    WhatIsThere,
    Nothing,
}

/// Brings an image to a machine.
pub async fn push(
    item: &Item,
    host: &Host,
    options: &PushOptions,
    events: &Events,
) -> Result<Report, crate::Error> {
    let began = Instant::now();
    let Some(destination) = item.destination.clone().filter(|to| to.digest().is_none()) else {
        return Err(crate::Error::Usage(format!(
            "{host}: the image has a name and a tag there; write {host}/name:tag"
        )));
    };
    let push = HostPush { item, host, destination, options, events, began };
    if push.tags().is_empty() {
        return Err(crate::Error::Usage(format!(
            "{host}: without a tag, the image would have no name there; write {host}/name:tag"
        )));
    }
    let can_repeat = can_be_read_again(&item.image);
    let (mut leave, mut attempts, mut arrived) = (Leave::WhatIsThere, 0, 0);
    let mut pause = PAUSE;
    loop {
        attempts += 1;
        let Failed { error, was_partial, kept } = match push.attempt(leave).await? {
            Ok(report) => return Ok(report),
            Err(failed) => failed,
        };
        if kept >= arrived + PROGRESS {
            (attempts, pause, arrived) = (1, PAUSE, kept);
        }
        let can_repeat = can_repeat && attempts < ATTEMPTS;
        match &error {
            // What was kept is deleted there by now.
            Error::Load { .. } if kept > 0 && can_repeat => {
                events(Event::Warning(format!("{}; it is sent from the start", headline(&error))));
            }
            Error::Load { .. } if was_partial && can_repeat => {
                leave = Leave::Nothing;
                events(Event::Warning(format!("{}; the whole image is sent", headline(&error))));
            }
            error if error.may_pass() && can_repeat => {
                events(Event::Retry { why: headline(error), wait: pause });
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            _ => return Err(error.into()),
        }
    }
}

/// Brings that image of an index to a machine that is for its platform.
pub async fn push_index(
    index: &Index,
    host: &Host,
    options: &PushOptions,
    events: &Events,
) -> Result<Report, crate::Error> {
    let session = Session::open(host, &options.ssh, &index.destination, "latest").await?;
    let platform = session.there.platform.clone();
    session.leave().await;
    let fits = |image: &&IndexItem| match (&image.platform, &platform) {
        (Some(theirs), Some(wanted)) => theirs.matches(wanted),
        _ => false,
    };
    let chosen = index.images.iter().find(fits);
    let chosen = chosen.or_else(|| index.images.iter().find(|image| image.platform.is_none()));
    let Some(image) = chosen else {
        let platform = platform.map_or("unknown".to_owned(), |platform| platform.to_string());
        return Err(crate::Error::Usage(format!(
            "{host} is {platform}, and none of the images is for it"
        )));
    };
    push(&image.item(index), host, options, events).await
}

fn headline(error: &Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

fn can_be_read_again(image: &Location) -> bool {
    match image {
        Location::Path(path) => std::fs::metadata(path).is_ok_and(|it| it.is_file() || it.is_dir()),
        Location::Stdin | Location::Registry(_) => false,
    }
}

/// What tells a file or a layout from others of the same name; `None` if each reading of the image
/// may be another one, so that it cannot be gone on with.
fn identity(image: &Location) -> Option<String> {
    let Location::Path(path) = image else { return None };
    let path = std::fs::canonicalize(path).ok()?;
    let metadata = std::fs::metadata(&path).ok()?;
    let listed = match metadata.is_dir() {
        true => std::fs::metadata(path.join("index.json")).ok()?,
        false if metadata.is_file() && metadata.mode() & 0o111 == 0 => metadata,
        false => return None,
    };
    let (inode, length, modified) = (listed.ino(), listed.len(), listed.modified().ok()?);
    let changed = (listed.ctime(), listed.ctime_nsec());
    Some(format!("{} {inode} {length} {modified:?} {changed:?}", path.display()))
}

fn is_reused(layer: &LayerReport) -> bool {
    matches!(layer.outcome, Outcome::Reused { .. })
}

/// One image on its way to a machine.
struct HostPush<'a> {
    item: &'a Item,
    host: &'a Host,
    destination: Reference,
    options: &'a PushOptions,
    events: &'a Events,
    began: Instant,
}

/// An attempt that failed, and may be made again.
struct Failed {
    error: Error,
    /// Whether layers were left out of the archive.
    was_partial: bool,
    /// How many bytes of the archive the machine had from an earlier connection.
    kept: u64,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, was_partial: false, kept: 0 }
    }
}

/// What is sent in one attempt.
struct Plan {
    names: Vec<String>,
    encoding: Encoding,
    /// The file there that has the beginning of the archive, and its length.
    kept: Option<(String, u64)>,
    /// What the rest is kept under.
    key: String,
}

impl HostPush<'_> {
    async fn attempt(&self, leave: Leave) -> Result<Result<Report, Failed>, crate::Error> {
        let tags = self.tags();
        let tag = tags.first().map_or("latest", String::as_str);
        (self.events)(Event::Destination { reference: self.reference(tag) });
        let opened = Session::open(self.host, &self.options.ssh, &self.destination, tag).await;
        let mut session = match opened {
            Ok(session) => session,
            Err(error) => return Ok(Err(error.into())),
        };
        let runtime = session.there.runtime;
        if let Some(said) = session.there.unlisted.take() {
            let word = runtime.word;
            (self.events)(Event::Warning(format!(
                "{word} there did not list all its layers, so more may be sent than needed: {said}"
            )));
        }
        if leave == Leave::Nothing {
            session.there.layers = LayersThere::None;
        }
        let plan = self.plan(&session.there, &tags);
        let kept = plan.kept.as_ref().map_or(0, |(_, length)| *length);
        if kept > 0 {
            (self.events)(Event::Note(format!("{kept} bytes of the archive are there already")));
        }
        let there = std::mem::replace(&mut session.there, There::new(runtime));
        let (out, loading) = match self.options.dry_run {
            true => {
                session.leave().await;
                (None, None)
            }
            false => {
                let begun = session.begin(plan.encoding, &plan.key, plan.kept.as_ref());
                let begun = begun.map_err(|error| self.failed(&error.to_string()))?;
                (Some(begun.0), Some(begun.1))
            }
        };
        let sending = Sending {
            item: self.item.clone(),
            platform: there.platform,
            may_run: self.options.may_run,
            events: self.events.clone(),
            there: there.layers,
            form: runtime.form,
            encoding: plan.encoding,
            kept,
            names: plan.names.clone(),
            out,
        };
        let sent = tokio::task::spawn_blocking(move || image::send(sending)).await;
        let sent = sent.map_err(|error| self.failed(&error.to_string()))?;
        let loaded = match (loading, &sent) {
            (None, _) => None,
            // The machine hears that it need not keep what it has.
            (Some(loading), Err(SendFailure::Image(_))) => {
                let _ = tokio::time::timeout(GRACE, loading.finish()).await;
                None
            }
            (Some(loading), _) => Some(loading.finish().await),
        };
        let image = match (sent, loaded) {
            (Err(SendFailure::Image(error)), _) => return Err(error),
            (sent, Some(Err(error))) => {
                let was_partial = leave == Leave::WhatIsThere
                    && sent.map_or(true, |image| image.layers.iter().any(is_reused));
                return Ok(Err(Failed { error, was_partial, kept }));
            }
            (Err(SendFailure::Pipe), _) => {
                return Err(self.failed("the image was not taken to its end"));
            }
            (Ok(image), Some(Ok(loaded))) => {
                let expected = [image.config.digest(), &image.manifest.digest];
                let is_other = |id: &Digest| !there.is_whole && !expected.contains(&id);
                if let Some(id) = loaded.id.filter(is_other) {
                    let said = format!("the image there is {id}, not {}", image.config.digest());
                    let (host, runtime) = (self.host.to_string(), runtime.word);
                    return Ok(
                        Err(Error::Load { host, runtime, said, hint: String::new() }.into()),
                    );
                }
                image
            }
            (Ok(image), None) => image,
        };
        let name = plan.names.first().map_or("", String::as_str);
        let repository = name.rsplit_once(':').map_or(name, |(repository, _)| repository);
        Ok(Ok(self.report(&image, repository, tags)))
    }

    fn plan(&self, there: &There, tags: &[String]) -> Plan {
        let runtime = there.runtime;
        let names = tags.iter().map(|tag| runtime.name_of(&self.destination, tag)).collect();
        let encoding = match self.options.compression {
            Compression::None => Encoding::Plain,
            Compression::Gzip | Compression::Zstd => there.encoding,
        };
        let what = format!(
            "{} {:?} {encoding:?} {names:?} {:?} {}",
            env!("CARGO_PKG_VERSION"),
            runtime.form,
            self.item.selection,
            there.layers.digest()
        );
        let key = identity(&self.item.image)
            .map(|identity| Digest::of(format!("{what} {identity}").as_bytes()).hex().to_owned());
        let kept = key.as_ref().and_then(|key| there.kept(key));
        let kept = kept.map(|(file, length)| (file.to_owned(), length));
        Plan { names, encoding, kept, key: key.unwrap_or_else(|| "once".to_owned()) }
    }

    fn failed(&self, why: &str) -> crate::Error {
        crate::Error::Failed(format!("{}: {why}", self.host))
    }

    fn tags(&self) -> Vec<String> {
        let own = self.destination.tag().map(str::to_owned);
        let mut tags: Vec<String> = own.into_iter().chain(self.item.tags.clone()).collect();
        let mut seen = std::collections::HashSet::new();
        tags.retain(|tag| seen.insert(tag.clone()));
        tags
    }

    fn reference(&self, tag: &str) -> String {
        let name = Runtime::by_word("docker").map(|row| row.name_of(&self.destination, tag));
        format!("{}/{}", self.host, name.unwrap_or_default())
    }

    fn report(&self, image: &SentImage, repository: &str, tags: Vec<String>) -> Report {
        let is_sent =
            |outcome: &Outcome| matches!(outcome, Outcome::Uploaded | Outcome::WouldUpload);
        let sum = |wanted: bool| -> u64 {
            let layers = image.layers.iter().filter(|layer| is_sent(&layer.outcome) == wanted);
            let same = Outcome::Reused { why: crate::report::Known::SameAsLayer };
            layers.filter(|layer| layer.outcome != same).map(|layer| layer.size).sum()
        };
        let own = (image.manifest.bytes.len() + image.config.bytes().len()) as u64;
        let dry_run = self.options.dry_run;
        Report {
            reference: self.reference(tags.first().map_or("latest", String::as_str)),
            pinned: format!("{repository}@{}", image.manifest.digest),
            tags,
            digest: image.manifest.digest.clone(),
            media_type: image.manifest.media_type.clone(),
            format: Some(Format::Oci),
            platform: Some(image.config.platform().to_string()),
            size: own + sum(true) + sum(false),
            config: Some(image.config.digest().clone()),
            config_sent: true,
            layers: image.layers.clone(),
            manifests: Vec::new(),
            changes: None,
            bytes_sent: if dry_run { own + sum(true) } else { image.sent },
            bytes_reused: sum(false),
            seconds: self.began.elapsed().as_secs_f64(),
            dry_run,
            compression: None,
        }
    }
}
