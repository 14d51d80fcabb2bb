//! An image whose layers are read one after another, and whose manifest is made here.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;

use futures::try_join;

use super::ahead;
use super::blobs::{RepositoryBlobs, Upload};
use super::content::InMemory;
use super::image_push::{BlobResult, Brought, Failure, Form, ImagePush, Trust};
use super::input::Images;
use super::layers::{LayerResults, Layers};
use super::manifests::PutTarget;
use super::read;
use crate::error::Error;
use crate::event::{self, Event};
use crate::image::{Blob, Compression, Config, Format, IndexEntry, Manifest, ManifestLayer};
use crate::pack::Packer;
use crate::report::Outcome;
use crate::reuse::{CachedImage, Reuse};
use crate::source::layout::{Node, Tree};
use crate::source::{Contents, Image, LayerId, Source};

/// The result of reading an image.
pub struct ArchiveResult {
    image: Image,
    config: Outcome,
    layers: LayerResults,
    /// Whether the source holds other images, too.
    has_others: bool,
}

/// Brings the image's layers and its config, and makes its manifest.
pub async fn bring(
    push: &ImagePush<'_>,
    images: Images,
    target: &PutTarget<'_>,
    known: &Reuse,
    trust: Trust,
) -> Result<Brought, Failure> {
    let early = images.images().map(|images| push.pick(target.destination, images)).transpose()?;
    let keys = images.keys();
    let diff_ids = early.as_ref().map_or(&[][..], |image| image.config.diff_ids());
    known.expect(diff_ids, &keys).await;
    let ledger = push.run.ledger.of(target.repository, push.number, push.events);
    let layers = Layers::new(push, trust, known, &ledger, early.as_ref(), keys);
    let bringing = Bringing { push, target, known, ledger: &ledger, layers: &layers, trust };
    let archive = match images {
        Images::Remembered(images) => bringing.remembered(&images).await?,
        Images::Source(source) => bringing.read(source).await?,
    };
    known.forget(&ledger.refused());
    let listed = layers.verify(&archive.image, &archive.layers)?;
    let format = push.options().format.unwrap_or_else(|| fitting_format(&listed));
    let mut forms = vec![archive.form(&listed, format)?];
    if format == Format::Oci {
        // A fallback for a registry that rejects OCI media types, if Docker's media types can
        // describe the layers.
        forms.extend(archive.form(&listed, Format::Docker).ok());
    }
    Ok(Brought { forms, archive: Some(archive) })
}

/// Docker's format, or OCI's if Docker's cannot describe the layers.
fn fitting_format(layers: &[ManifestLayer]) -> Format {
    let beyond_docker =
        |layer: &ManifestLayer| layer.blob.compression == Compression::Zstd || layer.key.is_some();
    if layers.iter().any(beyond_docker) { Format::Oci } else { Format::Docker }
}

struct Bringing<'a> {
    push: &'a ImagePush<'a>,
    target: &'a PutTarget<'a>,
    known: &'a Reuse,
    ledger: &'a RepositoryBlobs<'a>,
    layers: &'a Layers<'a>,
    trust: Trust,
}

