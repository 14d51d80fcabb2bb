//! An open image that is sent to a machine, and the results for its layers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::Error;
use crate::event::{Event, Events};
use crate::image::{Compression, Digest, Format, Hasher, LayerId, Manifest, Platform, Reference};
use crate::report::{Known, LayerReport, Outcome};
use crate::reuse::Cache;
use crate::serve::{
    self, Catalog, Offer, PullName, ServeOptions, ServedBlob, ServedLayer, ServedPart, Which,
};
use crate::source::layout::LayoutError;
use crate::source::{self, LayerMismatch, Location, Selection};

/// An open image. Its layers are not compressed, except in a layout, where they are used as stored.
pub struct HostImage {
    /// The image's file, for messages.
    pub file: String,
    pub catalog: Arc<Catalog>,
    pub manifest: Manifest,
    pub part: ServedPart,
    /// The config, and the layers that the image contains.
    blobs: HashMap<Digest, Arc<ServedBlob>>,
    /// The layers whose result was reported. An attempt may send a layer again.
    settled: Mutex<HashSet<LayerId>>,
}

impl HostImage {
    /// Opens the image. `name` chooses one of several images, and `platform` one of an index.
    pub async fn open(
        (image, selection): (&Location, &Selection),
        name: &Reference,
        platform: Option<Platform>,
        may_run: bool,
        events: &Events,
    ) -> Result<Self, Error> {
        let tag = name.tag().unwrap_or("latest").to_owned();
        let called = PullName { repository: name.repository().to_owned(), tag };
        let offer = Offer {
            image: image.clone(),
            selection: selection.clone(),
            name: Some(called.clone()),
        };
        let which = Which::One { name: name.clone(), platform };
        let format = Some(Format::Oci);
        let options = ServeOptions { may_run, format, ..ServeOptions::default() };
        // Without a cache, because what it says about store paths may be outdated.
        let cache = Arc::new(Cache::disabled());
        let catalog = serve::open(&[offer], &which, &options, &cache, events).await?;
        let only = catalog.images.first().map(|image| image.parts.as_slice());
        let repository = catalog.repositories.get(&called.repository);
        let (Some([part]), Some(repository)) = (only, repository) else {
            return Err(Error::Usage(format!(
                "{image} is no image that a runtime could take; choose one with --platform or \
                 PATH@sha256:…"
            )));
        };
        let Some(served) = repository.manifests.get(&part.manifest) else {
            return Err(Error::Failed(format!("{image}: it has no manifest")));
        };
        let (media_type, bytes) = (served.media_type.clone(), served.bytes.clone());
        let manifest = Manifest { media_type, bytes, digest: part.manifest.clone() };
        let (part, blobs) = (part.clone(), repository.blobs.clone());
        let (file, catalog) = (image.to_string(), Arc::new(catalog));
        Ok(Self { file, catalog, manifest, part, blobs, settled: Mutex::default() })
    }

    /// The config, or a layer.
    pub fn blob(&self, digest: &Digest) -> Result<&Arc<ServedBlob>, Error> {
        self.blobs.get(digest).ok_or_else(|| {
            Error::Usage(format!(
                "{}: the bytes of layer {digest} are not in the image, and the machine does not have \
                 it",
                self.file
            ))
        })
    }

    /// Whether the image contains a layer's bytes. A foreign layer may be missing.
    pub fn contains(&self, layer: LayerId) -> bool {
        self.blobs.contains_key(&self.part.layers[layer.0].blob)
    }

    pub fn layer_name(&self, layer: LayerId) -> &str {
        let layer = &self.part.layers[layer.0];
        let package = self.blobs.get(&layer.blob).and_then(|blob| blob.name.as_deref());
        package.unwrap_or_else(|| layer.diff_id.digest().short())
    }

    /// The layers whose blob has this digest.
    pub fn layers_of(&self, blob: &Digest) -> impl Iterator<Item = LayerId> {
        let layers = self.part.layers.iter().enumerate();
        layers.filter(move |(_, layer)| layer.blob == *blob).map(|(place, _)| LayerId(place))
    }

    /// Reports the result for a layer, and returns it. If a layer is equal to an earlier one, it is
    /// not sent again.
    pub fn settle(&self, layer: LayerId, outcome: Outcome, events: &Events) -> LayerReport {
        let is_first = self.layers_of(&self.part.layers[layer.0].blob).next() == Some(layer);
        let outcome = match is_first {
            true => outcome,
            false => Outcome::Reused { why: Known::SameAsLayer },
        };
        let served = &self.part.layers[layer.0];
        let report = LayerReport {
            name: self.layer_name(layer).into(),
            diff_id: Some(served.diff_id.clone()),
            digest: served.blob.clone(),
            size: served.size,
            media_type: served.media_type.as_str().into(),
            compression: Compression::of_media_type(&served.media_type)
                .unwrap_or(Compression::None),
            outcome,
        };
        if self.settled.lock().insert(layer) {
            events(Event::LayerDone { layer, report: report.clone() });
        }
        report
    }

    /// Whether all layers are compressed.
    pub fn is_compressed(&self) -> bool {
        let compression = |layer: &ServedLayer| Compression::of_media_type(&layer.media_type);
        self.part.layers.iter().all(|layer| compression(layer) != Some(Compression::None))
    }

    /// Reads a layer to its end, and returns an error if its digest is wrong. Blocks.
    pub fn check(&self, layer: LayerId) -> Result<(), Error> {
        let blob = self.blob(&self.part.layers[layer.0].blob)?;
        let mut content = blob.reader()?;
        let (actual, _) = Hasher::read(&mut content)
            .map_err(|error| source::Error::from_read(error, &blob.entry))?;
        self.compare(layer, actual)
    }

    /// An error if a layer's bytes have the wrong digest.
    pub fn compare(&self, layer: LayerId, actual: Digest) -> Result<(), Error> {
        let served = &self.part.layers[layer.0];
        if actual == served.blob {
            return Ok(());
        }
        let (file, listed) = (self.file.clone(), served.diff_id.clone());
        if *listed.digest() != served.blob {
            let (file, listed) = (file.into(), served.blob.clone());
            return Err(
                source::Error::from(LayoutError::DamagedBlob { file, listed, actual }).into()
            );
        }
        let (entry, actual) = (self.blob(&served.blob)?.entry.clone(), actual.into());
        let layer = layer.0 + 1;
        Err(source::Error::from(LayerMismatch { file, layer, entry, listed, actual }).into())
    }

    /// All layers, lowest first.
    pub fn layers(&self) -> impl Iterator<Item = LayerId> + use<> {
        (0..self.part.layers.len()).map(LayerId)
    }
}
