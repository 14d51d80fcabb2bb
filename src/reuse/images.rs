//! The previous images of a run, which all its images share.
//!
//! A layer of one image may be in the repository of another. So there is one table for each registry
//! of what the images list that the run's destinations stand for. It keeps few blobs of each layer:
//! its size does not grow with the square of the number of images.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use futures::future::join_all;
use parking_lot::Mutex;

use super::previous::{Known, Previous, Reading, ReadingKey};
use super::table::Table;
use crate::image::Digest;
use crate::registry::Registry;

/// The previous images of a run. Each is read once while an image of the run has use for it.
#[derive(Default)]
pub(crate) struct PreviousImages {
    readings: Mutex<HashMap<ReadingKey, Weak<Reading>>>,
    /// Those that were read before the image came whose destination they stand for.
    early: Mutex<HashMap<ReadingKey, Arc<Reading>>>,
    /// What they stood for when they were read, by their names.
    digests: Arc<Mutex<HashMap<Arc<str>, Digest>>>,
    /// What those have listed that the destinations of the run stand for.
    pub(super) siblings: Siblings,
}

/// How many images are kept for a diff ID: if a mount from two is refused, none is tried from more.
const KEPT: usize = 4;

/// Names the images that the destinations of a run's other images stand for.
pub(crate) type Destinations = Box<dyn Fn() -> Vec<Previous> + Send + Sync>;

/// The tables, by registry.
#[derive(Default)]
pub(super) struct Siblings {
    tables: Mutex<HashMap<String, Table>>,
    /// The images that are in them, or that cannot be read.
    added: Mutex<HashSet<ReadingKey>>,
}

impl Siblings {
    /// Adds what an image lists once it has been read. Whether it can be is its own push's concern.
    pub async fn add(&self, reading: &Reading, key: ReadingKey, trusted: bool) {
        let rows = reading.layers.clone().await;
        let is_new = self.added.lock().insert(key);
        if let Ok(rows) = &*rows
            && is_new
        {
            let host = reading.image.repository.registry().host();
            let mut tables = self.tables.lock();
            let table = tables.entry(host.to_owned()).or_default();
            table.add(rows, &reading.image, KEPT, trusted);
        }
    }

    /// What `look_up` finds in the table of a registry.
    pub fn of<T: Default>(&self, registry: &Registry, look_up: impl FnOnce(&Table) -> T) -> T {
        self.tables.lock().get(registry.host()).map(look_up).unwrap_or_default()
    }
}

impl PreviousImages {
    pub(super) fn read(&self, image: &Previous, known: &Known) -> Arc<Reading> {
        let mut readings = self.readings.lock();
        let reading = readings.entry(known.key(image)).or_default();
        reading.upgrade().unwrap_or_else(|| {
            let begun = Reading::begin(image.clone(), known.clone(), self.digests.clone());
            let begun = Arc::new(begun);
            *reading = Arc::downgrade(&begun);
            begun
        })
    }

    /// Reads the image for another than the one that replaces it, for which it is kept.
    pub(super) fn read_early(&self, image: &Previous, known: &Known) -> Arc<Reading> {
        let reading = self.read(image, known);
        if Arc::strong_count(&reading) == 1 {
            self.early.lock().insert(known.key(image), reading.clone());
        }
        reading
    }

    /// Reads the image for the one that replaces it.
    pub(super) fn read_own(&self, image: &Previous, known: &Known) -> Arc<Reading> {
        let reading = self.read(image, known);
        self.early.lock().remove(&known.key(image));
        reading
    }

    /// The digest that a reference stands for now; `None` if there is none or it cannot be read.
    pub async fn digest(&self, image: &Previous) -> Option<Digest> {
        let readings: Vec<Arc<Reading>> = {
            let (name, all) = (image.name(), self.readings.lock());
            let same = all.iter().filter(|((theirs, _), _)| theirs == name);
            same.filter_map(|(_, reading)| reading.upgrade()).collect()
        };
        join_all(readings.iter().map(|reading| reading.manifests.clone())).await;
        self.digests.lock().get(image.name()).cloned()
    }

    /// Reads those of the destinations that nobody has read yet.
    pub(super) async fn read_siblings(
        self: &Arc<Self>,
        destinations: &Destinations,
        known: &Known,
        trusted: bool,
    ) {
        let missing: Vec<Previous> = {
            let added = self.siblings.added.lock();
            let all = destinations().into_iter();
            all.filter(|image| !added.contains(&known.key(image))).collect()
        };
        join_all(missing.iter().map(async |image| {
            let reading = self.read_early(image, known);
            self.siblings.add(&reading, known.key(image), trusted).await;
        }))
        .await;
    }
}
