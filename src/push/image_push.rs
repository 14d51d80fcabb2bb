//! The push of one image: what it needs, the results for its blobs, and why an attempt failed.

use std::time::Instant;

use super::archive::ArchiveResult;
use super::destination::Destination;
use super::input::{Input, Opened};
use super::options::{Item, PushOptions};
use super::run::Run;
use super::slot::IndexSlot;
use crate::error::Error;
use crate::event::Events;
use crate::image::{Digest, IndexEntry, is_foreign};
use crate::remote;
use crate::report::{LayerReport, Outcome, Report};
use crate::source::layout::Tree;
use crate::source::{Image, Location, Selection};

/// Which information an attempt relies on. There are at most two attempts, one with each value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Previous images, the cache, entry names, and what other images of the run pack.
    WhatIsKnown,
    /// Only what the registry has shown in this run.
    OnlyThisRun,
}

/// Why an attempt failed.
pub enum Failure {
    Final(Error),
    /// The attempt relied on wrong information, such as a blob that an earlier image lists and the
    /// registry does not have. Another attempt does not rely on it and may succeed.
    Untrue(Error),
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Final(error.into())
    }
}

/// An image that was pushed.
pub struct Pushed {
    pub report: Report,
    /// The entries that an index lists for this image.
    pub entries: Vec<IndexEntry>,
}

/// The push of one image of a run.
pub struct ImagePush<'a> {
    pub item: &'a Item,
    /// The image's number in the run.
    pub number: usize,
    pub run: &'a Run,
    /// The image's slot in an index, if it goes into one.
    pub slot: Option<&'a IndexSlot<'a>>,
    pub input: &'a Input,
    pub events: &'a Events,
    pub started: Instant,
}

/// An image whose blobs are all in the repository.
pub struct Brought {
    /// The manifests in all formats that are possible, the preferred format first.
    pub forms: Vec<Form>,
    /// What the cache should remember; only for an image whose manifest was made here.
    pub archive: Option<ArchiveResult>,
}

/// An image in one manifest format: its manifests, the blobs that they list, and its entries for an
/// index.
pub struct Form {
    pub tree: Tree,
    pub blobs: Vec<BlobResult>,
    pub entries: Vec<IndexEntry>,
}

/// A blob of an image, and its outcome.
pub enum BlobResult {
    Config { digest: Digest, size: u64, outcome: Outcome },
    Layer(LayerReport),
}

impl BlobResult {
    pub fn digest(&self) -> &Digest {
        match self {
            Self::Config { digest, .. } => digest,
            Self::Layer(layer) => &layer.digest,
        }
    }

    pub fn outcome(&self) -> &Outcome {
        match self {
            Self::Config { outcome, .. } => outcome,
            Self::Layer(layer) => &layer.outcome,
        }
    }

    /// Whether it is a foreign (non-distributable) layer.
    pub fn is_foreign(&self) -> bool {
        match self {
            Self::Config { .. } => false,
            Self::Layer(layer) => is_foreign(&layer.media_type),
        }
    }

    pub fn size(&self) -> u64 {
        match self {
            Self::Config { size, .. } => *size,
            Self::Layer(layer) => layer.size,
        }
    }
}

impl ImagePush<'_> {
    pub fn options(&self) -> &PushOptions {
        &self.run.options
    }

    pub async fn open(&self) -> Result<Opened, Error> {
        let selection = self.selection();
        match &self.item.image {
            Location::Registry(image) => {
                let options = &self.options().registry;
                let repository = remote::repository(image, options, self.events);
                let platform = selection.platform.as_ref();
                Ok(Opened::Layout(remote::tree(&repository, image, platform).await?))
            }
            Location::Path(_) | Location::Stdin => {
                self.input.open(selection, &self.run.cache, self.events).await
            }
        }
    }

    /// Which image of a layout to push. Without an explicit platform, it is the platform of the
    /// slot in the index.
    fn selection(&self) -> Selection {
        let mut selection = self.item.selection.clone();
        let expected = self.slot.and_then(|slot| slot.image.platform.clone());
        selection.platform = selection.platform.or(expected);
        selection
    }

    /// Chooses the image, and checks that it fits its slot in the index.
    pub fn pick(&self, destination: &Destination, images: &[Image]) -> Result<Image, Error> {
        let image = destination.pick(self.item, images)?;
        if let Some(slot) = self.slot {
            slot.take(image.config.platform())?;
        }
        Ok(image)
    }
}
