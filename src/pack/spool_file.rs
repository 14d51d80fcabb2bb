//! The file behind the spools: one unlinked temporary file that all blobs of a packer share, so that
//! layers that wait for their upload cost no file descriptors.
//!
//! The file is divided into slots of one size. A blob takes free slots as it grows and gives them
//! back when its last owner is dropped; the system then frees their room on the disk, and the next
//! blobs use the slots again. The last slot of a blob is filled only as far as the blob goes, so a
//! small blob takes little room.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use super::error::Error;

/// The size of a slot: the uploader reads this much at a time. A blob of 10 GB has 40,000 slots.
const SLOT: u64 = 256 << 10;

/// The file that blobs share.
pub(super) struct SpoolFile {
    file: File,
    dir: PathBuf,
    slots: Mutex<FreeSlots>,
}

#[derive(Default)]
struct FreeSlots {
    /// Slots that were given back. The lowest is used next, so that the file stays short.
    returned: BinaryHeap<Reverse<u32>>,
    /// The first slot that was never used. All slots after it are unused, too.
    unused: u32,
}

/// The slots that one blob takes in the file.
pub(super) struct SpoolSpace {
    file: Arc<SpoolFile>,
    slots: Mutex<Vec<u32>>,
}

impl SpoolFile {
    /// Makes an empty file in `dir`.
    pub(super) fn create(dir: &Path) -> Result<Arc<Self>, Error> {
        let file = tempfile::tempfile_in(dir).map_err(|error| Error::spool(dir, error))?;
        Ok(Self::over(file, dir))
    }

    pub(super) fn over(file: File, dir: &Path) -> Arc<Self> {
        Arc::new(Self { file, dir: dir.to_owned(), slots: Mutex::default() })
    }

    /// The error for spooling that failed with `error`.
    pub(super) fn error(&self, error: io::Error) -> Error {
        Error::spool(&self.dir, error)
    }

    fn take(&self) -> u32 {
        let mut slots = self.slots.lock();
        if let Some(Reverse(slot)) = slots.returned.pop() {
            return slot;
        }
        slots.unused += 1;
        slots.unused - 1
    }

    fn give_back(&self, mut slots: Vec<u32>) {
        slots.sort_unstable();
        for run in slots.chunk_by(|a, b| a + 1 == *b) {
            let start = u64::from(run[0]) * SLOT;
            free_room(&self.file, start..start + run.len() as u64 * SLOT);
        }
        self.slots.lock().returned.extend(slots.into_iter().map(Reverse));
    }
}

impl SpoolSpace {
    /// Space for a blob of which nothing is written yet.
    pub(super) fn new(file: &Arc<SpoolFile>) -> Self {
        Self { file: Arc::clone(file), slots: Mutex::default() }
    }

    /// Writes `bytes` at this position of the blob, which must not be beyond what was written.
    pub(super) fn write(&self, mut bytes: &[u8], mut position: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            let (offset, room) = self.locate(position);
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.file.file.write_all_at(now, offset)?;
            position += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    /// Reads up to `max` bytes at this position of the blob, at least one if `max` is not 0. They
    /// must have been written.
    pub(super) fn read(&self, position: u64, max: usize) -> io::Result<Bytes> {
        let (offset, room) = self.locate(position);
        let mut bytes = BytesMut::zeroed(max.min(room));
        self.file.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes.freeze())
    }

    /// Where a position of the blob is in the file, and how many bytes follow in that slot.
    fn locate(&self, position: u64) -> (u64, usize) {
        let number = (position / SLOT) as usize;
        let within = position % SLOT;
        let mut slots = self.slots.lock();
        while slots.len() <= number {
            slots.push(self.file.take());
        }
        (u64::from(slots[number]) * SLOT + within, (SLOT - within) as usize)
    }
}

impl Drop for SpoolSpace {
    fn drop(&mut self) {
        self.file.give_back(std::mem::take(self.slots.get_mut()));
    }
}

/// Frees the disk space. If the file system cannot do that, the slots are still reused.
#[cfg(target_os = "linux")]
fn free_room(file: &File, range: Range<u64>) {
    use rustix::fs::{FallocateFlags, fallocate};
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let _ = fallocate(file, hole, range.start, range.end - range.start);
}

#[cfg(not(target_os = "linux"))]
fn free_room(_: &File, _: Range<u64>) {}
