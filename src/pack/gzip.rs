//! Turns one block into gzip members (RFC 1952, section 2.2). libdeflate compresses the stretches
//! that can be compressed. The others are copied unchanged into stored DEFLATE blocks (RFC 1951,
//! section 3.2.4).

use libdeflater::{Compressor, Crc};

use super::density::{Stretch, stretches};

/// Magic, DEFLATE, no flags, no time, no XFL, operating system unknown: what libdeflate writes.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// The longest stored DEFLATE block.
const LONGEST_STORED: usize = 0xffff;

/// An upper limit for what each further member adds to [`Compressor::gzip_compress_bound`].
const MEMBER_OVERHEAD: usize = 64;

/// The smallest average content of members: a dense stretch of 7 KiB and a compressible one of 1
/// KiB alternate.
const SHORTEST_MEMBERS: usize = 4 << 10;

/// The most bytes that [`encode`] writes for `len` bytes.
pub(super) fn bound(compressor: &mut Compressor, len: usize) -> usize {
    compressor.gzip_compress_bound(len) + (len / SHORTEST_MEMBERS + 2) * MEMBER_OVERHEAD
}

/// Writes `raw` as gzip members to the start of `out`; returns how long they are.
pub(super) fn encode(
    compressor: &mut Compressor,
    raw: &[u8],
    out: &mut [u8],
) -> Result<usize, String> {
    if raw.is_empty() {
        return deflate(compressor, raw, out);
    }
    let mut length = 0;
    for stretch in stretches(raw) {
        length += match stretch {
            Stretch::Compressible(range) => deflate(compressor, &raw[range], &mut out[length..])?,
            Stretch::Dense(range) => store(&raw[range], &mut out[length..])?,
        };
    }
    Ok(length)
}

fn deflate(compressor: &mut Compressor, raw: &[u8], out: &mut [u8]) -> Result<usize, String> {
    compressor.gzip_compress(raw, out).map_err(|error| error.to_string())
}

/// Writes a member that holds `raw` uncompressed. `raw` must not be empty.
fn store(raw: &[u8], out: &mut [u8]) -> Result<usize, String> {
    let mut crc = Crc::new();
    crc.update(raw);
    let mut rest = out;
    put(&mut rest, &HEADER)?;
    let blocks = raw.len().div_ceil(LONGEST_STORED);
    for (number, block) in raw.chunks(LONGEST_STORED).enumerate() {
        let is_last = number + 1 == blocks;
        // At most LONGEST_STORED, so it fits.
        let length = block.len() as u16;
        put(&mut rest, &[u8::from(is_last)])?;
        put(&mut rest, &length.to_le_bytes())?;
        put(&mut rest, &(!length).to_le_bytes())?;
        put(&mut rest, block)?;
    }
    put(&mut rest, &crc.sum().to_le_bytes())?;
    // RFC 1952 takes the length modulo 2^32.
    put(&mut rest, &(raw.len() as u32).to_le_bytes())?;
    Ok(HEADER.len() + 5 * blocks + raw.len() + 8)
}

fn put(out: &mut &mut [u8], bytes: &[u8]) -> Result<(), String> {
    let (start, rest) = std::mem::take(out)
        .split_at_mut_checked(bytes.len())
        .ok_or("the buffer for a gzip member is too small")?;
    start.copy_from_slice(bytes);
    *out = rest;
    Ok(())
}
