//! How a file is compressed, recognised by its first bytes, and the memory that reading it takes.

use std::fmt;

use super::gzip;

/// The largest zstd window, as a power of two: 128 MiB, which `zstd -d` takes without an option.
const MAX_ZSTD_WINDOW_LOG: u32 = 27;

/// The window that is allowed if the file does not begin with a frame that says its window: 64 MiB.
/// Every level except `--ultra -22` and `--long` needs less. The window and the rest of the program
/// share 100 MiB.
const UNTOLD_ZSTD_WINDOW_LOG: u32 = 26;

/// The window that any frame may ask for, even if the first frame needs less: 8 MiB (RFC 8878,
/// section 3.1.1.1.2).
const LEAST_ZSTD_WINDOW_LOG: u32 = 23;

/// The memory that xz may use: enough for `xz -9`, which takes 65 MiB.
const MAX_XZ_MEMORY: usize = 72 << 20;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapping {
    /// Not compressed.
    None,
    /// gzip, RFC 1952.
    Gzip,
    /// Zstandard, RFC 8878.
    Zstd,
    /// The .xz file format.
    Xz,
    /// bzip2.
    Bzip2,
}

impl Wrapping {
    /// The compression of a file that begins with `head`; [`Self::None`] if it is not compressed.
    pub fn of(head: &[u8]) -> Self {
        match head {
            [a, b, ..] if [*a, *b] == gzip::MAGIC => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame, with which parallel compressors begin.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            _ => Self::None,
        }
    }

    /// The command that decompresses a file without a memory limit.
    pub fn command(self) -> &'static str {
        match self {
            Self::None => "cat",
            Self::Gzip => "gzip -dc",
            Self::Zstd => "zstd -dc --long=31",
            Self::Xz => "xz -dc",
            Self::Bzip2 => "bzip2 -dc",
        }
    }
}

/// The most memory in bytes that decompressing a file may take. `head` is its beginning.
///
/// Later frames may ask for more than the first one. If they ask for more than this, that is an
/// error.
pub fn memory(wrapping: Wrapping, head: &[u8]) -> usize {
    match wrapping {
        Wrapping::None | Wrapping::Gzip => 0,
        Wrapping::Zstd => 1 << zstd_window_log(head),
        Wrapping::Xz => MAX_XZ_MEMORY,
        // Four bytes for each of the 900,000 bytes of a block, and the block itself.
        Wrapping::Bzip2 => 5 << 20,
    }
}

/// The content size in a frame's header, if it has one (RFC 8878, section 3.1.1.1.4), or a little
/// more.
fn content_size(descriptor: u8, fields: &[u8]) -> u64 {
    let dictionary_id = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let length = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let mut bytes = [0; 8];
    let size = fields.get(dictionary_id..dictionary_id + length).unwrap_or_default();
    bytes[..size.len()].copy_from_slice(size);
    // A size of two bytes is stored minus 256. For the other forms 256 more do not matter. No file
    // is longer than 2^62 bytes.
    u64::from_le_bytes(bytes).saturating_add(256).min(1 << 62)
}

/// The window that the first frame asks for (RFC 8878, section 3.1.1.1), within limits;
/// [`UNTOLD_ZSTD_WINDOW_LOG`] if the file does not begin with a frame.
fn zstd_window_log(head: &[u8]) -> u32 {
    const SINGLE_SEGMENT: u8 = 1 << 5;
    let asked = match head {
        [0x28, 0xb5, 0x2f, 0xfd, descriptor, window, ..] if descriptor & SINGLE_SEGMENT == 0 => {
            let (exponent, eighths) = (window >> 3, window & 7);
            10 + u32::from(exponent) + u32::from(eighths > 0)
        }
        // A frame of a single segment: its window is its whole content.
        [0x28, 0xb5, 0x2f, 0xfd, descriptor, fields @ ..] => {
            content_size(*descriptor, fields).max(1).next_power_of_two().ilog2()
        }
        _ => UNTOLD_ZSTD_WINDOW_LOG,
    };
    asked.clamp(LEAST_ZSTD_WINDOW_LOG, MAX_ZSTD_WINDOW_LOG)
}

impl fmt::Display for Wrapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "uncompressed",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
        })
    }
}
