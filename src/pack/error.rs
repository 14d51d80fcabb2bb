//! Why a layer could not be packed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::image::Compression;
use crate::open_files;

/// Why a layer could not be packed. Everyone who waits for the layer gets a clone.
///
/// No variant says which layer it was; the caller that began the packing knows it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The compression has no such level.
    #[error("{compression} has {}, not {level}", levels(*.compression))]
    Level {
        /// The compression asked for.
        compression: Compression,
        /// The level asked for.
        level: i32,
    },
    /// No thread could be started.
    #[error("cannot start a thread to pack layers on: {0}")]
    Threads(#[source] Arc<io::Error>),
    /// The spool file could not be made, written or read, for example because the disk is full.
    #[error("cannot spool a layer in {}: {source}; {}", dir.display(), advice(source))]
    Spool {
        /// The directory of the spool files.
        dir: PathBuf,
        /// The operating system's error.
        source: Arc<io::Error>,
    },
    /// The compressor failed; no input should make it fail.
    #[error("{compression} compression failed: {reason}")]
    Compressor {
        /// The compression.
        compression: Compression,
        /// The compressor's error.
        reason: String,
    },
    /// A layer that is stored compressed cannot be decompressed, so no runtime could use it.
    #[error("its bytes begin as {compression} and cannot be decompressed: {source}")]
    Damaged {
        /// The compression, according to the first bytes.
        compression: Compression,
        /// The decompressor's error.
        source: Arc<io::Error>,
    },
    /// Decompressing a stored layer would take more memory than is allowed.
    #[error(
        "decompressing it, as its diff ID is to be checked, needs a window of more than {limit_mib} \
         MiB; store it with a smaller one (zstd without --long or --ultra)"
    )]
    WindowTooLarge {
        /// The limit in MiB.
        limit_mib: u32,
    },
    /// A layer is stored compressed in a way that neither Docker nor OCI has a media type for.
    #[error(
        "it is stored {0}-compressed, which no image manifest can say; store it as a plain tar, \
         or with gzip or zstd"
    )]
    Unsayable(&'static str),
    /// A block came after one that was not full. Then the blob would depend on how the layer was
    /// cut into blocks.
    #[error("a block that is not full must be a layer's last")]
    ShortBlock,
    /// The blob is not made, because its packing was dropped or now only hashes.
    #[error("the packing of the layer was given up")]
    Abandoned,
}

impl Error {
    pub(super) fn spool(dir: &Path, source: io::Error) -> Self {
        Self::Spool { dir: dir.to_owned(), source: Arc::new(source) }
    }
}

fn levels(compression: Compression) -> String {
    match compression.highest_level() {
        None => "no levels".to_owned(),
        Some(highest) => format!("the levels 1 to {highest}"),
    }
}

fn advice(source: &io::Error) -> &'static str {
    let otherwise = match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "set TMPDIR to a directory with more room"
        }
        _ => "set TMPDIR to a directory that can be written to",
    };
    open_files::advice(source, otherwise)
}
