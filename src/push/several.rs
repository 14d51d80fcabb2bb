//! Several images in one go: each by itself, or under an index of their platforms.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream;

use super::destination::Destination;
use super::together::Together;
use super::{Index, IndexItem, Item, PushOptions, Pushed, push_one, report};
use crate::error::Error;
use crate::event::{Event, Events};
use crate::image::{IndexEntry, Manifest, Platform};
use crate::report::Report;

/// How many images are worked on at the same time. What takes memory, reading and packing, is shared
/// by them or done in turns.
const AT_ONCE: usize = 16;

/// Whom to tell: of the image with this place in the list, or with `None` of what concerns all.
pub type EventsOf<'a> = &'a (dyn Fn(Option<usize>) -> Events + Sync);

/// Pushes several images at once: what they share is read, compressed and uploaded once, and mounted
/// into the repositories of the others. The results are in the order of the items.
///
/// One failure does not stop the others, unless [`PushOptions::fail_fast`] is set: then those that
/// are not pushed by then are [given up](Error::GivenUp).
pub async fn push_all(
    items: &[Item],
    options: &PushOptions,
    events_of: EventsOf<'_>,
) -> Vec<Result<Report, Error>> {
    let common = events_of(None);
    let together = Together::new(options, items, common.clone());
    let pushes = items.iter().enumerate().map(|(place, item)| {
        let (together, events) = (&together, events_of(Some(place)));
        async move {
            let pushed = push_one(item, place, options, together, None, &events).await;
            (place, pushed.map(|pushed| pushed.report))
        }
    });
    let mut results: Vec<_> = items.iter().map(|_| Err(Error::GivenUp)).collect();
    let mut pushing = stream::iter(pushes).buffer_unordered(AT_ONCE);
    while let Some((place, result)) = pushing.next().await {
        let failed = result.is_err();
        results[place] = result;
        if failed && options.fail_fast {
            break;
        }
    }
    drop(pushing);
    together.close(&common).await;
    results
}

/// Pushes the images of an index by their digests, and then the index under its tags: an error
/// leaves the tags as they were.
pub async fn push_index(
    index: &Index,
    options: &PushOptions,
    events_of: EventsOf<'_>,
) -> Result<Report, Error> {
    let began = Instant::now();
    let common = events_of(None);
    let items: Vec<Item> = index.images.iter().map(|image| image.item(index)).collect();
    let together = Together::new(options, &items, common.clone());
    let platforms = Platforms::default();
    let places: Vec<Place<'_>> = index
        .images
        .iter()
        .enumerate()
        .map(|(place, image)| Place { place, image, platforms: &platforms })
        .collect();
    let pushes = items.iter().zip(&places).map(|(item, place)| {
        let (together, events) = (&together, events_of(Some(place.place)));
        async move { push_one(item, place.place, options, together, Some(place), &events).await }
    });
    let pushed = async {
        let pushed: Vec<Pushed> = futures::future::try_join_all(pushes).await?;
        put_index(index, options, &together, &common, pushed, began).await
    };
    let report = pushed.await;
    together.close(&common).await;
    report
}

async fn put_index(
    index: &Index,
    options: &PushOptions,
    together: &Together,
    events: &Events,
    pushed: Vec<Pushed>,
    began: Instant,
) -> Result<Report, Error> {
    let destination = Destination::new(index.destination.clone(), &index.tags, false);
    let entries: Vec<IndexEntry> = pushed.iter().flat_map(|image| image.listed.clone()).collect();
    let manifest = Manifest::index(entries.clone())?;
    destination.check(&manifest.digest)?;
    let mut sent = 0;
    if !options.dry_run {
        let repository = together.registry(destination.host()).repository(destination.repository());
        events(Event::Tagging);
        let references = destination.references(&manifest.digest);
        let puts = references.iter().map(|tag| repository.put_manifest(tag, &manifest));
        super::all_put(&references, join_all(puts).await)?;
        sent = repository.bytes_sent();
    }
    let images = pushed.into_iter().map(|image| image.report).collect();
    let took = began.elapsed();
    Ok(report::of_index(&destination, &manifest, &entries, images, sent, took))
}

impl IndexItem {
    fn item(&self, index: &Index) -> Item {
        Item {
            image: self.image.clone(),
            selection: self.selection.clone(),
            destination: Some(index.destination.clone()),
            tags: index.tags.clone(),
        }
    }
}

/// The platforms of an index, and the place of the image that has each.
type Platforms = Mutex<HashMap<Platform, usize>>;

/// An image's place in an index.
pub struct Place<'a> {
    place: usize,
    image: &'a IndexItem,
    platforms: &'a Platforms,
}

impl Place<'_> {
    /// Takes the place of a platform, which must be the one expected and no other image's.
    pub fn take(&self, platform: &Platform) -> Result<(), Error> {
        if let Some(expected) = &self.image.platform
            && !expected.matches(platform)
        {
            return Err(Error::Usage(format!(
                "{} is an image for {platform}, not for {expected}; was the wrong file given?",
                self.image.image
            )));
        }
        // A map is whole between any two of its operations.
        let mut platforms = self.platforms.lock().unwrap_or_else(PoisonError::into_inner);
        match *platforms.entry(platform.clone()).or_insert(self.place) {
            first if first == self.place => Ok(()),
            first => Err(Error::Usage(format!(
                "two images of the index are for {platform}: the {} and the {}; an index has one for \
                 each platform",
                ordinal(first.min(self.place) + 1),
                ordinal(first.max(self.place) + 1),
            ))),
        }
    }
}

fn ordinal(number: usize) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}
