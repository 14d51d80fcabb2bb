//! A docker archive that is read front to back: compressed, or from a pipe.
//!
//! `manifest.json` usually comes last, so it is not known beforehand which files are layers. So
//! every file that could be a layer is yielded, and small JSON is kept. At the end, after the
//! checksums were verified, the images are put together. They do not list files that turned out not
//! to be layers.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;

use super::error::{DockerArchiveError, corrupt_layer};
use super::images::{self, MAX_JSON_BYTES, MAX_MANIFEST_BYTES};
use super::unpack::{self, Unpacker};
use crate::image::{Config, Digest, LayerId, MAX_CONFIG_BYTES};
use crate::source::decompress::Stream;
use crate::source::error::Error;
use crate::source::interface::{Claim, Image, Layer, Source};
use crate::source::role::EntryRole;
use crate::source::tar::{
    self, BLOCK, Entries, Entry, EntryKind, MANIFEST, OCI_LAYOUT, Tar, hex_of, normalise,
};
use crate::source::wrapping::Wrapping;

/// An archive of which everything before the current layer was read.
pub struct StreamedArchive {
    file: Arc<str>,
    entries: Entries<EntryFate>,
    content: StreamedContent,
    memory: usize,
    /// The memory that decompressing a layer takes: the most for any layer so far.
    layer_memory: usize,
    next_id: usize,
    json_left: u64,
    images: Option<Vec<Image>>,
}

/// How a file of the archive was treated.
enum EntryFate {
    /// Kept, because it looks like JSON.
    Kept(Bytes),
    /// Yielded as a layer.
    Layer(LayerId),
    /// Neither.
    PassedOver(PassedOver),
}

#[derive(Clone, Copy)]
enum PassedOver {
    /// It looks neither like JSON nor like a layer.
    Unknown,
    Sparse,
    /// JSON of this length, which is over the limit.
    TooLong(u64),
    /// JSON that would exceed the memory limit for all JSON.
    TooMuchJson,
}

impl Source for StreamedArchive {
    fn memory(&self) -> usize {
        self.memory + self.layer_memory
    }

    fn images(&self) -> Option<&[Image]> {
        self.images.as_deref()
    }

    fn next_layer(&mut self) -> Result<Option<Layer<'_>>, Error> {
        let Some(found) = self.next_candidate()? else {
            if self.images.is_none() {
                self.images = Some(self.end()?);
            }
            return Ok(None);
        };
        Ok(Some(self.layer(found)))
    }
}

/// A file that could be a layer.
pub struct LayerCandidate {
    /// Its number among the candidates.
    pub id: LayerId,
    entry: String,
    size: u64,
}

impl StreamedArchive {
    /// Begins to read the archive in `stream`, which takes up to `memory` bytes of memory.
    pub fn new(stream: Stream, file: Arc<str>, (wrapping, memory): (Wrapping, usize)) -> Self {
        Self {
            entries: Entries::new(file.clone()),
            content: StreamedContent {
                tar: Tar::new(stream, file.clone(), wrapping),
                head: [0; BLOCK],
                head_start: 0,
                head_end: 0,
                file: file.clone(),
                entry: String::new(),
                unpacker: None,
            },
            file,
            memory,
            layer_memory: 0,
            next_id: 0,
            json_left: MAX_JSON_BYTES,
            images: None,
        }
    }

