//! A plain tar in a file: what it holds by name. Only headers are read to know it, one small read
//! each; contents wait where they are.
//!
//! Comes in: a file. Goes out: a docker archive or an OCI layout, whichever its entries make it;
//! what is both is a docker archive, as Docker itself takes it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::decompress::{Progress, Wrapping};
use super::docker_archive::seekable;
use super::entries::{Entries, MANIFEST, OCI_LAYOUT, normalise};
use super::error::{Error, Place, Role};
use super::tar::{Bytes, Kind, Tar};
use super::{Contents, layout};

/// A tar whose headers were read.
pub struct TarFile {
    /// The file.
    pub file: File,
    /// Its name for messages.
    pub name: Arc<str>,
    /// How long it is.
    pub length: u64,
    /// What it holds.
    pub entries: Entries<Stored>,
    /// The error for an archive that lacks something, where it may have been cut off.
    cut_off: Option<Error>,
}

/// Where a file of the archive is.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// Where its content begins.
    pub offset: u64,
    /// How long that is.
    pub size: u64,
    /// Whether its holes are not stored.
    pub sparse: bool,
}

/// Opens the tar in `file`, which is `length` bytes long.
pub fn open(
    file: File,
    length: u64,
    name: Arc<str>,
    progress: Progress,
) -> Result<Contents, Error> {
    let tar = TarFile::walk(file, length, name)?;
    if tar.entries.contains(MANIFEST) {
        seekable::open(tar, progress).map(Contents::Layers)
    } else if tar.entries.contains(OCI_LAYOUT) {
        layout::open_archive(tar).map(Contents::Layout)
    } else {
        let error = tar.entries.without_manifest();
        Err(tar.incomplete(error))
    }
}

impl TarFile {
    fn walk(file: File, length: u64, name: Arc<str>) -> Result<Self, Error> {
        let bytes = FileBytes { file, name: name.clone(), position: 0, length };
        let mut tar = Tar::new(bytes, name.clone(), Wrapping::None);
        let mut entries = Entries::new(name.clone());
        while let Some(entry) = tar.next_entry()? {
            let stored_name = normalise(&entry.name);
            if !entries.may_be_needed(&stored_name) {
                continue;
            }
            entries.check_kind()?;
            let sparse = entry.kind == Kind::Sparse;
            let stored = Stored { offset: entry.offset, size: entry.size, sparse };
            match entry.kind {
                Kind::File | Kind::Sparse => entries.insert_file(stored_name, stored)?,
                Kind::Symlink(target) => entries.insert_symlink(stored_name, &target)?,
                Kind::HardLink(target) => entries.insert_hard_link(stored_name, &target)?,
                Kind::Other => {}
            }
        }
        let cut_off = tar.is_cut_off().then(|| tar.truncated());
        let FileBytes { file, .. } = tar.into_bytes();
        Ok(Self { file, name, length, entries, cut_off })
    }

    /// The error for what the archive lacks: it says so where the archive was cut off.
    pub fn incomplete(self, otherwise: Error) -> Error {
        self.cut_off.unwrap_or(otherwise)
    }

    /// The whole of a small file of the archive.
    pub fn json(
        &self,
        entry: &str,
        role: Role,
        stored: &Stored,
        limit: u64,
    ) -> Result<Vec<u8>, Error> {
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

/// The file, as the walk over its headers reads it.
struct FileBytes {
    file: File,
    name: Arc<str>,
    position: u64,
    length: u64,
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

/// Reads from a place in a file.
pub fn read_at(file: &File, name: &Arc<str>, buffer: &mut [u8], at: u64) -> Result<usize, Error> {
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