impl Bringing<'_> {
    /// Reads the image. Its layers and its config are brought at the same time.
    async fn read(&self, source: Box<dyn Source>) -> Result<ArchiveResult, Failure> {
        let pick = |images: &[Image]| {
            let image = self.push.pick(self.target.destination, images)?;
            Ok::<_, Error>((image, images.len() > 1))
        };
        let early = source.images().map(pick).transpose()?;
        if let Some((image, _)) = &early {
            (self.push.events)(Event::LayerCount(image.layers.len()));
        }
        let (packer, _permit) = self.push.run.packer(source.memory()).await?;
        let wanted = early.as_ref().map(|(image, _)| image);
        let ahead = self.ahead(wanted.cloned(), packer.clone());
        let (mut incoming, reading) = read::start(&self.push.item.image, source, packer, wanted)?;
        let config = async {
            // In a stream, the config comes after the layers.
            let Some((image, has_others)) = early else {
                let (image, has_others) = pick(&reading.images().await?)?;
                (self.push.events)(Event::LayerCount(image.layers.len()));
                let config = self.config(&image.config).await?;
                return Ok((image, has_others, config));
            };
            let (config, _) = try_join!(self.config(&image.config), reading.images())?;
            Ok((image, has_others, config))
        };
        let bringing = async { try_join!(config, self.layers.bring_all(&mut incoming)) };
        let ((image, has_others, config), layers) = tokio::select! {
            brought = bringing => brought?,
            never = ahead => match never {},
        };
        Ok(ArchiveResult { image, config, layers, has_others })
    }

    /// Brings the last layers of an image early, if the registry is distant and has not yet said
    /// what it has. This future never completes; it is dropped when the push ends.
    async fn ahead(&self, image: Option<Image>, packer: Packer) -> Infallible {
        let (push, registry) = (self.push, self.target.repository.registry());
        let is_useful = push.run.is_single() && !push.options().dry_run;
        let bring = async {
            let image = image.filter(|_| is_useful && self.trust == Trust::WhatIsKnown)?;
            registry.was_heard().await;
            if !registry.is_far() {
                return None;
            }
            let (last, source) = ahead::last_layers(push, image).await?;
            let (incoming, _) = read::start(&push.item.image, source, packer, Some(&last)).ok()?;
            self.layers.bring_ahead(incoming).await;
            Some(())
        };
        let _ = bring.await;
        pending().await
    }

    /// Pushes an image that the cache remembers. Its file is read only if a layer is missing.
    async fn remembered(&self, images: &[Image]) -> Result<ArchiveResult, Failure> {
        let image = self.push.pick(self.target.destination, images)?;
        let found = try_join!(self.config(&image.config), self.layers.find_all(&image))?;
        if let (config, Some(layers)) = found {
            return Ok(ArchiveResult { image, config, layers, has_others: images.len() > 1 });
        }
        match self.push.input.source(self.push.events).await? {
            Contents::Layers(source) => self.read(source).await,
            Contents::Layout(_) => {
                let changed = "the image changed while it was being pushed".to_owned();
                Err(Error::Failed(changed).into())
            }
        }
    }

    async fn config(&self, config: &Config) -> Result<Outcome, Error> {
        let (bytes, digest) = (config.bytes().clone(), config.digest().clone());
        let size = bytes.len() as u64;
        let blob = Blob { digest: digest.clone(), size, compression: Compression::None };
        let upload = Upload {
            // No event of this upload is shown.
            layer: LayerId(0),
            name: digest.short().to_owned(),
            content: Arc::new(InMemory { bytes, digest }),
            events: event::ignore(),
        };
        self.ledger.ensure(&blob, &self.known.holders(&blob).await, &upload).await
    }
}

impl ArchiveResult {
    /// The image as a manifest of this format lists it.
    fn form(&self, listed: &[ManifestLayer], format: Format) -> Result<Form, Error> {
        let config = &self.image.config;
        let manifest = Manifest::of(config, listed, format)?;
        let history: Vec<_> = config.layer_history().collect();
        let layers = self.image.layers.iter().enumerate().filter_map(|(place, id)| {
            let history = history.get(place).copied();
            Some(BlobResult::Layer(self.layers.get(*id)?.report(history, format)))
        });
        let config_result = BlobResult::Config {
            digest: config.digest().clone(),
            size: config.bytes().len() as u64,
            outcome: self.config.clone(),
        };
        Ok(Form {
            blobs: [config_result].into_iter().chain(layers).collect(),
            entries: vec![IndexEntry::of(&manifest, config.platform())],
            tree: Tree {
                names: Vec::new(),
                root: 0,
                nodes: vec![Node {
                    media_type: manifest.media_type,
                    bytes: manifest.bytes,
                    digest: manifest.digest,
                    artifact_type: None,
                    annotations: BTreeMap::new(),
                    subject: None,
                    platform: Some(config.platform().clone()),
                    children: Vec::new(),
                    config: Some(config.clone()),
                    // The form has them in its own `blobs`.
                    blobs: Vec::new(),
                }],
            },
        })
    }

    /// Remembers what was packed, and the image of a file that cannot change.
    pub fn remember(&self, push: &ImagePush<'_>, known: &Reuse) {
        known.remember_packed(&self.layers.packed());
        known.remember_made(self.layers.made());
        // If the file holds several images, the next push may choose another one.
        if let Some(key) = push.input.identity().filter(|_| !self.has_others) {
            let image = CachedImage {
                names: self.image.names.clone(),
                config: self.image.config.clone(),
                layers: self.image.layers.iter().map(|layer| layer.0).collect(),
            };
            push.run.cache.remember_image(&key, vec![image]);
        }
    }
}
