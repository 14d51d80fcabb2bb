//! The previous images of a run, which all its images share.
//!
//! A layer of one image may be in the repository of another image. So there is one table for each
//! registry, with the layers of all images that the run's destinations point to. It keeps only a
//! few blobs of each layer; otherwise its size would grow with the square of the number of images.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream;
use parking_lot::Mutex;

use super::previous::{KnownAtRead, Previous, PreviousReading, ReadingKey};
use super::table::KnownLayers;
use crate::image::Digest;
use crate::registry::Registry;

/// The previous images of a run. Each is read once, as long as an image of the run uses it.
#[derive(Default)]
pub(crate) struct PreviousImages {
    readings: Mutex<HashMap<ReadingKey, Weak<PreviousReading>>>,
    /// Images that were read early. Each is kept until the image that replaces it uses it.
    early: Mutex<HashMap<ReadingKey, Arc<PreviousReading>>>,
    /// The digest of each image when it was read, by the image's name.
    digests: Arc<Mutex<HashMap<Arc<str>, Digest>>>,
    /// The layers of the images that the run's destinations point to.
    pub(super) siblings: Siblings,
}

/// How many images are read at the same time: as many as there may be small requests to a distant
/// registry.
const AT_ONCE: usize = 128;

/// How many images are kept for a diff ID. A mount is tried from at most two of them.
const KEPT: usize = 4;

/// Returns the images that the destinations of the run's other images point to.
pub(crate) type Destinations = Box<dyn Fn() -> Vec<Previous> + Send + Sync>;

/// The tables, by registry.
#[derive(Default)]
pub(super) struct Siblings {
    tables: Mutex<HashMap<String, KnownLayers>>,
    /// The images that were added to the tables, or that cannot be read.
    added: Mutex<HashSet<ReadingKey>>,
}

impl Siblings {
    /// Waits until an image has been read, and adds its layers. If it cannot be read, the push that
    /// replaces it reports that.
    pub async fn add(&self, reading: &PreviousReading, key: ReadingKey, trusted: bool) {
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

    /// Searches the table of a registry.
    pub fn of<T: Default>(
        &self,
        registry: &Registry,
        look_up: impl FnOnce(&KnownLayers) -> T,
    ) -> T {
        self.tables.lock().get(registry.host()).map(look_up).unwrap_or_default()
    }
}

impl PreviousImages {
    pub(super) fn read(&self, image: &Previous, known: &KnownAtRead) -> Arc<PreviousReading> {
        let mut readings = self.readings.lock();
        let reading = readings.entry(known.key(image)).or_default();
        reading.upgrade().unwrap_or_else(|| {
            let begun = PreviousReading::begin(image.clone(), known.clone(), self.digests.clone());
            let begun = Arc::new(begun);
            *reading = Arc::downgrade(&begun);
            begun
        })
    }

    /// Reads a previous image early: for an image of the run that does not replace it.
    pub(super) fn read_early(&self, image: &Previous, known: &KnownAtRead) -> Arc<PreviousReading> {
        let reading = self.read(image, known);
        if Arc::strong_count(&reading) == 1 {
            self.early.lock().insert(known.key(image), reading.clone());
        }
        reading
    }

    /// Reads a previous image for the image of the run that replaces it.
    pub(super) fn read_own(&self, image: &Previous, known: &KnownAtRead) -> Arc<PreviousReading> {
        let reading = self.read(image, known);
        self.early.lock().remove(&known.key(image));
        reading
    }

    /// The digest that a reference points to now. `None` if it does not exist or cannot be read.
    pub async fn digest(&self, image: &Previous) -> Option<Digest> {
        let readings: Vec<Arc<PreviousReading>> = {
            let (name, all) = (image.name(), self.readings.lock());
            let same = all.iter().filter(|((theirs, _), _)| theirs == name);
            same.filter_map(|(_, reading)| reading.upgrade()).collect()
        };
        join_all(readings.iter().map(|reading| reading.manifests.clone())).await;
        self.digests.lock().get(image.name()).cloned()
    }

    /// Reads the destinations that have not been read yet.
    pub(super) async fn read_siblings(
        self: &Arc<Self>,
        destinations: &Destinations,
        known: &KnownAtRead,
        trusted: bool,
    ) {
        let missing: Vec<Previous> = {
            let added = self.siblings.added.lock();
            let all = destinations().into_iter();
            all.filter(|image| !added.contains(&known.key(image))).collect()
        };
        let read = |image: Previous| async move {
            let reading = self.read_early(&image, known);
            self.siblings.add(&reading, known.key(&image), trusted).await;
        };
        stream::iter(missing).map(read).buffer_unordered(AT_ONCE).collect::<()>().await;
    }
}
