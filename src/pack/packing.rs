//! One layer on its way from its source: hashed here, on the caller's thread, and given to the
//! threads that make its blob.

use std::mem;
use std::sync::Arc;

use super::Packer;
use super::block::Block;
use super::error::Error;
use super::spool::Tail;
use super::stored::{self, StoredLayer};
use crate::image::{Compression, DiffId, Hasher};

/// A layer being packed. Dropped before [`finish`](Self::finish), it leaves its blob
/// [abandoned](Error::Abandoned).
pub struct Packing {
    packer: Packer,
    /// The end of the blob; `None` where none is made.
    tail: Option<Arc<Tail>>,
    content: PackingState,
    /// Whether a block came that was not full, after which there can be no other.
    ended: bool,
}

/// What the first block showed the layer's bytes to be.
enum PackingState {
    /// No block came yet.
    Nothing,
    /// To be compressed.
    Tar(Hasher),
    /// Compressed already.
    Stored(StoredLayer),
    /// Blocks were lost: neither a blob nor a diff ID will come of the layer.
    Failed(Error),
}

impl Packing {
    pub(super) fn new(packer: Packer, tail: Option<Tail>) -> Self {
        Self { packer, tail: tail.map(Arc::new), content: PackingState::Nothing, ended: false }
    }

    /// Takes the layer's next bytes. Every block but the last must be full, which
    /// [`Block::fill`] sees to; an empty one changes nothing.
    ///
    /// An error may come of an earlier block. It ends the layer: [`finish`](Self::finish) and
    /// readers of the spool get it too.
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
                    // The thread has ended early, and only it knows why.
                    self.diff_id()?;
                    return Err(Error::Abandoned);
                }
            }
        }
        Ok(())
    }

    /// From here on only the diff ID is wanted: readers of the spool get [`Error::Abandoned`], and
    /// its file is gone.
    pub fn hash_only(&mut self) {
        if let Some(tail) = self.tail.take() {
            tail.fail(Error::Abandoned);
        }
    }

    /// Ends the layer. The blob may still be in the works: its [`Spool`](super::Spool) tells when
    /// it is whole, or that it failed.
    pub fn finish(mut self) -> Result<DiffId, Error> {
        let compression = match &self.content {
            PackingState::Stored(verifier) => verifier.compression(),
            _ => self.packer.0.codec.compression(),
        };
        if let (PackingState::Nothing, Some(tail)) = (&self.content, &self.tail) {
            // An empty file is no valid gzip or zstd; an empty member or frame is.
            give(&self.packer, tail, self.packer.block());
        }
        let diff_id = self.diff_id()?;
        if let Some(tail) = self.tail.take() {
            let threads = &self.packer.0.threads;
            threads.finish(tail, compression, diff_id.clone());
        }
        Ok(diff_id)
    }

    /// The digest of all that was written, decompressed. There is none to ask for after it.
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
            compression => Self::Stored(StoredLayer::start(compression, tail.cloned())?),
        })
    }
}

/// Has a block of a tar made part of the blob.
fn give(packer: &Packer, tail: &Arc<Tail>, block: Block) {
    let threads = &packer.0.threads;
    if packer.0.codec.compression() == Compression::None {
        // There is room for one, and nobody has received it yet.
        let _ = threads.append(tail).send(block);
    } else {
        threads.compress(tail, block);
    }
}
