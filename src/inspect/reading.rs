//! Reads the images of a source. Layers are skipped, unless the source has to make them to know
//! their diff IDs.

use std::collections::HashMap;
use std::sync::Arc;

use super::Inspection;
use crate::error::Error;
use crate::event::{Event, Events};
use crate::image::{DiffId, Hasher};
use crate::source::{self, Claim, Contents, Location, Selection, Source};

/// Reads the images at `location` on a thread that may block.
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
            let inspection = Inspection::of_trees(&trees);
            match trees.first() {
                Some(tree) if inspection.images.is_empty() => {
                    let root = &tree.nodes[tree.root];
                    Err(not_an_image(&location.to_string(), root.artifact_type.as_deref()))
                }
                _ => Ok(inspection),
            }
        }
    };
    // Fails only if the runtime shuts down, or if the thread panicked.
    tokio::task::spawn_blocking(read)
        .await
        .unwrap_or_else(|error| Err(Error::Failed(error.to_string())))
}

/// The error for an artifact that has no image config.
pub(crate) fn not_an_image(name: &str, artifact_type: Option<&str>) -> Error {
    let kind = source::printable(artifact_type.unwrap_or("unknown"));
    Error::Usage(format!(
        "{name} is an artifact of the type {kind}, not an image: it can be pushed, but there is no \
         image to look at"
    ))
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
        let mut made: Option<DiffId> = None;
        if let Claim::Key(_) = layer.claim {
            let hashed = Hasher::read(layer.content);
            let (digest, read) =
                hashed.map_err(|error| source::Error::from_read(error, &layer.entry))?;
            (length, made) = (read, Some(digest.into()));
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
