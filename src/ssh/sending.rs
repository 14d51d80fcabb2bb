//! Writes an image as an archive, without the layers that the machine has.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::archive::ArchiveWriter;
use super::image::HostImage;
use super::runtime::ArchiveForm;
use super::transfer::{Encoding, Pipe, Transfer};
use crate::error::Error;
use crate::event::{Event, Events};
use crate::image::{Hasher, LayerId};
use crate::report::{Known, LayerReport, Outcome};
use crate::serve::ServedBlob;
use crate::source;

/// How an archive is sent.
pub struct Sending {
    pub events: Events,
    /// For each layer, lowest first, whether it is left out because the machine has it.
    pub is_there: Vec<bool>,
    pub form: ArchiveForm,
    pub encoding: Encoding,
    /// How many bytes of the archive the machine has from an earlier connection.
    pub kept: u64,
    /// The image's names on the machine.
    pub names: Vec<String>,
    /// Counts the bytes that are sent.
    pub sent: Arc<AtomicU64>,
}

/// Why an archive could not be sent.
pub enum SendFailure {
    /// Writing failed; the machine reports the reason.
    Pipe,
    Image(Error),
}

impl Sending {
    /// Writes the archive. Blocks.
    pub fn send(&self, image: &HostImage, out: File) -> Result<Vec<LayerReport>, SendFailure> {
        let mut pipe = Pipe::new(out, self.sent.clone());
        match self.write(image, &mut pipe) {
            Ok(layers) => Ok(layers),
            Err(_) if pipe.is_broken => Err(SendFailure::Pipe),
            Err(error) => {
                // Tells the machine not to keep its part of an image that cannot be read.
                let _ = (&mut pipe).write_all(b"drop\n");
                Err(SendFailure::Image(error))
            }
        }
    }

    fn write(&self, image: &HostImage, pipe: &mut Pipe) -> Result<Vec<LayerReport>, Error> {
        let transfer = Transfer::new(pipe, self.encoding, self.kept)
            .map_err(|error| Error::Failed(format!("cannot compress: {error}")))?;
        let mut archive = ArchiveWriter::new(transfer, self.form);
        let mut layers = Vec::new();
        for (layer, is_there) in image.layers().zip(&self.is_there) {
            let outcome = match is_there {
                true => Outcome::Reused { why: Known::OnHost },
                false => {
                    self.layer(image, layer, &mut archive)?;
                    Outcome::Uploaded
                }
            };
            layers.push(image.settle(layer, outcome, &self.events));
        }
        (self.events)(Event::Tagging);
        let mut config = Vec::new();
        let blob = image.blob(&image.part.config)?;
        read(blob, &mut config).map_err(|error| source::Error::from_read(error, &blob.entry))?;
        archive
            .finish(&image.part, &config, &image.manifest, &self.names)
            .map_err(|error| Error::Failed(format!("cannot send the image: {error}")))?;
        Ok(layers)
    }

    fn layer(
        &self,
        image: &HostImage,
        layer: LayerId,
        archive: &mut ArchiveWriter<'_>,
    ) -> Result<(), Error> {
        let blob = image.blob(&image.part.layers[layer.0].blob)?;
        if archive.has(&blob.digest) {
            return Ok(());
        }
        let mut bytes = CountedLayer {
            content: blob.reader()?,
            hasher: Hasher::new(),
            position: 0,
            total: blob.size,
            layer,
            events: &self.events,
        };
        let name = image.layer_name(layer).to_owned();
        (self.events)(Event::UploadStarted { layer, name, total: Some(blob.size) });
        archive
            .layer(&blob.digest, blob.size, &mut bytes)
            .map_err(|error| source::Error::from_read(error, &blob.entry))?;
        image.compare(layer, bytes.hasher.finish())
    }
}

/// Reads a small blob.
fn read(blob: &ServedBlob, into: &mut Vec<u8>) -> io::Result<u64> {
    let content = blob.reader().map_err(io::Error::other)?;
    io::copy(&mut content.take(blob.size), into)
}

/// Reads the bytes of a layer for sending, hashes them, and reports progress.
struct CountedLayer<'a> {
    content: Box<dyn Read + Send>,
    hasher: Hasher,
    position: u64,
    total: u64,
    layer: LayerId,
    events: &'a Events,
}

impl Read for CountedLayer<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.position += read as u64;
        (self.events)(Event::UploadProgress {
            layer: self.layer,
            position: self.position,
            ready: self.total,
            total: Some(self.total),
        });
        Ok(read)
    }
}
