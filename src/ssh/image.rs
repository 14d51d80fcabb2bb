//! An image on its way to a machine: read once, front to back, and written as an archive without the
//! layers that are there.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;

use super::archive::ArchiveWriter;
use super::layer_bytes::{CountedBytes, LayerFile, RegionReader};
use super::runtime::ArchiveForm;
use super::session::LayersThere;
use super::transfer::{Encoding, Pipe, Transfer};
use crate::error::Error;
use crate::event::{Event, Events};
use crate::image::{
    Blob, Compression, Config, DiffId, Digest, Format, LayerId, Manifest, ManifestLayer, Platform,
};
use crate::pack;
use crate::push::Item;
use crate::report::{Known, LayerReport, Outcome};
use crate::source::layout::Node;
use crate::source::{self, Claim, Contents, Image, ImagesKnown, LayerMismatch, Source};

/// How many of a layer's first bytes tell whether it is compressed.
const HEAD: usize = 10;

/// How an image is sent.
pub struct Sending {
    pub item: Item,
    pub may_run: bool,
    /// The machine's platform, which chooses the image of an index.
    pub platform: Option<Platform>,
    pub events: Events,
    /// The layers that need not be sent.
    pub there: LayersThere,
    pub form: ArchiveForm,
    pub encoding: Encoding,
    /// How many bytes of the archive are there, from an earlier connection.
    pub kept: u64,
    /// What the image is called there.
    pub names: Vec<String>,
    /// Where the archive goes; `None`: nothing is sent (`--dry-run`).
    pub out: Option<File>,
}

/// An image that was sent.
pub struct SentImage {
    pub config: Config,
    pub manifest: Manifest,
    pub layers: Vec<LayerReport>,
    /// Bytes of the archive.
    pub sent: u64,
}

/// Why an image could not be sent.
pub enum SendFailure {
    /// The archive could not be written: the machine says why.
    Pipe,
    Image(Error),
}

impl<E: Into<Error>> From<E> for SendFailure {
    fn from(error: E) -> Self {
        Self::Image(error.into())
    }
}

/// A layer that was met.
#[derive(Clone)]
struct Met {
    blob: Blob,
    outcome: Outcome,
    /// Where it waits for the config, if that comes last.
    spooled: Option<u64>,
    entry: String,
}

/// Sends an image. Blocks.
pub fn send(mut sending: Sending) -> Result<SentImage, SendFailure> {
    let file = sending.out.take();
    let is_dry = file.is_none();
    let mut pipe = Pipe { file, ..Pipe::default() };
    let sent = Sender { sending: &sending, is_dry }.run(&mut pipe);
    match sent {
        Ok(image) => Ok(SentImage { sent: pipe.sent, ..image }),
        Err(_) if pipe.is_broken => Err(SendFailure::Pipe),
        Err(error) => {
            // The machine need not keep what it has of an image that cannot be read.
            let _ = (&mut pipe).write_all(b"drop\n");
            Err(SendFailure::Image(error))
        }
    }
}

struct Sender<'a> {
    sending: &'a Sending,
    is_dry: bool,
}

