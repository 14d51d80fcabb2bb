//! Layers that are already stored compressed, as kaniko, Bazel and Docker's containerd store do it.
//!
//! The stored bytes are the blob. Only the diff ID is still unknown, which is the digest of the
//! decompressed bytes. A thread decompresses the layer block by block. It passes a block on to the
//! blob's writer only after the whole block was decompressed without an error.

use std::io::{self, BufRead, Read};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};
use flate2::bufread::GzDecoder;

use super::block::Block;
use super::error::Error;
use super::spool::Tail;
use super::threads::spawn;
use crate::image::{Compression, DiffId, Hasher};

/// The largest window (log2) that a Zstandard frame may ask for: 128 MiB, which `zstd -d` accepts
/// without an option. Only the few frames that ask for it take that memory.
const WINDOW_LOG_MAX: u32 = 27;

/// How much is decompressed at a time.
const PIECE: usize = 128 << 10;

/// The compression of a layer that begins with these bytes; [`Compression::None`] for a tar and for
/// anything unknown.
pub fn sniff(start: &[u8]) -> Result<Compression, Error> {
    Ok(match start {
        [0x1f, 0x8b, 0x08, ..] => Compression::Gzip,
        // A frame, or a skippable frame before it (RFC 8878, sections 3.1.1 and 3.1.2).
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => return Err(Error::Unsayable("xz")),
        // The block size, then the digits of pi that begin a bzip2 block.
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => {
            return Err(Error::Unsayable("bzip2"));
        }
        _ => Compression::None,
    })
}

/// A layer being decompressed on a thread of its own.
pub(super) struct UnpackedLayer {
    compression: Compression,
    pieces: Sender<StoredBlock>,
    thread: JoinHandle<Result<DiffId, Error>>,
    /// The thread stops when this is dropped.
    _wanted: Arc<()>,
}

/// A block, and where it goes when it has been decompressed.
struct StoredBlock {
    block: Block,
    done: Option<Sender<Block>>,
}

impl UnpackedLayer {
    /// Starts the thread. If the layer is damaged, the thread ends `tail` with the error.
    pub(super) fn start(compression: Compression, tail: Option<Arc<Tail>>) -> Result<Self, Error> {
        // The number of blocks limits the length of this channel.
        let (pieces, input) = unbounded();
        let wanted = Arc::new(());
        let cancelled = Arc::downgrade(&wanted);
        let thread = spawn("pack-verify", move || {
            let mut pieces = StoredBlocks::new(input);
            let result = diff_id(compression, &mut pieces, &cancelled);
            if let (Err(error), Some(tail)) = (&result, tail) {
                // This must come before the pieces are dropped. From the dropped pieces the writer
                // could not see the cause.
                tail.fail(error.clone());
            }
            result
        })?;
        Ok(Self { compression, pieces, thread, _wanted: wanted })
    }

    /// How the layer is compressed.
    pub(super) fn compression(&self) -> Compression {
        self.compression
    }

    /// Adds the next block. `done` receives it after it was decompressed.
    ///
    /// Returns `Err` if the thread has ended with an error, which [`finish`](Self::finish) returns.
    pub(super) fn write(&self, block: Block, done: Option<Sender<Block>>) -> Result<(), ()> {
        self.pieces.send(StoredBlock { block, done }).map_err(drop)
    }

    /// Waits for the digest of all that the blocks decompress to.
    pub(super) fn finish(self) -> Result<DiffId, Error> {
        drop(self.pieces);
        // The thread does not panic; if it did, no diff ID would be known.
        self.thread.join().unwrap_or(Err(Error::Abandoned))
    }
}

fn diff_id(
    compression: Compression,
    pieces: &mut StoredBlocks,
    wanted: &Weak<()>,
) -> Result<DiffId, Error> {
    let damaged = |error: io::Error| match error.to_string().contains("too much memory") {
        // The crate gives zstd's error only as text.
        true => Error::WindowTooLarge { limit_mib: 1 << (WINDOW_LOG_MAX - 20) },
        false => Error::Damaged { compression, source: Arc::new(error) },
    };
    let mut decoder: Box<dyn Read + '_> = match compression {
        Compression::None => Box::new(pieces),
        Compression::Gzip => Box::new(GzipMembers { member: Some(GzDecoder::new(pieces)) }),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(pieces).map_err(damaged)?;
            decoder.window_log_max(WINDOW_LOG_MAX).map_err(damaged)?;
            Box::new(decoder)
        }
    };
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; PIECE];
    // A megabyte may decompress to gigabytes. So this checks after each piece of output, not only
    // after each block, whether the layer is still wanted.
    while wanted.strong_count() > 0 {
        match decoder.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish().into()),
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(damaged(error)),
        }
    }
    Err(Error::Abandoned)
}

/// Decompresses all members of a gzip file. Zeros after the last member do not become part of the
/// blob: `gzip` and `docker load` ignore them, but not every client of a registry does.
struct GzipMembers<'a> {
    /// `None` after the last member.
    member: Option<GzDecoder<&'a mut StoredBlocks>>,
}

impl Read for GzipMembers<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let read = member.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let pieces = self.member.take().map(GzDecoder::into_inner);
            if let Some(pieces) = pieces
                && pieces.has_another_member()?
            {
                self.member = Some(GzDecoder::new(pieces));
            }
        }
        Ok(0)
    }
}

/// The blocks as a stream. It passes a block on before it waits for the next one, because reading
/// the next one may need the buffers of this one.
struct StoredBlocks {
    input: Receiver<StoredBlock>,
    current: Option<StoredBlock>,
    position: usize,
}

impl StoredBlocks {
    fn new(input: Receiver<StoredBlock>) -> Self {
        Self { input, current: None, position: 0 }
    }

    /// Whether another gzip member follows the one that has ended. If only zeros follow up to the
    /// end, they are cut off.
    fn has_another_member(&mut self) -> io::Result<bool> {
        let mut is_padded = false;
        loop {
            let rest = self.fill_buf()?;
            match rest.first() {
                None => return Ok(false),
                Some(0) if rest.iter().all(|byte| *byte == 0) => is_padded = true,
                Some(_) if !is_padded => return Ok(true),
                Some(_) => {
                    let what = "other data follows the zeros behind the last member";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
            }
            if let Some(piece) = &mut self.current {
                piece.block.truncate(self.position);
            }
        }
    }

    fn rest(&self) -> &[u8] {
        self.current.as_ref().map_or(&[], |piece| &piece.block.bytes()[self.position..])
    }
}

impl BufRead for StoredBlocks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.rest().is_empty() {
            if let Some(StoredBlock { block, done: Some(done) }) = self.current.take() {
                // Fails only if the writer has panicked.
                let _ = done.send(block);
            }
            self.position = 0;
            match self.input.recv() {
                Ok(piece) => self.current = Some(piece),
                Err(_) => break,
            }
        }
        Ok(self.rest())
    }

    fn consume(&mut self, amount: usize) {
        self.position += amount;
    }
}

impl Read for StoredBlocks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}
