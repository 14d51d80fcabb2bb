//! nix2container images: a JSON file that says what each layer is made of, and what its digest is
//! (`github.com/nlewo/nix2container`, whose patched skopeo makes the same image of it).
//!
//! The file says everything that is needed at once. The config is built from it ([`config`]). A
//! layer is made only when its bytes are read ([`content`]): its files in order ([`tree`]), with
//! the owners and permissions that the image asks for ([`perms`]), and with headers as Go writes
//! them ([`header`]).

mod config;
mod content;
mod error;
mod fault;
mod header;
mod label;
mod path;
mod perms;
mod regex;
mod spec;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::HashMap;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use self::content::SpecLayerContent;
use self::error::Nix2containerError;
use self::label::Label;
use self::spec::{LayerSpec, Spec};
use super::error::Error;
use super::file::FileError;
use super::interface::{Claim, Image, Layer, Source};
use super::layer_bytes::LayerBytes;
use super::layout::{Region, RegionFile};
use super::location::ReadProgress;
use super::open_file::OpenFile;
use super::printable::printable_path;
use crate::image::{Config, DiffId, LayerId, MAX_CONFIG_BYTES};

/// The longest file that is read: some 50,000 store paths.
const MAX_BYTES: u64 = MAX_CONFIG_BYTES;

/// Opens the image that a JSON file describes.
pub fn open(opened: OpenFile) -> Result<Box<dyn Source>, Error> {
    let file = opened.name;
    let mut bytes = Vec::new();
    Cursor::new(opened.head)
        .chain(opened.file)
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| FileError::Read { file: file.clone(), at: bytes.len() as u64, source })?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Nix2containerError::TooLong { file, limit_mib: MAX_BYTES >> 20 }.into());
    }
    let spec = Spec::parse(&file, &bytes)?;
    Ok(Box::new(Nix2container::new(file, spec, opened.progress)?))
}

struct Nix2container {
    /// The only image.
    images: [Image; 1],
    layers: Vec<Stored>,
    next: usize,
    reading: LayerBeingRead,
}

/// A layer, and its label for messages.
struct Stored {
    label: Arc<Label>,
    layer: Arc<LayerSpec>,
    /// The length of all layers before it, in bytes.
    begin: u64,
}

impl Nix2container {
    fn new(file: Arc<str>, spec: Spec, progress: ReadProgress) -> Result<Self, Error> {
        let config = Config::parse(config::bytes(&spec))
            .map_err(|source| Nix2containerError::BadConfig { file: file.clone(), source })?;
        let (mut ids, mut layers, mut total) = (Vec::new(), Vec::new(), 0_u64);
        let mut known: HashMap<DiffId, LayerId> = HashMap::new();
        for (index, layer) in spec.layers.into_iter().enumerate() {
            let label = Label { file: file.clone(), layer: index + 1, entry: layer.name() };
            layer.check().map_err(|fault| label.fault(fault))?;
            // A layer that occurs twice is made only once.
            let id = *known.entry(layer.diff_id.clone()).or_insert(LayerId(layers.len()));
            ids.push(id);
            if id == LayerId(layers.len()) {
                let (label, begin) = (Arc::new(label), total);
                total = total.saturating_add(layer.size);
                layers.push(Stored { label, layer: Arc::new(layer), begin });
            }
        }
        let images = [Image { names: Vec::new(), config, layers: ids }];
        let reading = LayerBeingRead { content: None, begin: 0, end: 0, total, progress };
        Ok(Self { images, layers, next: 0, reading })
    }
}

impl Source for Nix2container {
    fn images(&self) -> Option<&[Image]> {
        Some(&self.images)
    }

    fn next_layer(&mut self) -> Result<Option<Layer<'_>>, Error> {
        let reading = &mut self.reading;
        let Some(Stored { label, layer, begin }) = self.layers.get(self.next) else {
            (reading.progress)(reading.total, Some(reading.total));
            return Ok(None);
        };
        let id = LayerId(self.next);
        self.next += 1;
        reading.content = Some(SpecLayerContent::new(label.clone(), layer.clone()));
        reading.begin = *begin;
        reading.end = begin.saturating_add(layer.size);
        (reading.progress)(reading.begin, Some(reading.total));
        Ok(Some(Layer {
            id,
            entry: label.entry.clone(),
            size: layer.stored_size(),
            claim: Claim::DiffId(layer.diff_id.clone()),
            content: reading,
            bytes: Some(bytes(label, layer)),
        }))
    }
}

/// The bytes of a layer, which can be read at any time.
fn bytes(label: &Arc<Label>, layer: &Arc<LayerSpec>) -> LayerBytes {
    if !layer.layer_path.is_empty() {
        let path = Path::new(&layer.layer_path);
        return LayerBytes::Stored(Region {
            name: printable_path(path),
            file: RegionFile::Path(path.into()),
            offset: 0,
            length: layer.stored_size(),
        });
    }
    // The size is that of nix2container's blob. If that is compressed, it is not the size of the
    // tar.
    let size = (layer.is_plain() && layer.size > 0).then_some(layer.size);
    let (label, layer) = (label.clone(), layer.clone());
    let make = move || -> Result<Box<dyn Read + Send>, Error> {
        Ok(Box::new(SpecLayerContent::new(label.clone(), layer.clone())))
    };
    LayerBytes::Made { size, make: Arc::new(make) }
}

/// The layer that was yielded last, and how far it was read.
struct LayerBeingRead {
    content: Option<SpecLayerContent>,
    /// Its place in the bytes of all layers, as far as the file gives their lengths.
    begin: u64,
    end: u64,
    total: u64,
    progress: ReadProgress,
}

impl Read for LayerBeingRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(content) = &mut self.content else {
            return Ok(0);
        };
        let count = content.read(buffer)?;
        let position = self.begin.saturating_add(content.position()).min(self.end);
        (self.progress)(position, Some(self.total));
        Ok(count)
    }
}
