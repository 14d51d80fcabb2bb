//! A docker archive that is a plain tar in a file. Opening it reads only the headers,
//! `manifest.json` and the configs. Layers are read later, directly from the file.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use super::error::{DockerArchiveError, corrupt_layer};
use super::images::{self, MAX_JSON_BYTES, MAX_MANIFEST_BYTES};
use super::unpack::{self, Unpacker};
use crate::image::{Config, DiffId, LayerId, MAX_CONFIG_BYTES};
use crate::source::error::Error;
use crate::source::file::read_at;
use crate::source::interface::{Claim, Image, Layer, Source};
use crate::source::layer_bytes::LayerBytes;
use crate::source::layout::{Region, RegionFile};
use crate::source::location::ReadProgress;
use crate::source::role::EntryRole;
use crate::source::tar::{MANIFEST, StoredFile, TarError, TarFile, TarPosition};

/// How many bytes of a layer are read to detect its compression.
const HEAD: usize = 8;

/// Opens the archive, which has a `manifest.json`.
pub fn open(tar: TarFile, progress: ReadProgress) -> Result<Box<dyn Source>, Error> {
    let (name, entries) = (&tar.name, &tar.entries);
    let (_, manifest) = entries.resolve(MANIFEST, EntryRole::Manifest)?;
    let manifest = json(&tar, MANIFEST, EntryRole::Manifest, manifest, MAX_MANIFEST_BYTES)?;
    let mut json_left = MAX_JSON_BYTES;
    let listed = images::list(name, &manifest, entries, |entry, stored| {
        let bytes = json(&tar, entry, EntryRole::Config, stored, MAX_CONFIG_BYTES.min(json_left))?;
        json_left -= stored.size;
        Config::parse(bytes).map_err(|source| {
            DockerArchiveError::BadConfig { file: name.clone(), entry: entry.to_owned(), source }
                .into()
        })
    })?;

    let (mut layers, mut memory) = (Vec::new(), 0);
    for (entry, diff_id) in images::diff_ids(name, &listed)? {
        let (_, stored) = entries.resolve(entry, EntryRole::Layer)?;
        if stored.sparse {
            let (file, role, entry) = (name.clone(), EntryRole::Layer, entry.to_owned());
            return Err(DockerArchiveError::Sparse { file, role, entry }.into());
        }
        let mut head = [0; HEAD];
        read_at(&tar.file, name, &mut head, stored.offset)?;
        memory = memory.max(unpack::memory(&head));
        layers.push(StoredLayer {
            entry: entry.to_owned(),
            diff_id: diff_id.clone(),
            stored: *stored,
            head,
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
        // Does not panic: every layer of every image was numbered above.
        .map(|image| image.number(|entry| Ok(ids[entry])))
        .collect::<Result<_, Error>>()?;
    let TarFile { file, name, length, .. } = tar;
    Ok(Box::new(SeekableArchive {
        images,
        layers,
        next: 0,
        memory,
        content: SeekableContent {
            file: Arc::new(file),
            name,
            length,
            position: 0,
            end: 0,
            entry: String::new(),
            head: [0; HEAD],
            unpacker: None,
            progress,
        },
    }))
}

struct SeekableArchive {
    images: Vec<Image>,
    /// In the order of storage, which is the order of their ids.
    layers: Vec<StoredLayer>,
    next: usize,
    /// The memory that decompressing one of its layers takes.
    memory: usize,
    content: SeekableContent,
}

struct StoredLayer {
    entry: String,
    diff_id: DiffId,
    stored: StoredFile,
    /// Its first bytes, which show its compression.
    head: [u8; HEAD],
}

impl Source for SeekableArchive {
    fn memory(&self) -> usize {
        self.memory
    }

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
        content.head = layer.head;
        content.unpacker = Unpacker::new(&layer.head).map_err(|error| {
            let error = corrupt_layer(&content.name, &layer.entry, &layer.head, error);
            Error::from_read(error, &layer.entry)
        })?;
        (content.progress)(content.position, Some(content.length));
        let region = || Region {
            name: content.name.clone(),
            file: RegionFile::Open(content.file.clone()),
            offset: layer.stored.offset,
            length: layer.stored.size,
        };
        let bytes = content.unpacker.is_none().then(|| LayerBytes::Stored(region()));
        Ok(Some(Layer {
            id,
            entry: layer.entry.clone(),
            size: layer.stored.size,
            claim: Claim::DiffId(layer.diff_id.clone()),
            content,
            bytes,
        }))
    }
}

/// Reads a whole JSON file of the archive.
fn json(
    tar: &TarFile,
    entry: &str,
    role: EntryRole,
    stored: &StoredFile,
    limit: u64,
) -> Result<Vec<u8>, Error> {
    let file = tar.name.clone();
    if stored.sparse {
        return Err(DockerArchiveError::Sparse { file, role, entry: entry.to_owned() }.into());
    }
    if stored.size > limit {
        let (entry, size) = (entry.to_owned(), stored.size);
        return Err(DockerArchiveError::JsonTooLong { file, entry, size, limit }.into());
    }
    let mut bytes = vec![0; stored.size as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        let at = stored.offset + filled as u64;
        match read_at(&tar.file, &tar.name, &mut bytes[filled..], at)? {
            0 => return Err(truncated(&tar.name, entry, at)),
            count => filled += count,
        }
    }
    Ok(bytes)
}

/// The error for a file that became shorter after its headers were read.
fn truncated(file: &Arc<str>, entry: &str, at: u64) -> Error {
    let position = TarPosition::Content(entry.to_owned());
    TarError::Truncated { file: file.clone(), at, position }.into()
}

/// The content of one layer.
struct SeekableContent {
    file: Arc<File>,
    name: Arc<str>,
    length: u64,
    position: u64,
    end: u64,
    entry: String,
    head: [u8; HEAD],
    unpacker: Option<Unpacker>,
    progress: ReadProgress,
}

impl Read for SeekableContent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(mut unpacker) = self.unpacker.take() else {
            return self.read_stored(buffer);
        };
        let read = unpacker.read(&mut SeekableBytes(self), buffer);
        self.unpacker = Some(unpacker);
        read.map_err(|error| corrupt_layer(&self.name, &self.entry, &self.head, error))
    }
}

/// The bytes of the current layer as they are stored.
struct SeekableBytes<'a>(&'a mut SeekableContent);

impl Read for SeekableBytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_stored(buffer)
    }
}

impl SeekableContent {
    fn read_stored(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want =
            usize::try_from(self.end - self.position).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let count = read_at(&self.file, &self.name, &mut buffer[..want], self.position)
            .map_err(|error| io::Error::other(Error::from(error)))?;
        if count == 0 {
            // The file became shorter after its headers were read.
            let cut_off = truncated(&self.name, &self.entry, self.position);
            return Err(io::Error::other(cut_off));
        }
        self.position += count as u64;
        (self.progress)(self.position, Some(self.length));
        Ok(count)
    }
}
