//! Which blobs previous images list for each diff ID.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::join_all;

use super::previous::{Previous, PreviousReading, Row};
use crate::event::{Event, Events};
use crate::image::{Blob, DiffId, LayerKey};

/// The blobs that previous images list for each diff ID. Blobs of the images that were read first
/// come first.
#[derive(Default)]
pub(super) struct KnownLayers {
    pub layers: HashMap<DiffId, Vec<(Blob, Arc<Previous>)>>,
    pub made: HashMap<LayerKey, DiffId>,
}

impl KnownLayers {
    /// Reads the tables of all these images at once. If an image cannot be read, it is left out
    /// with a note.
    pub async fn read(readings: &[Arc<PreviousReading>], trusted: bool, events: &Events) -> Self {
        let all = join_all(readings.iter().map(|reading| reading.layers.clone())).await;
        let mut table = Self::default();
        for (rows, reading) in all.iter().zip(readings) {
            match &**rows {
                Ok(rows) => table.add(rows, &reading.image, usize::MAX, trusted),
                Err(why) => events(Event::Note(format!(
                    "nothing is reused of {}: {why}",
                    reading.image.name()
                ))),
            }
        }
        table
    }

    /// Adds what an image lists, unless `most` images list it for the same diff ID already. What it
    /// says its layers were made of counts only if it is trusted.
    pub fn add(&mut self, rows: &[Row], image: &Arc<Previous>, most: usize, trusted: bool) {
        for Row { diff_id, blob, key } in rows {
            let known = self.layers.entry(diff_id.clone()).or_default();
            if known.len() < most {
                known.push((blob.clone(), image.clone()));
            }
            if let Some(key) = key.as_ref().filter(|_| trusted) {
                self.made.entry(key.clone()).or_insert_with(|| diff_id.clone());
            }
        }
    }
}