impl Sender<'_> {
    fn run(&self, pipe: &mut Pipe) -> Result<SentImage, Error> {
        let (reading, noting) = (self.sending.events.clone(), self.sending.events.clone());
        let options = source::Options {
            images: ImagesKnown::First,
            may_run: self.sending.may_run,
            progress: Box::new(move |position, total| reading(Event::Reading { position, total })),
            note: Arc::new(move |note| noting(Event::Note(note))),
        };
        let transfer = Transfer::new(pipe, self.sending.encoding, self.sending.kept)
            .map_err(|error| Error::Failed(format!("cannot compress: {error}")))?;
        let out = ArchiveWriter::new(transfer, self.sending.form);
        match source::open(&self.sending.item.image, options)? {
            Contents::Layers(source) => self.layers(source, out),
            Contents::Layout(layout) => {
                let mut selection = self.sending.item.selection.clone();
                let mut tree = layout.select(&selection)?;
                if !tree.nodes[tree.root].children.is_empty() {
                    selection.platform.clone_from(&self.sending.platform);
                    tree = layout.select(&selection)?;
                }
                self.stored(&tree.nodes[tree.root], out)
            }
        }
    }

    /// The image that is meant.
    fn pick(&self, images: &[Image]) -> Result<Image, Error> {
        let image = &self.sending.item.image;
        let meant = self.sending.item.selection.among(images);
        match meant.as_slice() {
            [only] => Ok((*only).clone()),
            [] => Err(Error::Usage(format!(
                "{image} holds no such image; it holds: {}",
                source::list(images)
            ))),
            _ => Err(Error::Usage(format!(
                "{image} holds {} images: {}; choose one with --image NAME",
                meant.len(),
                source::list(meant.iter().copied())
            ))),
        }
    }

    /// Sends an image whose layers are read one after another.
    fn layers(
        &self,
        mut source: Box<dyn Source>,
        mut out: ArchiveWriter<'_>,
    ) -> Result<SentImage, Error> {
        let early = source.images().map(|images| self.pick(images)).transpose()?;
        if let Some(image) = &early {
            (self.sending.events)(Event::LayerCount(image.layers.len()));
        }
        let mut met: HashMap<LayerId, Met> = HashMap::new();
        let mut spool = LayerFile::default();
        while let Some(layer) = source.next_layer()? {
            let (id, entry, size) = (layer.id, layer.entry.clone(), layer.size);
            if early.as_ref().is_some_and(|image| !image.layers.contains(&id)) {
                continue;
            }
            let in_entry = |error| source::Error::from_read(error, &entry);
            let mut head = Vec::new();
            layer.content.take(HEAD as u64).read_to_end(&mut head).map_err(in_entry)?;
            let compression = pack::compression_of(&head).unwrap_or(Compression::None);
            let mut content = head.as_slice().chain(layer.content);
            let claimed = match (&layer.claim, &early, compression) {
                (Claim::DiffId(diff_id), Some(_), Compression::None) => Some(diff_id.clone()),
                _ => None,
            };
            let Some(diff_id) = claimed else {
                // Its digest, which is its name in the archive, is known only when it was read.
                let (at, digest, length) = spool.add(&mut content).map_err(in_entry)?;
                let blob = Blob { digest: digest.clone(), size: length, compression };
                if compression == Compression::None {
                    source.learn(&digest.into());
                }
                let outcome = Outcome::WouldUpload;
                met.insert(id, Met { blob, outcome, spooled: Some(at), entry });
                continue;
            };
            let digest = diff_id.digest().clone();
            let blob = Blob { digest: digest.clone(), size, compression };
            let image = early.as_ref();
            let is_there = image.is_some_and(|image| self.is_there(image, id, &blob));
            let outcome = match (is_there, self.is_dry) {
                (true, _) => reused(),
                (false, true) => Outcome::WouldUpload,
                (false, false) => {
                    let mut counted =
                        CountedBytes::new(&mut content, &self.sending.events, id, &diff_id, size);
                    out.layer(&digest, size, &mut counted).map_err(in_entry)?;
                    let actual = counted.hasher.finish();
                    if let (false, Some(image)) = (actual == digest, image) {
                        return Err(self.mismatch(image, id, &entry, &actual));
                    }
                    Outcome::Uploaded
                }
            };
            source.learn(&diff_id);
            met.insert(id, Met { blob, outcome, spooled: None, entry });
        }
        let image = match early {
            Some(image) => image,
            None => self.pick(source.images().unwrap_or_default())?,
        };
        self.send_spooled(&image, &mut met, &spool, &mut out)?;
        let blobs: Vec<Blob> =
            image.layers.iter().filter_map(|id| met.get(id)).map(|met| met.blob.clone()).collect();
        let listed: Vec<ManifestLayer> =
            blobs.iter().map(|blob| ManifestLayer { blob: blob.clone(), key: None }).collect();
        let manifest = Manifest::of(&image.config, &listed, Format::Oci)?;
        let outcomes = image.layers.iter().filter_map(|id| Some(met.get(id)?.outcome.clone()));
        self.finish(image.config.clone(), manifest, &blobs, outcomes, out)
    }

    /// Sends the layers that had to wait.
    fn send_spooled(
        &self,
        image: &Image,
        met: &mut HashMap<LayerId, Met>,
        spool: &LayerFile,
        out: &mut ArchiveWriter<'_>,
    ) -> Result<(), Error> {
        for (id, diff_id) in image.layers.iter().zip(image.config.diff_ids()) {
            let Some(layer) = met.get(id).cloned() else { continue };
            let Some(at) = layer.spooled else { continue };
            let is_tar = layer.blob.compression == Compression::None;
            if is_tar && layer.blob.digest != *diff_id.digest() {
                return Err(self.mismatch(image, *id, &layer.entry, &layer.blob.digest));
            }
            let outcome = match (self.is_there(image, *id, &layer.blob), self.is_dry) {
                (true, _) => reused(),
                (false, true) => Outcome::WouldUpload,
                (false, false) => {
                    let mut content = spool.reader(at, layer.blob.size);
                    let size = layer.blob.size;
                    let mut counted =
                        CountedBytes::new(&mut content, &self.sending.events, *id, diff_id, size);
                    out.layer(&layer.blob.digest, size, &mut counted)
                        .map_err(|error| source::Error::from_read(error, &layer.entry))?;
                    Outcome::Uploaded
                }
            };
            met.insert(*id, Met { outcome, spooled: None, ..layer });
        }
        Ok(())
    }

    /// Sends an image that a layout stores, as it is stored.
    fn stored(&self, node: &Node, mut out: ArchiveWriter<'_>) -> Result<SentImage, Error> {
        let image = &self.sending.item.image;
        let Some(config) = node.config.clone() else {
            return Err(Error::Usage(format!(
                "{image} is no image that a runtime could take; choose one with --platform or \
                 PATH@sha256:…"
            )));
        };
        let layers = node.blobs.get(1..).unwrap_or_default();
        (self.sending.events)(Event::LayerCount(layers.len()));
        let prefix = self.sending.there.prefix(config.diff_ids());
        let (mut blobs, mut outcomes) = (Vec::new(), Vec::new());
        for ((place, stored), diff_id) in layers.iter().enumerate().zip(config.diff_ids()) {
            let compression =
                Compression::of_media_type(&stored.media_type).unwrap_or(Compression::None);
            let blob = Blob { digest: stored.digest.clone(), size: stored.size, compression };
            let is_there = place < prefix || self.has(&blob, diff_id);
            let outcome = match (is_there, self.is_dry, &stored.region) {
                (true, ..) => reused(),
                (false, true, _) => Outcome::WouldUpload,
                (false, false, None) => {
                    return Err(Error::Usage(format!(
                        "{image}: the bytes of layer {} are not in it",
                        stored.digest
                    )));
                }
                (false, false, Some(region)) => {
                    let mut content = RegionReader::new(region);
                    let id = LayerId(place);
                    let mut counted = CountedBytes::new(
                        &mut content,
                        &self.sending.events,
                        id,
                        diff_id,
                        stored.size,
                    );
                    out.layer(&stored.digest, stored.size, &mut counted)
                        .map_err(|error| source::Error::from_read(error, &region.name))?;
                    let actual = counted.hasher.finish();
                    if actual != stored.digest && counted.read > 0 {
                        return Err(Error::Failed(format!(
                            "{image}: the bytes of {} are {actual}: the layout is damaged; make it \
                             again",
                            stored.digest
                        )));
                    }
                    Outcome::Uploaded
                }
            };
            blobs.push(blob);
            outcomes.push(outcome);
        }
        self.finish(config, node.manifest(), &blobs, outcomes.into_iter(), out)
    }

    fn finish(
        &self,
        config: Config,
        manifest: Manifest,
        blobs: &[Blob],
        outcomes: impl Iterator<Item = Outcome>,
        out: ArchiveWriter<'_>,
    ) -> Result<SentImage, Error> {
        if !self.is_dry {
            (self.sending.events)(Event::Tagging);
            out.finish(&config, &manifest, blobs, &self.sending.names)
                .map_err(|error| Error::Failed(format!("cannot send the image: {error}")))?;
        }
        let named: Vec<_> = config.layer_history().map(source::name_from_history).collect();
        let mut seen = HashSet::new();
        let layers = blobs.iter().zip(config.diff_ids()).zip(outcomes).enumerate();
        let layers = layers.map(|(place, ((blob, diff_id), outcome))| {
            let name = named.get(place).cloned().flatten();
            let is_first = seen.insert(blob.digest.clone());
            let report = LayerReport {
                name: name.map_or_else(|| diff_id.digest().short().into(), Into::into),
                diff_id: Some(diff_id.clone()),
                digest: blob.digest.clone(),
                size: blob.size,
                media_type: blob.compression.media_type(Format::Oci).unwrap_or_default().into(),
                compression: blob.compression,
                outcome: match is_first {
                    true => outcome,
                    false => Outcome::Reused { why: Known::SameAsLayer },
                },
            };
            (self.sending.events)(Event::LayerSettled {
                layer: LayerId(place),
                report: report.clone(),
            });
            report
        });
        let layers = layers.collect();
        Ok(SentImage { config, manifest, layers, sent: 0 })
    }

    /// Whether the runtime has this layer of an image, at each of its places.
    fn is_there(&self, image: &Image, id: LayerId, blob: &Blob) -> bool {
        let prefix = self.sending.there.prefix(image.config.diff_ids());
        let mut places = image.layers.iter().zip(image.config.diff_ids()).enumerate();
        places.all(|(place, (other, diff_id))| {
            *other != id || place < prefix || self.has(blob, diff_id)
        })
    }

    /// Whether the runtime finds this blob by its digest.
    fn has(&self, blob: &Blob, diff_id: &DiffId) -> bool {
        match &self.sending.there {
            LayersThere::None | LayersThere::Chains(_) => false,
            // Of a compressed blob, podman does not know which layer it is.
            LayersThere::DiffIds(ids) => ids.contains(diff_id) && blob.digest == *diff_id.digest(),
            LayersThere::Blobs(blobs) => blobs.contains(&blob.digest),
        }
    }

    fn mismatch(&self, image: &Image, id: LayerId, entry: &str, actual: &Digest) -> Error {
        let place = image.layers.iter().position(|other| *other == id).unwrap_or_default();
        let Some(listed) = image.config.diff_ids().get(place) else {
            return Error::Failed(format!("the layer {entry:?} is {actual}, and is not listed"));
        };
        source::Error::from(LayerMismatch {
            file: self.sending.item.image.to_string(),
            layer: place + 1,
            entry: entry.to_owned(),
            listed: listed.clone(),
            actual: actual.clone().into(),
        })
        .into()
    }
}

fn reused() -> Outcome {
    Outcome::Reused { why: Known::OnHost }
}
