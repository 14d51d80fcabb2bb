//! Turns the bytes of a layer into a blob. They are hashed, compressed on all cores and spooled,
//! block by block, while the layer is being read.
//!
//! ```text
//!  reader ─► Block ─► Packing::write ─► compressors ─► writer ─► Spool ─► readers
//!  (caller's thread)   SHA-256: diff ID   (threads)    SHA-256: digest     (async, while it grows)
//! ```
//!
//! ```no_run
//! # use pushimg::{image::Compression, pack};
//! # fn pack(options: pack::Options, layer: &mut dyn std::io::Read) -> Result<(), Box<dyn std::error::Error>> {
//! let packer = pack::Packer::new(options)?;
//! let (mut packing, spool) = packer.begin()?;
//! loop {
//!     let mut block = packer.block();
//!     if block.fill(layer)? == 0 {
//!         break;
//!     }
//!     packing.write(block)?;
//! }
//! let diff_id = packing.finish()?;
//! // Meanwhile, or later, elsewhere: spool.chunk(0, 256 << 10).await, spool.finished().await
//! # Ok(())
//! # }
//! ```
//!
//! A blob is a function of the layer's bytes, the compression and its level: blocks of a fixed
//! size are compressed independently and put together in order. With gzip, stretches of a block that
//! do not compress are stored. Memory is bounded by the number of blocks, which take 48 MiB at most;
//! [`Packer::block`] waits while all are in use.
//!
//! A layer that is already stored as gzip or zstd is used as the blob. It is decompressed only to
//! compute its diff ID and to check that it is undamaged.

mod block;
mod codec;
mod density;
mod error;
mod gzip;
mod packed;
mod packing;
mod spool;
mod spool_file;
mod stored;
#[cfg(test)]
mod tests;
mod threads;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

use self::block::Pool;
use self::codec::Codec;
use self::spool_file::SpoolFile;
use self::threads::Threads;
use crate::image::Compression;

pub use self::block::Block;
pub use self::error::Error;
pub use self::packed::Packed;
pub use self::packing::Packing;
pub use self::spool::Spool;
pub use self::stored::sniff as compression_of;

/// The recipe by which layers are packed, as the cache names it. Another version of the program may
/// pack differently. Raise the number if the same version packs differently.
pub(crate) fn recipe(compression: Compression, level: Option<i32>) -> String {
    let level = level.map_or("default".to_owned(), |level| level.to_string());
    format!("pushimg {} 3 {compression} {level}", env!("CARGO_PKG_VERSION"))
}

/// How layers are packed.
#[derive(Clone, Debug)]
pub struct Options {
    /// How layers that are stored as a plain tar are compressed.
    pub compression: Compression,
    /// 1 to 12 for gzip (libdeflate's levels; 5 unless given), 1 to 22 for zstd (3 unless given).
    pub level: Option<i32>,
    /// The number of compressing threads; 0 means one for each core. At most 16 are used, and fewer
    /// if they would take too much memory. The blobs do not depend on it.
    pub threads: usize,
    /// Memory in bytes that other parts of the program take at the same time, up to some 70 MiB.
    /// Packing then uses less memory and may be slower. The blobs do not depend on it.
    pub taken: usize,
    /// The directory of the spool file. The file is unlinked, so it has no name there.
    pub spool_dir: PathBuf,
}

/// Packs layers. Clones share the threads and the memory. The threads end when all clones and
/// packings are dropped and all blobs that are still needed are finished.
#[derive(Clone)]
pub struct Packer(Arc<Inner>);

struct Inner {
    codec: Codec,
    threads: Threads,
    pool: Arc<Pool>,
    spool_dir: PathBuf,
    /// Made for the first blob: a push that packs nothing needs none.
    spool_file: Mutex<Option<Arc<SpoolFile>>>,
}

impl Packer {
    /// Starts the threads.
    pub fn new(options: Options) -> Result<Self, Error> {
        Self::start(options).map(|(packer, _)| packer)
    }

    fn start(options: Options) -> Result<(Self, Vec<JoinHandle<()>>), Error> {
        let codec = Codec::new(options.compression, options.level)?;
        let threads = match options.threads {
            0 => thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
        .min(codec.most_threads());
        let blocks = codec.blocks(threads, options.taken);
        // Each busy thread needs a block, so more threads would be idle.
        let threads = threads.min(blocks);
        let pool = Pool::new(codec.block_size(), blocks);
        let (threads, handles) = Threads::start(codec, threads)?;
        let inner = Inner {
            codec,
            threads,
            pool,
            spool_dir: options.spool_dir,
            spool_file: Mutex::default(),
        };
        Ok((Self(Arc::new(inner)), handles))
    }

    /// An empty block to read a layer into. Waits until one is free, so a thread must not hold
    /// several.
    pub fn block(&self) -> Block {
        self.0.pool.take()
    }

    /// Begins a layer and its blob. When the spool and all its clones are dropped, the blob is not
    /// made any further.
    pub fn begin(&self) -> Result<(Packing, Spool), Error> {
        let (spool, tail) = Spool::new(&self.spool_file()?);
        Ok((Packing::new(self.clone(), Some(tail)), spool))
    }

    fn spool_file(&self) -> Result<Arc<SpoolFile>, Error> {
        let mut file = self.0.spool_file.lock();
        match &*file {
            Some(file) => Ok(Arc::clone(file)),
            None => Ok(Arc::clone(file.insert(SpoolFile::create(&self.0.spool_dir)?))),
        }
    }

    /// Begins a layer for which only the diff ID is computed.
    pub fn hash(&self) -> Packing {
        Packing::new(self.clone(), None)
    }
}
