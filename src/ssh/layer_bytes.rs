//! The bytes of layers on their way to a machine: read, hashed and counted, or waiting in a file.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use crate::event::{Event, Events};
use crate::image::{DiffId, Digest, Hasher, LayerId};
use crate::source::layout::Region;

/// How many bytes are read at once.
const CHUNK: usize = 256 << 10;

/// A layer's bytes on their way: hashed, and reported.
pub struct CountedBytes<'a> {
    content: &'a mut dyn Read,
    pub hasher: Hasher,
    pub read: u64,
    size: u64,
    layer: LayerId,
    events: &'a Events,
}

impl<'a> CountedBytes<'a> {
    pub fn new(
        content: &'a mut dyn Read,
        events: &'a Events,
        layer: LayerId,
        diff_id: &DiffId,
        size: u64,
    ) -> Self {
        let name = diff_id.digest().short().to_owned();
        events(Event::UploadStarted { layer, name, total: Some(size) });
        Self { content, hasher: Hasher::new(), read: 0, size, layer, events }
    }
}

impl Read for CountedBytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.read += read as u64;
        (self.events)(Event::UploadProgress {
            layer: self.layer,
            position: self.read,
            ready: self.size,
            total: Some(self.size),
        });
        Ok(read)
    }
}

/// Reads a blob of a layout.
pub struct RegionReader<'a> {
    region: &'a Region,
    at: u64,
}

impl<'a> RegionReader<'a> {
    pub fn new(region: &'a Region) -> Self {
        Self { region, at: 0 }
    }
}

impl Read for RegionReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.region.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Layers that wait, in one temporary file without a name.
#[derive(Default)]
pub struct LayerFile {
    file: Option<File>,
    length: u64,
}

impl LayerFile {
    /// Adds what can be read: where it is, its digest and its length.
    pub fn add(&mut self, content: &mut dyn Read) -> io::Result<(u64, Digest, u64)> {
        let at = self.length;
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(tempfile::tempfile()?),
        };
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            hasher.update(&buffer[..read]);
            file.write_all_at(&buffer[..read], self.length)?;
            self.length += read as u64;
        }
        Ok((at, hasher.finish(), self.length - at))
    }

    pub fn reader(&self, at: u64, length: u64) -> SpoolReader<'_> {
        SpoolReader { file: self.file.as_ref(), at, end: at + length }
    }
}

/// Reads a layer that waited.
pub struct SpoolReader<'a> {
    file: Option<&'a File>,
    at: u64,
    end: u64,
}

impl Read for SpoolReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(file) = self.file else { return Ok(0) };
        let left = usize::try_from(self.end - self.at).unwrap_or(buffer.len()).min(buffer.len());
        let read = file.read_at(&mut buffer[..left], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
