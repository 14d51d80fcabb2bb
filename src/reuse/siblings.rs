//! What the images list that the destinations of a run stand for: a layer of one image of the run
//! may be in the repository of another. All images of the run share one table for each registry, and
//! it keeps few blobs of each layer, so its size does not grow with the square of their number.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::future::join_all;
use parking_lot::Mutex;

use super::previous::{Known, Previous, PreviousImages, Reading, ReadingKey};
use super::table::Table;
use crate::registry::Registry;

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
