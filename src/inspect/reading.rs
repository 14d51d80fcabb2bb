//! A source read for what it says of itself: layers are skipped, unless the source has to make
//! them to know what they are.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use super::Inspection;
use crate::error::Error;
use crate::event::{Event, Events};
use crate::image::{DiffId, Hasher};
use crate::source::{self, Claim, Contents, Location, Selection, Source};

/// How much is read at a time of a layer that is hashed.
const BLOCK: usize = 256 * 1024;

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
        images: source::ImagesKnown::WhenTold,
        may_run,
        progress: Box::new(move |position, total| reading(Event::Reading { position, total })),
        note: Arc::new(move |note| noting(Event::Note(note))),
    };
    let read = move || match source::open(&location, options)? {
        Contents::Layers(mut source) => layers(&location, &selection, &mut *source),
        Contents::Layout(layout) => {
            let trees = match selection == Selection::default() {
                true => layout.trees()?,
                false => vec![layout.select(&selection)?],
            };
            Ok(Inspection::of_trees(&trees))
        }
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
    let meant = selection.among(images);
    if meant.is_empty() {
        return Err(Error::Usage(format!(
            "{location} holds no image {selection}; it holds: {}",
            source::list(images)
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