    /// The candidate that was found last, as a layer.
    pub fn layer(&mut self, found: LayerCandidate) -> Layer<'_> {
        Layer {
            id: found.id,
            claim: match hex_of(&found.entry).map(Digest::from_sha256_hex) {
                Some(Ok(digest)) => Claim::Hint(digest.into()),
                _ => Claim::Nothing,
            },
            entry: found.entry,
            size: found.size,
            content: &mut self.content,
            bytes: None,
        }
    }

    /// Goes on to the next file that could be a layer; `None` at the end.
    pub fn next_candidate(&mut self) -> Result<Option<LayerCandidate>, Error> {
        while let Some(entry) = self.content.tar.next_entry()? {
            self.content.unpacker = None;
            self.content.head_start = 0;
            self.content.head_end = 0;
            let name = normalise(&entry.name);
            if !self.entries.may_be_needed(&name) {
                continue;
            }
            self.entries.check_kind()?;
            match entry.kind {
                EntryKind::File => {}
                EntryKind::Sparse => {
                    let seen = EntryFate::PassedOver(PassedOver::Sparse);
                    self.entries.insert_file(name, seen)?;
                    continue;
                }
                EntryKind::Symlink(target) => {
                    self.entries.insert_symlink(name, &target)?;
                    continue;
                }
                EntryKind::HardLink(target) => {
                    self.entries.insert_hard_link(name, &target)?;
                    continue;
                }
                EntryKind::Other => continue,
            }
            let seen = self.look_at(&name, &entry)?;
            if let EntryFate::Layer(id) = seen {
                self.entries.insert_file(name.clone(), seen)?;
                return Ok(Some(LayerCandidate { id, entry: name, size: entry.size }));
            }
            self.entries.insert_file(name, seen)?;
        }
        Ok(None)
    }

    /// Finds out what a file is by its first bytes.
    fn look_at(&mut self, name: &str, entry: &Entry) -> Result<EntryFate, Error> {
        self.content.peek()?;
        let head = self.content.peeked();
        let is_layer = tar::is_tar(head)
            || Wrapping::of(head) != Wrapping::None
            || (head.is_empty() && (hex_of(name).is_some() || name.ends_with(".tar")));
        if name != MANIFEST && is_layer {
            let id = LayerId(self.next_id);
            self.next_id += 1;
            self.layer_memory = self.layer_memory.max(unpack::memory(head));
            self.content.unpack(name)?;
            return Ok(EntryFate::Layer(id));
        }
        let limit = match name {
            MANIFEST => MAX_MANIFEST_BYTES,
            _ if matches!(head.first(), Some(b'{' | b' ' | b'\t' | b'\r' | b'\n')) => {
                MAX_CONFIG_BYTES
            }
            _ => return Ok(EntryFate::PassedOver(PassedOver::Unknown)),
        };
        if entry.size > limit {
            return Ok(EntryFate::PassedOver(PassedOver::TooLong(entry.size)));
        }
        // `manifest.json` is not counted: it comes last, after JSON that may not be needed.
        if name != MANIFEST {
            let Some(left) = self.json_left.checked_sub(entry.size) else {
                return Ok(EntryFate::PassedOver(PassedOver::TooMuchJson));
            };
            self.json_left = left;
        }
        let mut bytes = Vec::with_capacity(entry.size as usize);
        self.content.read_to_end(&mut bytes).map_err(|error| Error::from_read(error, name))?;
        Ok(EntryFate::Kept(bytes.into()))
    }

    /// Reads to the very end and puts the images together.
    fn end(&mut self) -> Result<Vec<Image>, Error> {
        self.content.tar.drain()?;
        let file = &self.file;
        let manifest = match self.entries.manifest()? {
            Some(EntryFate::Kept(manifest)) => manifest,
            Some(seen) => return Err(self.not_kept(MANIFEST, EntryRole::Manifest, seen)),
            None if self.content.tar.is_cut_off() => return Err(self.content.tar.truncated()),
            None if self.entries.contains(OCI_LAYOUT) => {
                let command = self.content.tar.wrapping().command();
                let file = file.clone();
                return Err(DockerArchiveError::LateLayout { file, command }.into());
            }
            None => return Err(self.entries.without_manifest().into()),
        };
        let listed = images::list(file, manifest, &self.entries, |entry, seen| match seen {
            EntryFate::Kept(bytes) => Config::parse(bytes.clone()).map_err(|source| {
                let (file, entry) = (file.clone(), entry.to_owned());
                DockerArchiveError::BadConfig { file, entry, source }.into()
            }),
            seen => Err(self.not_kept(entry, EntryRole::Config, seen)),
        })?;
        images::diff_ids(file, &listed)?;

        listed
            .into_iter()
            .map(|image| {
                image.number(|entry| match self.entries.resolve(entry, EntryRole::Layer)?.1 {
                    EntryFate::Layer(id) => Ok(*id),
                    seen => Err(self.not_kept(entry, EntryRole::Layer, seen)),
                })
            })
            .collect()
    }

    /// The error for a file that is needed and was not kept.
    fn not_kept(&self, entry: &str, role: EntryRole, seen: &EntryFate) -> Error {
        let file = self.file.clone();
        let entry = entry.to_owned();
        let error = match (seen, role) {
            (EntryFate::PassedOver(PassedOver::Sparse), _) => {
                DockerArchiveError::Sparse { file, role, entry }
            }
            (
                EntryFate::PassedOver(PassedOver::TooLong(size)),
                EntryRole::Config | EntryRole::Manifest,
            ) => DockerArchiveError::JsonTooLong {
                file,
                entry,
                size: *size,
                limit: match role {
                    EntryRole::Manifest => MAX_MANIFEST_BYTES,
                    _ => MAX_CONFIG_BYTES,
                },
            },
            (
                EntryFate::PassedOver(PassedOver::TooMuchJson),
                EntryRole::Config | EntryRole::Manifest,
            ) => DockerArchiveError::TooMuchJson { file, entry, limit_mib: MAX_JSON_BYTES >> 20 },
            (_, EntryRole::Config | EntryRole::Manifest) => {
                DockerArchiveError::ConfigNotJson { file, entry }
            }
            (_, EntryRole::Layer | EntryRole::Blob) => {
                DockerArchiveError::NotALayer { file, entry }
            }
        };
        error.into()
    }
}

