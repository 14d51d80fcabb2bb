//! To a machine over SSH: an image goes into Docker, podman or containerd there, without a registry.
//!
//! One connection, with one script: it finds the runtime and lists the layers that it has. Then it
//! takes an archive of the image without these, and the runtime loads that. Nothing listens on the
//! machine, and nothing temporary is left there: an archive that is cut off is no image, because
//! what says that it is one comes last.
//!
//! - [`Host`]: `ssh://[user@]host[:port]`; [`Options`]: how it is reached, and who gets the image
//! - `runtime`: the table of runtimes, and the script; `session`: the connection
//! - `image`, `archive`: what is sent

mod archive;
mod error;
mod host;
mod image;
mod options;
mod runtime;
mod session;

use std::time::{Duration, Instant};

use crate::event::{Event, Events};
use crate::image::{Format, Reference};
use crate::push::{Index, IndexItem, Item, PushOptions};
use crate::report::{Outcome, Report};
use crate::source::Location;

pub use self::error::Error;
pub use self::host::{Host, InvalidHost};
pub use self::options::{Options, RuntimeName};

use self::image::{SendFailure, Sending, SentImage};
use self::runtime::{RUNTIMES, Runtime};
use self::session::{LayersThere, Session};

/// How often a connection is begun for one image.
const ATTEMPTS: usize = 3;
/// How long the first pause between connections is; each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(1);

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
    let (mut leave, mut attempts) = (Leave::WhatIsThere, 0);
    let mut pause = PAUSE;
    loop {
        attempts += 1;
        let (error, was_partial) = match push.attempt(leave).await? {
            Attempt::Done(report) => return Ok(*report),
            Attempt::Failed { error, was_partial } => (error, was_partial),
        };
        let can_repeat = attempts < ATTEMPTS && can_be_read_again(&item.image);
        match &error {
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

/// One image on its way to a machine.
struct HostPush<'a> {
    item: &'a Item,
    host: &'a Host,
    destination: Reference,
    options: &'a PushOptions,
    events: &'a Events,
    began: Instant,
}

/// How an attempt ended.
enum Attempt {
    Done(Box<Report>),
    Failed { error: Error, was_partial: bool },
}

impl HostPush<'_> {
    async fn attempt(&self, leave: Leave) -> Result<Attempt, crate::Error> {
        let tags = self.tags();
        let tag = tags.first().map_or("latest", String::as_str);
        (self.events)(Event::Destination { reference: self.reference(tag) });
        let opened = Session::open(self.host, &self.options.ssh, &self.destination, tag).await;
        let mut session = match opened {
            Ok(session) => session,
            Err(error) => return Ok(Attempt::Failed { error, was_partial: false }),
        };
        let runtime = session.there.runtime;
        let name = |tag: &String| runtime.name_of(&self.destination, tag);
        let names: Vec<String> = tags.iter().map(name).collect();
        let platform = session.there.platform.take();
        if let Some(said) = session.there.unlisted.take() {
            let word = runtime.word;
            (self.events)(Event::Warning(format!(
                "{word} there did not list all its layers, so more may be sent than needed: {said}"
            )));
        }
        let there = match leave {
            Leave::WhatIsThere => std::mem::take(&mut session.there.layers),
            Leave::Nothing => LayersThere::None,
        };
        let (out, loading) = match self.options.dry_run {
            true => {
                session.leave().await;
                (None, None)
            }
            false => match session.begin() {
                Ok((pipe, loading)) => (Some(pipe), Some(loading)),
                Err(error) => {
                    return Err(crate::Error::Failed(format!("{}: {error}", self.host)));
                }
            },
        };
        let sending = Sending {
            item: self.item.clone(),
            platform,
            may_run: self.options.may_run,
            events: self.events.clone(),
            there,
            form: runtime.form,
            names: names.clone(),
            out,
        };
        let sent = tokio::task::spawn_blocking(move || image::send(sending)).await;
        let sent = sent.map_err(|error| crate::Error::Failed(error.to_string()))?;
        let loaded = match (loading, &sent) {
            // The image is not finished: the machine gets no word of it, and drops what it has.
            (_, Err(SendFailure::Image(_))) | (None, _) => None,
            (Some(loading), _) => Some(loading.finish().await),
        };
        let image = match (sent, loaded) {
            (Err(SendFailure::Image(error)), _) => return Err(error),
            (sent, Some(Err(error))) => {
                let is_reused = |layer: &crate::report::LayerReport| {
                    matches!(layer.outcome, Outcome::Reused { .. })
                };
                let was_partial = leave == Leave::WhatIsThere
                    && sent.map_or(true, |image| image.layers.iter().any(is_reused));
                return Ok(Attempt::Failed { error, was_partial });
            }
            (Err(SendFailure::Pipe), _) => {
                let what = format!("{}: the image was not taken to its end", self.host);
                return Err(crate::Error::Failed(what));
            }
            (Ok(image), Some(Ok(loaded))) => {
                let expected = [image.config.digest(), &image.manifest.digest];
                if let Some(id) = loaded.id.filter(|id| !expected.contains(&id)) {
                    let said = format!("the image there is {id}, not {}", image.config.digest());
                    let (host, runtime) = (self.host.to_string(), runtime.word);
                    let error = Error::Load { host, runtime, said, hint: "" };
                    return Ok(Attempt::Failed { error, was_partial: false });
                }
                image
            }
            (Ok(image), None) => image,
        };
        let name = names.first().map_or("", String::as_str);
        let repository = name.rsplit_once(':').map_or(name, |(repository, _)| repository);
        Ok(Attempt::Done(Box::new(self.report(&image, repository, tags))))
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
