//! A docker archive that is a plain tar in a file: only headers, `manifest.json` and the configs
//! are read when it is opened, one small read each; layers wait where they are, in the file.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::entries::{Entries, normalise};
use super::{MAX_JSON_BYTES, MAX_MANIFEST_BYTES, images};
use crate::image::{Config, DiffId, MAX_CONFIG_BYTES};
use crate::source::decompress::{Progress, Wrapping};
use crate::source::error::{Error, Place, Role};
use crate::source::tar::{Bytes, Kind, Tar};
use crate::source::{Claim, Image, Layer, LayerId, Source};

/// Opens the archive in `file`, which is `length` bytes long.
pub fn open(
    file: File,
    length: u64,
    name: Arc<str>,
    progress: Progress,
) -> Result<Box<dyn Source>, Error> {
    let mut tar = Tar::new(
        FileBytes { file, name: name.clone(), position: 0, length },
        name.clone(),
        Wrapping::None,
    );
    let mut entries = Entries::new(name.clone());
    while let Some(entry) = tar.next_entry()? {
        let stored_name = normalise(&entry.name);
        if !entries.may_be_needed(&stored_name) {
            continue;
        }
        entries.check_kind()?;
        let stored =
            Stored { offset: entry.offset, size: entry.size, sparse: entry.kind == Kind::Sparse };
        match entry.kind {
            Kind::File | Kind::Sparse => entries.insert_file(stored_name, stored)?,
            Kind::Symlink(target) => entries.insert_symlink(stored_name, &target)?,
            Kind::HardLink(target) => entries.insert_hard_link(stored_name, &target)?,
            Kind::Other => {}
        }
    }
    let Some(manifest) = entries.manifest()? else {
        return Err(if tar.is_cut_off() { tar.truncated() } else { entries.without_manifest() });
    };
    let file = tar.bytes_mut();
    let manifest =
        file.json(super::entries::MANIFEST, Role::Manifest, manifest, MAX_MANIFEST_BYTES)?;
    let mut json_left = MAX_JSON_BYTES;
    let listed = images::list(&name, &manifest, &entries, |entry, stored| {
        let bytes = file.json(entry, Role::Config, stored, MAX_CONFIG_BYTES.min(json_left))?;
        json_left -= stored.size;
        Config::parse(bytes).map_err(|source| Error::BadConfig {
            file: name.clone(),
            entry: entry.to_owned(),
            source,
        })
    })?;

    let mut layers = Vec::new();
    for (entry, diff_id) in images::diff_ids(&name, &listed)? {
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
    let FileBytes { file, length, .. } = tar.into_bytes();
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

/// Where a file of the archive is.
#[derive(Clone, Copy)]
struct Stored {
    offset: u64,
    size: u64,
    sparse: bool,
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

/// The file, as the walk over its headers reads it.
struct FileBytes {
    file: File,
    name: Arc<str>,
    position: u64,
    length: u64,
}

impl FileBytes {
    /// The whole of a small file of the archive.
    fn json(&self, entry: &str, role: Role, stored: &Stored, limit: u64) -> Result<Vec<u8>, Error> {
        if stored.sparse {
            return Err(Error::Sparse { file: self.name.clone(), role, entry: entry.to_owned() });
        }
        if stored.size > limit {
            return Err(Error::JsonTooLong {
                file: self.name.clone(),
                entry: entry.to_owned(),
                size: stored.size,
                limit,
            });
        }
        let mut bytes = vec![0; stored.size as usize];
        let mut filled = 0;
        while filled < bytes.len() {
            let at = stored.offset + filled as u64;
            match read_at(&self.file, &self.name, &mut bytes[filled..], at)? {
                0 => {
                    return Err(Error::TruncatedTar {
                        file: self.name.clone(),
                        at,
                        entry: Place::Content(entry.to_owned()),
                    });
                }
                count => filled += count,
            }
        }
        Ok(bytes)
    }
}

impl Bytes for FileBytes {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let count = read_at(&self.file, &self.name, buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }

    fn skip(&mut self, count: u64) -> Result<u64, Error> {
        let count = count.min(self.length.saturating_sub(self.position));
        self.position += count;
        Ok(count)
    }
}

fn read_at(file: &File, name: &Arc<str>, buffer: &mut [u8], at: u64) -> Result<usize, Error> {
    loop {
        match file.read_at(buffer, at) {
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => {
                return Err(Error::Read { file: name.clone(), at, source });
            }
        }
    }
}
