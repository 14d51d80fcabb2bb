//! Several images in one run: each by itself, or under an index of their platforms.

use std::time::Instant;

use futures::StreamExt;
use futures::stream;

use super::destination::Destination;
use super::image_push::Pushed;
use super::manifests::PutTarget;
use super::options::{Index, IndexItem, Item, PushOptions};
use super::run::Run;
use super::slot::{IndexSlot, Platforms};
use super::{push_image, report};
use crate::error::Error;
use crate::event::Events;
use crate::image::{IndexEntry, Manifest};
use crate::report::Report;
use crate::ssh::HostPush;

/// How many images are pushed at the same time. They share the threads that pack, and sources that
/// need much memory are read one after another.
const AT_ONCE: usize = 16;

/// Returns the sink for the events of the image with this number, or with `None` the sink for
/// events of the whole run.
pub type EventsOf<'a> = &'a (dyn Fn(Option<usize>) -> Events + Sync);

/// Pushes several images at once. A layer that they share is read, compressed and uploaded once,
/// and mounted into the other repositories. The results are in the order of the items.
///
/// One failure does not stop the others, unless [`PushOptions::fail_fast`] is set: then the images
/// that are not finished are [given up](Error::GivenUp).
pub async fn push_all(
    items: &[Item],
    options: &PushOptions,
    events_of: EventsOf<'_>,
) -> Vec<Result<Report, Error>> {
    let common = events_of(None);
    let run = Run::new(options, items, common);
    let pushes = items.iter().enumerate().map(|(number, item)| {
        let (run, events) = (&run, events_of(Some(number)));
        async move {
            let pushed = push_image(item, number, run, None, &events).await;
            (number, pushed.map(|pushed| pushed.report))
        }
    });
    let mut results: Vec<_> = items.iter().map(|_| Err(Error::GivenUp)).collect();
    let mut pushing = stream::iter(pushes).buffer_unordered(AT_ONCE);
    while let Some((number, result)) = pushing.next().await {
        let failed = result.is_err();
        results[number] = result;
        if failed && options.fail_fast {
            break;
        }
    }
    drop(pushing);
    run.close().await;
    results
}

/// Pushes the images of an index by their digests, and then the index under its tags. An error
/// leaves the tags unchanged.
pub async fn push_index(
    index: &Index,
    options: &PushOptions,
    events_of: EventsOf<'_>,
) -> Result<Report, Error> {
    let began = Instant::now();
    let common = events_of(None);
    let items: Vec<Item> = index.images.iter().map(|image| image.item(index)).collect();
    let run = Run::new(options, &items, common.clone());
    let report = match HostPush::of_index(index, options, &common) {
        Some(to_host) => to_host.run().await,
        None => push_images(index, &items, &run, events_of, began).await,
    };
    run.close().await;
    report
}

/// Pushes the images and then the index.
async fn push_images(
    index: &Index,
    items: &[Item],
    run: &Run,
    events_of: EventsOf<'_>,
    began: Instant,
) -> Result<Report, Error> {
    let platforms = Platforms::default();
    let slots: Vec<IndexSlot<'_>> = index
        .images
        .iter()
        .enumerate()
        .map(|(number, image)| IndexSlot { number, image, platforms: &platforms })
        .collect();
    let pushes = items.iter().zip(&slots).map(|(item, slot)| {
        let events = events_of(Some(slot.number));
        async move { push_image(item, slot.number, run, Some(slot), &events).await }
    });
    let pushed: Vec<Pushed> = futures::future::try_join_all(pushes).await?;
    put_index(index, run, &events_of(None), pushed, began).await
}

async fn put_index(
    index: &Index,
    run: &Run,
    events: &Events,
    pushed: Vec<Pushed>,
    began: Instant,
) -> Result<Report, Error> {
    let destination = Destination::new(index.destination.clone(), &index.tags, false);
    let entries: Vec<IndexEntry> = pushed.iter().flat_map(|image| image.entries.clone()).collect();
    let manifest = Manifest::index(entries.clone())?;
    destination.check(&manifest.digest)?;
    let mut sent = 0;
    if !run.options.dry_run {
        let repository = run.repository(&destination);
        PutTarget::new(&repository, &destination, &run.previous, events).put(&manifest).await?;
        sent = repository.bytes_sent();
    }
    let images = pushed.into_iter().map(|image| image.report).collect();
    let took = began.elapsed();
    Ok(report::of_index(&destination, &manifest, &entries, images, sent, took))
}

impl IndexItem {
    /// The image as an item of a push.
    pub(crate) fn item(&self, index: &Index) -> Item {
        Item {
            image: self.image.clone(),
            selection: self.selection.clone(),
            destination: Some(index.destination.clone()),
            tags: index.tags.clone(),
            host: index.host.clone(),
        }
    }
}
