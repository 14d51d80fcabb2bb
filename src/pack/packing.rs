//! Packs one layer: hashes its blocks on the caller's thread, and gives them to the threads that
//! make the blob.

use std::mem;
use std::sync::Arc;

use super::Packer;
use super::block::Block;
use super::error::Error;
use super::spool::Tail;
use super::stored::{self, UnpackedLayer};
use crate::image::{Compression, DiffId, Hasher};

/// A layer that is being packed. If it is dropped before [`finish`](Self::finish), readers of its
/// blob get [`Error::Abandoned`].
pub struct Packing {
    packer: Packer,
    /// The writer's side of the blob; `None` if no blob is made.
    tail: Option<Arc<Tail>>,
    content: PackingState,
    /// Whether a block came that was not full. It must be the last one.
    ended: bool,
}

/// The kind of the layer's bytes, known from the first block.
enum PackingState {
    /// No block came yet.
    Nothing,
    /// To be compressed.
    Tar(Hasher),
    /// Compressed already.
    Stored(UnpackedLayer),
    /// Packing has failed, so the layer gets neither a blob nor a diff ID.
    Failed(Error),
}

impl Packing {
    pub(super) fn new(packer: Packer, tail: Option<Tail>) -> Self {
        Self { packer, tail: tail.map(Arc::new), content: PackingState::Nothing, ended: false }
    }

    /// Adds the layer's next bytes. Every block but the last must be full, as [`Block::fill`]
    /// leaves it. An empty block changes nothing.
    ///
    /// An earlier block may have caused the error. After an error the layer cannot be packed:
    /// [`finish`](Self::finish) and readers of the spool get the error, too.
    pub fn write(&mut self, block: Block) -> Result<(), Error> {
        if block.bytes().is_empty() {
            return Ok(());
        }
        self.take(block).map_err(|error| self.fail(error))
    }

    fn take(&mut self, block: Block) -> Result<(), Error> {
        if let PackingState::Failed(error) = &self.content {
            return Err(error.clone());
        }
        if self.ended {
            return Err(Error::ShortBlock);
        }
        self.ended = !block.is_full();
        if let Some(error) = self.tail.as_deref().and_then(Tail::failure) {
            return Err(error);
        }
        if let PackingState::Nothing = self.content {
            self.content = PackingState::of(&block, self.tail.as_ref())?;
        }
        match &mut self.content {
            PackingState::Nothing | PackingState::Failed(_) => {}
            PackingState::Tar(hasher) => {
                hasher.update(block.bytes());
                if let Some(tail) = &self.tail {
                    give(&self.packer, tail, block);
                }
            }
            PackingState::Stored(verifier) => {
                let threads = &self.packer.0.threads;
                let done = self.tail.as_ref().map(|tail| threads.append(tail));
                if verifier.write(block, done).is_err() {
                    // The thread has ended early. Its error comes from `diff_id`.
                    self.diff_id()?;
                    return Err(Error::Abandoned);
                }
            }
        }
        Ok(())
    }

    /// Stops making the blob; only the diff ID is still computed. Readers of the spool get
    /// [`Error::Abandoned`], and its disk space is freed.
    pub fn hash_only(&mut self) {
        if let Some(tail) = self.tail.take() {
            tail.fail(Error::Abandoned);
        }
    }

    /// Ends the layer and returns its diff ID. The blob may not be finished yet:
    /// [`Spool::finished`](super::Spool::finished) waits for it.
    pub fn finish(mut self) -> Result<DiffId, Error> {
        let compression = match &self.content {
            PackingState::Stored(verifier) => verifier.compression(),
            _ => self.packer.0.codec.compression(),
        };
        if let (PackingState::Nothing, Some(tail)) = (&self.content, &self.tail) {
            // An empty file is not valid gzip or zstd, so an empty member or frame is written.
            give(&self.packer, tail, self.packer.block());
        }
        let diff_id = self.diff_id()?;
        if let Some(tail) = self.tail.take() {
            let threads = &self.packer.0.threads;
            threads.finish(tail, compression, diff_id.clone());
        }
        Ok(diff_id)
    }

    /// The digest of all bytes that were written, decompressed. It can be asked for only once.
    fn diff_id(&mut self) -> Result<DiffId, Error> {
        match mem::replace(&mut self.content, PackingState::Failed(Error::Abandoned)) {
            PackingState::Nothing => Ok(Hasher::new().finish().into()),
            PackingState::Tar(hasher) => Ok(hasher.finish().into()),
            PackingState::Stored(verifier) => verifier.finish(),
            PackingState::Failed(error) => Err(error),
        }
    }

    fn fail(&mut self, error: Error) -> Error {
        if let Some(tail) = self.tail.take() {
            tail.fail(error.clone());
        }
        self.content = PackingState::Failed(error.clone());
        error
    }
}

impl Drop for Packing {
    fn drop(&mut self) {
        self.hash_only();
    }
}

impl PackingState {
    fn of(first: &Block, tail: Option<&Arc<Tail>>) -> Result<Self, Error> {
        Ok(match stored::sniff(first.bytes())? {
            Compression::None => Self::Tar(Hasher::new()),
            compression => Self::Stored(UnpackedLayer::start(compression, tail.cloned())?),
        })
    }
}

/// Gives a block of a tar to the threads, which append it to the blob.
fn give(packer: &Packer, tail: &Arc<Tail>, block: Block) {
    let threads = &packer.0.threads;
    if packer.0.codec.compression() == Compression::None {
        // Does not wait: the channel has room for this one block.
        let _ = threads.append(tail).send(block);
    } else {
        threads.compress(tail, block);
    }
}
