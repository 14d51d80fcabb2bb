//! A source read for what it says of itself: layers are skipped, unless the source has to make
//! them to know what they are.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use super::Inspection;
use crate::error::Error;
use crate::event::{Event, Events};
use crate::image::{DiffId, Hasher};
use crate::source::{self, Claim, Contents, Image, Location, Selection, Source};

/// How much is read at a time of a layer that is hashed.
const BLOCK: usize = 256 * 1024;

/// How many names a message lists.
const MAX_LISTED: usize = 10;

/// Reads what is at `location`, on a thread where it may block.
pub async fn read(
    location: &Location,
    selection: &Selection,
    may_run: bool,
    events: &Events,
) -> Result<Inspection, Error> {
    let (location, selection) = (location.clone(), selection.clone());
    let (reading, noting) = (events.clone(), events.clone());
    let options = source::Options {
        may_run,
        progress: Box::new(move |position, total| reading(Event::Reading { position, total })),
        note: Arc::new(move |note| noting(Event::Note(note))),
    };
    let read = move || match source::open(&location, options)? {
        Contents::Layers(mut source) => layers(&location, &selection, &mut *source),
        // JOIN: `Inspection::of_tree(&layout.select(&selection)?)`, once a layout can be opened.
        Contents::Layout(_) => Err(Error::Usage(format!("{location} is an OCI layout"))),
    };
    // Fails only where the runtime is shutting down, or where the work panicked.
    tokio::task::spawn_blocking(read)
        .await
        .unwrap_or_else(|error| Err(Error::Failed(error.to_string())))
}

pub(super) fn layers(
    location: &Location,
    selection: &Selection,
    source: &mut dyn Source,
) -> Result<Inspection, Error> {
    let mut lengths = HashMap::new();
    while let Some(layer) = source.next_layer()? {
        let id = layer.id;
        let mut length = layer.size;
        let mut made = None;
        if let Claim::Key(_) = layer.claim {
            let (diff_id, read) = hash(layer.content, &layer.entry)?;
            (length, made) = (read, Some(diff_id));
        }
        if let Some(diff_id) = made {
            source.learn(&diff_id);
        }
        lengths.insert(id, length);
    }
    let images = source.images().unwrap_or_default();
    let meant: Vec<&Image> = images.iter().filter(|image| is_meant(image, selection)).collect();
    if meant.is_empty() {
        return Err(Error::Usage(format!(
            "{location} has no image {}; it has: {}",
            description(selection),
            list(images)
        )));
    }
    Ok(Inspection::of_images(&meant, &lengths))
}

/// The digest of a layer's bytes, and their length.
fn hash(content: &mut dyn Read, entry: &str) -> Result<(DiffId, u64), Error> {
    let mut hasher = Hasher::new();
    let mut block = vec![0; BLOCK];
    let mut length = 0;
    loop {
        match content.read(&mut block) {
            Ok(0) => return Ok((hasher.finish().into(), length)),
            Ok(count) => {
                hasher.update(&block[..count]);
                length += count as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(source::Error::from_read(error, entry).into()),
        }
    }
}

/// Whether an image is one that was asked for: all are, where nothing was.
fn is_meant(image: &Image, selection: &Selection) -> bool {
    let Selection { name, digest, platform } = selection;
    name.as_ref().is_none_or(|name| image.names.iter().any(|own| is_name(own, name)))
        && digest.as_ref().is_none_or(|digest| image.config.digest() == digest)
        && platform.as_ref().is_none_or(|wanted| wanted.matches(image.config.platform()))
}

/// Whether `name` is what somebody calls the image of the name `own`: that, the same by Docker's
/// rules, or its tag.
fn is_name(own: &str, name: &str) -> bool {
    let parse = crate::image::parse_reference;
    let reference = parse(own);
    own == name
        || (reference.is_some() && reference == parse(name))
        || reference.as_ref().and_then(|own| own.tag()) == Some(name)
}

fn description(selection: &Selection) -> String {
    let Selection { name, digest, platform } = selection;
    let name = name.as_ref().map(|name| format!("{name:?}"));
    let digest = digest.as_ref().map(ToString::to_string);
    let platform = platform.as_ref().map(|platform| format!("for {platform}"));
    [name, digest, platform].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// What images are called, those that have no name by their ids, with their platforms.
fn list(images: &[Image]) -> String {
    let called = |image: &Image| {
        let name = image.names.first().map(|name| source::printable(name));
        let name = name.unwrap_or_else(|| image.config.digest().to_string());
        format!("{name} ({})", source::printable(&image.config.platform().to_string()))
    };
    let mut names: Vec<String> = images.iter().take(MAX_LISTED).map(called).collect();
    if images.len() > MAX_LISTED {
        names.push(format!("{} more", images.len() - MAX_LISTED));
    }
    names.join(", ")
}
