//! The compressors: how one block is compressed, and how much memory that takes.
//!
//! A block is compressed by itself, to gzip members (RFC 1952, section 2.2) or a Zstandard frame
//! (RFC 8878, section 3.1). Members and frames may be concatenated, so blocks can be compressed on
//! all cores at once, and the blob still depends on nothing but the bytes, the level, and the
//! version of the compressor. libdeflate writes no name, mtime 0 and operating system 255 on every
//! platform; frames carry their content's size and checksum.

use libdeflater::{CompressionLvl, Compressor as Deflate};
use zstd::bulk::Compressor as Zstandard;
use zstd::zstd_safe;

use super::error::Error;
use super::gzip;
use crate::image::Compression;

/// The lowest level of libdeflate at which layers of binaries are no larger than by `gzip -6`:
/// 108.3 MB from 335 MB, where `gzip -6` makes 108.7 MB and level 4 makes 110.3 MB.
const GZIP_LEVEL: i32 = 5;

/// The default of the program `zstd`.
const ZSTD_LEVEL: i32 = 3;

/// The memory that blocks may take together. Compressors come on top: see
/// [`Codec::most_threads`].
const BLOCKS_MEMORY: usize = 48 << 20;

/// The memory that blocks and the rest of the program may take together.
const MEMORY: usize = 80 << 20;

/// The fewest blocks. With fewer, reading, compressing and writing could not run at the same time.
const FEWEST_BLOCKS: usize = 3;

/// A compression, with a level that is valid for it.
#[derive(Clone, Copy)]
pub(super) enum Codec {
    None,
    Gzip(i32),
    Zstd(i32),
}

/// A compressor. Each thread has its own.
pub(super) enum Encoder {
    Gzip(Deflate),
    Zstd(Zstandard<'static>),
}

impl Codec {
    pub(super) fn new(compression: Compression, level: Option<i32>) -> Result<Self, Error> {
        let highest = compression.highest_level().unwrap_or(0);
        if let Some(level) = level
            && !(1..=highest).contains(&level)
        {
            return Err(Error::Level { compression, level });
        }
        Ok(match compression {
            Compression::None => Self::None,
            Compression::Gzip => Self::Gzip(level.unwrap_or(GZIP_LEVEL)),
            Compression::Zstd => Self::Zstd(level.unwrap_or(ZSTD_LEVEL)),
        })
    }

    pub(super) fn compression(self) -> Compression {
        match self {
            Self::None => Compression::None,
            Self::Gzip(_) => Compression::Gzip,
            Self::Zstd(_) => Compression::Zstd,
        }
    }

    /// The size of a block, which is compressed independently of the others.
    ///
    /// DEFLATE looks back 32 KiB, so blocks of 1 MiB lose nothing (larger blocks gain 0.1 %).
    /// Zstandard looks back megabytes: compared with one frame for the whole layer, blocks of 1 MiB
    /// lose 6.7 %, and blocks of 4 MiB lose 1.4 %.
    pub(super) fn block_size(self) -> usize {
        match self {
            Self::None | Self::Gzip(_) => 1 << 20,
            Self::Zstd(_) => 4 << 20,
        }
    }

    /// The number of threads above which the compressors' own memory would exceed some 64 MiB. From
    /// libdeflate's level 10 on, a compressor takes up to 9 MiB. With zstd it takes 4, 14 or 66
    /// MiB, depending on the level.
    pub(super) fn most_threads(self) -> usize {
        match self {
            Self::None => 0,
            Self::Gzip(..=9) => 16,
            Self::Gzip(_) | Self::Zstd(..=5) => 4,
            Self::Zstd(..=9) => 3,
            Self::Zstd(_) => 1,
        }
    }

    /// The number of blocks: enough to keep `threads` busy, but within the memory limit, from which
    /// `taken` bytes are subtracted. A block may take twice its size, because incompressible bytes
    /// do not shrink.
    pub(super) fn blocks(self, threads: usize, taken: usize) -> usize {
        let memory = BLOCKS_MEMORY.min(MEMORY.saturating_sub(taken));
        (2 * threads.max(1) + 2).min(memory / (2 * self.block_size())).max(FEWEST_BLOCKS)
    }

    /// A new compressor; `None` if blocks are not compressed.
    pub(super) fn encoder(self) -> Result<Option<Encoder>, Error> {
        Ok(match self {
            Self::None => None,
            Self::Gzip(level) => {
                let level = CompressionLvl::new(level)
                    .map_err(|_| self.failed(&format!("no level {level}")))?;
                Some(Encoder::Gzip(Deflate::new(level)))
            }
            Self::Zstd(level) => {
                let mut zstandard = Zstandard::new(level).map_err(|error| self.failed(&error))?;
                zstandard.include_checksum(true).map_err(|error| self.failed(&error))?;
                Some(Encoder::Zstd(zstandard))
            }
        })
    }

    pub(super) fn failed(self, error: &dyn std::fmt::Display) -> Error {
        Error::Compressor { compression: self.compression(), reason: error.to_string() }
    }
}

impl Encoder {
    /// The most bytes that [`encode`](Self::encode) writes for `len` bytes.
    pub(super) fn bound(&mut self, len: usize) -> usize {
        match self {
            Self::Gzip(deflate) => gzip::bound(deflate, len),
            Self::Zstd(_) => zstd_safe::compress_bound(len),
        }
    }

    /// Compresses `raw` to the start of `out`. Returns the compressed length.
    pub(super) fn encode(&mut self, raw: &[u8], out: &mut [u8]) -> Result<usize, String> {
        match self {
            Self::Gzip(deflate) => gzip::encode(deflate, raw, out),
            Self::Zstd(zstandard) => {
                zstandard.compress_to_buffer(raw, out).map_err(|error| error.to_string())
            }
        }
    }
}
