//! An image that is open, to be brought to a machine, and what became of its layers.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Error;
use crate::event::{Event, Events};
use crate::image::{Compression, Digest, LayerId, Manifest, Platform, Reference};
use crate::push::IndexItem;
use crate::report::{Known, LayerReport, Outcome};
use crate::reuse::Cache;
use crate::serve::{self, Catalog, Offer, PullName, ServeOptions, ServedBlob, ServedPart, Which};

/// An image that is open. Its layers are as they are, without compression; those of a layout as they
/// are stored.
pub struct HostImage {
    pub catalog: Arc<Catalog>,
    pub manifest: Manifest,
    pub part: ServedPart,
    /// The config, and the layers that come with the image.
    blobs: HashMap<Digest, Arc<ServedBlob>>,
}

impl HostImage {
    /// Opens the image. `name` chooses one of several, and `platform` one of an index.
    pub async fn open(
        image: &IndexItem,
        name: &Reference,
        platform: Option<Platform>,
        may_run: bool,
        cache: &Arc<Cache>,
        events: &Events,
    ) -> Result<Self, Error> {
        let tag = name.tag().unwrap_or("latest").to_owned();
        let called = PullName { repository: name.repository().to_owned(), tag };
        let offer = Offer {
            image: image.image.clone(),
            selection: image.selection.clone(),
            name: Some(called.clone()),
        };
        let which = Which::One { name: name.clone(), platform };
        let options = ServeOptions { may_run, ..ServeOptions::default() };
        let catalog = serve::open(&[offer], &which, &options, cache, events).await?;
        let only = catalog.images.first().map(|image| image.parts.as_slice());
        let repository = catalog.repositories.get(&called.repository);
        let (Some([part]), Some(repository)) = (only, repository) else {
            return Err(Error::Usage(format!(
                "{} is no image that a runtime could take; choose one with --platform or \
                 PATH@sha256:…",
                image.image
            )));
        };
        let Some(served) = repository.manifests.get(&part.manifest) else {
            return Err(Error::Failed(format!("{}: it has no manifest", image.image)));
        };
        let (media_type, bytes) = (served.media_type.clone(), served.bytes.clone());
        let manifest = Manifest { media_type, bytes, digest: part.manifest.clone() };
        let (part, blobs) = (part.clone(), repository.blobs.clone());
        Ok(Self { catalog: Arc::new(catalog), manifest, part, blobs })
    }

    /// The config, or a layer.
    pub fn blob(&self, digest: &Digest) -> Result<&Arc<ServedBlob>, Error> {
        self.blobs.get(digest).ok_or_else(|| {
            Error::Usage(format!(
                "the bytes of layer {digest} are not in the image, and the machine does not have it"
            ))
        })
    }

    pub fn layer_name(&self, layer: LayerId) -> &str {
        let layer = &self.part.layers[layer.0];
        let package = self.blobs.get(&layer.blob).and_then(|blob| blob.name.as_deref());
        package.unwrap_or_else(|| layer.diff_id.digest().short())
    }

    /// The layers of a digest.
    pub fn layers_of(&self, blob: &Digest) -> impl Iterator<Item = LayerId> {
        let layers = self.part.layers.iter().enumerate();
        layers.filter(move |(_, layer)| layer.blob == *blob).map(|(place, _)| LayerId(place))
    }

    /// Tells what became of a layer, and returns it. One that is the same as an earlier one is not
    /// sent again.
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
        events(Event::LayerSettled { layer, report: report.clone() });
        report
    }

    /// All layers, lowest first.
    pub fn layers(&self) -> impl Iterator<Item = LayerId> + use<> {
        (0..self.part.layers.len()).map(LayerId)
    }
}
