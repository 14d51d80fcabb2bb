//! A docker archive that is a plain tar in a file: besides its headers only `manifest.json` and the
//! configs are read when it is opened; layers wait where they are, in the file.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use super::{MAX_JSON_BYTES, MAX_MANIFEST_BYTES, images};
use crate::image::{Config, DiffId, MAX_CONFIG_BYTES};
use crate::source::decompress::Progress;
use crate::source::entries::MANIFEST;
use crate::source::error::{Error, Place, Role};
use crate::source::tar_file::{Stored, TarFile, read_at};
use crate::source::{Claim, Image, Layer, LayerId, Source};

/// Opens the archive, which has a `manifest.json`.
pub fn open(tar: TarFile, progress: Progress) -> Result<Box<dyn Source>, Error> {
    let (name, entries) = (&tar.name, &tar.entries);
    let (_, manifest) = entries.resolve(MANIFEST, Role::Manifest)?;
    let manifest = tar.json(MANIFEST, Role::Manifest, manifest, MAX_MANIFEST_BYTES)?;
    let mut json_left = MAX_JSON_BYTES;
    let listed = images::list(name, &manifest, entries, |entry, stored| {
        let bytes = tar.json(entry, Role::Config, stored, MAX_CONFIG_BYTES.min(json_left))?;
        json_left -= stored.size;
        Config::parse(bytes).map_err(|source| Error::BadConfig {
            file: name.clone(),
            entry: entry.to_owned(),
            source,
        })
    })?;

    let mut layers = Vec::new();
    for (entry, diff_id) in images::diff_ids(name, &listed)? {
        let (_, stored) = entries.resolve(entry, Role::Layer)?;
        if stored.sparse {
            return Err(Error::Sparse {
                file: name.clone(),
                role: Role::Layer,
                entry: entry.to_owned(),
            });
        }
        layers.push(StoredLayer {
            entry: entry.to_owned(),
            diff_id: diff_id.clone(),
            stored: *stored,
        });
    }
    layers.sort_by_key(|layer| layer.stored.offset);
    let ids: std::collections::HashMap<String, LayerId> = layers
        .iter()
        .enumerate()
        .map(|(index, layer)| (layer.entry.clone(), LayerId(index)))
        .collect();
    let images = listed
        .into_iter()
        // Every layer of every image was numbered just now.
        .map(|image| image.number(|entry| Ok(ids[entry])))
        .collect::<Result<_, Error>>()?;
    let TarFile { file, name, length, .. } = tar;
    Ok(Box::new(SeekableArchive {
        images,
        layers,
        next: 0,
        content: Content {
            file,
            name,
            length,
            position: 0,
            end: 0,
            entry: String::new(),
            progress,
        },
    }))
}

struct SeekableArchive {
    images: Vec<Image>,
    /// In the order of storage, which is that of their ids.
    layers: Vec<StoredLayer>,
    next: usize,
    content: Content,
}

struct StoredLayer {
    entry: String,
    diff_id: DiffId,
    stored: Stored,
}

impl Source for SeekableArchive {
    fn images(&self) -> Option<&[Image]> {
        Some(&self.images)
    }

    fn next_layer(&mut self) -> Result<Option<Layer<'_>>, Error> {
        let content = &mut self.content;
        let Some(layer) = self.layers.get(self.next) else {
            (content.progress)(content.length, Some(content.length));
            return Ok(None);
        };
        let id = LayerId(self.next);
        self.next += 1;
        content.position = layer.stored.offset;
        content.end = layer.stored.offset + layer.stored.size;
        content.entry.clone_from(&layer.entry);
        (content.progress)(content.position, Some(content.length));
        Ok(Some(Layer {
            id,
            entry: layer.entry.clone(),
            size: layer.stored.size,
            claim: Claim::DiffId(layer.diff_id.clone()),
            content,
        }))
    }
}

/// The content of one layer.
struct Content {
    file: File,
    name: Arc<str>,
    length: u64,
    position: u64,
    end: u64,
    entry: String,
    progress: Progress,
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want =
            usize::try_from(self.end - self.position).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let count = read_at(&self.file, &self.name, &mut buffer[..want], self.position)
            .map_err(io::Error::other)?;
        if count == 0 {
            // It was long enough when its headers were read.
            return Err(io::Error::other(Error::TruncatedTar {
                file: self.name.clone(),
                at: self.position,
                entry: Place::Content(self.entry.clone()),
            }));
        }
        self.position += count as u64;
        (self.progress)(self.position, Some(self.length));
        Ok(count)
    }
}
