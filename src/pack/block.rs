//! The buffers that hold the bytes of layers. Their number is fixed and they are reused, so packing
//! needs the same memory for a big image as for a small one, and with a slow disk as with a fast one.

use std::io::{self, Read};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

/// A piece of a layer: one buffer for its bytes, and one for the compressed bytes.
///
/// Dropping it returns the buffers to the pool.
pub struct Block {
    buffers: Buffers,
    /// How much of `buffers.raw` is filled.
    len: usize,
    /// How much of `buffers.packed` is filled; `None` while the block is not compressed.
    packed: Option<usize>,
    pool: Arc<Pool>,
}

/// The buffers of all blocks.
pub(super) struct Pool {
    block_size: usize,
    free: (Sender<Buffers>, Receiver<Buffers>),
}

/// Allocated at first use: a push that packs nothing takes no memory for it.
#[derive(Default)]
struct Buffers {
    raw: Vec<u8>,
    packed: Vec<u8>,
}

impl Pool {
    /// A pool of `count` blocks, which take `block_size` bytes of a layer each.
    pub(super) fn new(block_size: usize, count: usize) -> Arc<Self> {
        let free = bounded(count);
        for _ in 0..count {
            // Cannot fail: the channel has room for `count`, and both of its ends exist.
            let _ = free.0.send(Buffers::default());
        }
        Arc::new(Self { block_size, free })
    }

    /// An empty block; waits for one if all are in use.
    pub(super) fn take(self: &Arc<Self>) -> Block {
        // `self` holds a sender, so the channel is connected and receiving cannot fail.
        let mut buffers = self.free.1.recv().unwrap_or_default();
        if buffers.raw.is_empty() {
            buffers.raw = vec![0; self.block_size];
        }
        Block { buffers, len: 0, packed: None, pool: Arc::clone(self) }
    }

    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.free.1.len()
    }
}

impl Block {
    /// Reads until the block is full or `reader` ends; returns how many bytes the block then has.
    /// 0 means that the reader had ended before.
    pub fn fill(&mut self, reader: &mut dyn Read) -> io::Result<usize> {
        while self.len < self.buffers.raw.len() {
            match reader.read(&mut self.buffers.raw[self.len..]) {
                Ok(0) => break,
                Ok(read) => self.len += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.len)
    }

    /// The bytes of the layer.
    pub fn bytes(&self) -> &[u8] {
        &self.buffers.raw[..self.len]
    }

    pub(super) fn is_full(&self) -> bool {
        self.len == self.buffers.raw.len()
    }

    /// Keeps only the first `len` bytes of the layer.
    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The bytes for the blob: the compressed ones if there are any, otherwise the layer's bytes.
    pub(super) fn stored(&self) -> &[u8] {
        match self.packed {
            Some(len) => &self.buffers.packed[..len],
            None => self.bytes(),
        }
    }

    /// Compresses the bytes with `encode`. It gets the bytes and a buffer of at least `room` bytes,
    /// and returns how many bytes it wrote there.
    pub(super) fn pack<E>(
        &mut self,
        room: usize,
        encode: impl FnOnce(&[u8], &mut [u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        if self.buffers.packed.len() < room {
            // Fresh zeroed memory, so that only what the compressor writes becomes resident.
            self.buffers.packed = vec![0; room];
        }
        let raw = &self.buffers.raw[..self.len];
        self.packed = Some(encode(raw, &mut self.buffers.packed)?);
        Ok(())
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // Cannot fail: the channel has room for every block, and the pool holds the receiver.
        let _ = self.pool.free.0.send(std::mem::take(&mut self.buffers));
    }
}
