//! A compressed docker archive that is read twice: first to learn its images, which it lists only
//! at its end, then for the layers of these images.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::DockerArchiveError;
use super::streamed::StreamedArchive;
use crate::image::{DiffId, LayerId};
use crate::source::error::Error;
use crate::source::interface::{Claim, Image, Layer, Source};

/// Reads `first` to its end, and begins to read `second`, which is the same archive.
pub fn open(
    mut first: StreamedArchive,
    second: impl FnOnce() -> Result<StreamedArchive, Error>,
    name: Arc<str>,
) -> Result<Box<dyn Source>, Error> {
    while first.next_layer()?.is_some() {}
    let memory = first.memory();
    let stored = first.images().unwrap_or_default().to_vec();
    drop(first);
    let mut layers: Vec<LayerId> = stored.iter().flat_map(|image| image.layers.clone()).collect();
    layers.sort_unstable();
    layers.dedup();
    let numbers = layers.into_iter().enumerate();
    let numbers: HashMap<LayerId, LayerId> =
        numbers.map(|(number, id)| (id, LayerId(number))).collect();
    let mut diff_ids = HashMap::new();
    let mut images = stored.clone();
    for image in &mut images {
        for (id, diff_id) in image.layers.iter_mut().zip(image.config.diff_ids()) {
            // Does not panic: every layer of every image was numbered.
            *id = numbers[id];
            diff_ids.insert(*id, diff_id.clone());
        }
    }
    let archive = second()?;
    Ok(Box::new(ReadTwice { name, archive, memory, stored, images, numbers, diff_ids }))
}

struct ReadTwice {
    name: Arc<str>,
    archive: StreamedArchive,
    /// The memory that reading takes, including that for layers that are decompressed.
    memory: usize,
    /// The images as the first reading found them.
    stored: Vec<Image>,
    /// The same images with other ids, which count only layers that belong to an image.
    images: Vec<Image>,
    numbers: HashMap<LayerId, LayerId>,
    diff_ids: HashMap<LayerId, DiffId>,
}

impl Source for ReadTwice {
    fn images(&self) -> Option<&[Image]> {
        Some(&self.images)
    }

    fn memory(&self) -> usize {
        self.memory
    }

    fn next_layer(&mut self) -> Result<Option<Layer<'_>>, Error> {
        let number = loop {
            let Some(found) = self.archive.next_candidate()? else {
                self.check()?;
                return Ok(None);
            };
            if let Some(number) = self.numbers.get(&found.id) {
                break (*number, found);
            }
        };
        let (id, found) = number;
        // Does not panic: every number was given together with a diff ID.
        let claim = Claim::DiffId(self.diff_ids[&id].clone());
        Ok(Some(Layer { id, claim, ..self.archive.layer(found) }))
    }
}

impl ReadTwice {
    /// Fails if the two readings found different images.
    fn check(&mut self) -> Result<(), Error> {
        // There are no more layers. This call puts the images together.
        self.archive.next_layer()?;
        let again = self.archive.images().unwrap_or_default();
        let is_same = |(one, other): (&Image, &Image)| {
            one.config.digest() == other.config.digest()
                && one.layers == other.layers
                && one.names == other.names
        };
        let same = self.stored.len() == again.len() && self.stored.iter().zip(again).all(is_same);
        match same {
            true => Ok(()),
            false => Err(DockerArchiveError::Changed { file: self.name.clone() }.into()),
        }
    }
}