/// The content of the current entry, of which the first block may have been looked at already.
struct StreamedContent {
    tar: Tar<Stream>,
    head: [u8; BLOCK],
    head_start: usize,
    head_end: usize,
    file: Arc<str>,
    /// The name of the layer that is decompressed, for messages.
    entry: String,
    unpacker: Option<Unpacker>,
}

impl StreamedContent {
    /// Reads the first block, or less if the content is shorter.
    fn peek(&mut self) -> Result<(), Error> {
        while self.head_end < BLOCK {
            match self.tar.read_content(&mut self.head[self.head_end..])? {
                0 => break,
                count => self.head_end += count,
            }
        }
        Ok(())
    }

    fn peeked(&self) -> &[u8] {
        &self.head[self.head_start..self.head_end]
    }
}

impl StreamedContent {
    /// Decompresses the entry from here on, if it is a layer stored as xz or bzip2.
    fn unpack(&mut self, entry: &str) -> Result<(), Error> {
        let unpacker = Unpacker::new(self.peeked());
        self.unpacker = unpacker.map_err(|error| Error::from_read(self.corrupt(error), entry))?;
        entry.clone_into(&mut self.entry);
        Ok(())
    }

    fn corrupt(&self, error: io::Error) -> io::Error {
        corrupt_layer(&self.file, &self.entry, &self.head, error)
    }
}

impl Read for StreamedContent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(mut unpacker) = self.unpacker.take() else {
            return self.read_stored(buffer);
        };
        let read = unpacker.read(&mut StreamedBytes(self), buffer);
        self.unpacker = Some(unpacker);
        read.map_err(|error| self.corrupt(error))
    }
}

/// The bytes of the current entry as they are stored.
struct StreamedBytes<'a>(&'a mut StreamedContent);

impl Read for StreamedBytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_stored(buffer)
    }
}

impl StreamedContent {
    fn read_stored(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let peeked = self.peeked();
        if peeked.is_empty() {
            return self.tar.read(buffer);
        }
        let count = peeked.len().min(buffer.len());
        buffer[..count].copy_from_slice(&peeked[..count]);
        self.head_start += count;
        Ok(count)
    }
}
