//! Sends the bytes of an archive to a machine. They are compressed for the line, and sent in
//! frames, so that the machine knows where the archive ends.
//!
//! The machine keeps the bytes that arrived. The same archive is compressed into the same bytes
//! each time, so a later connection leaves out the bytes that the machine has.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crc::{CRC_32_CKSUM, Crc};
use flate2::write::GzEncoder;
use zstd::stream::write::Encoder as ZstdEncoder;

/// How many bytes are compressed at a time, and the size of a frame.
const BLOCK: usize = 1 << 20;
/// Fast levels, which can keep up with a fast line. gzip's level 1 makes incompressible data 5 %
/// longer.
const ZSTD_LEVEL: i32 = 1;
const GZIP_LEVEL: u32 = 2;

/// How an archive is compressed for the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Plain,
    Gzip,
    Zstd,
}

impl Encoding {
    pub fn word(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    pub fn by_word(word: &str) -> Option<Self> {
        [Self::Plain, Self::Gzip, Self::Zstd].into_iter().find(|it| it.word() == word)
    }
}

/// The connection to a machine. It records whether writing failed, so that such an error can be
/// distinguished from an error while reading the image.
pub struct Pipe {
    file: File,
    sent: Arc<AtomicU64>,
    pub is_broken: bool,
}

impl Pipe {
    /// `sent` counts the bytes.
    pub fn new(file: File, sent: Arc<AtomicU64>) -> Self {
        Self { file, sent, is_broken: false }
    }
}

impl Write for &mut Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes).inspect_err(|_| self.is_broken = true)?;
        self.sent.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compresses an archive, and sends it in frames.
pub struct Transfer<'a> {
    encoder: LineEncoder<Frames<'a>>,
    /// Bytes that are not a whole block yet.
    block: Vec<u8>,
}

enum LineEncoder<W: Write> {
    Plain(W),
    Gzip(GzEncoder<W>),
    Zstd(ZstdEncoder<'static, W>),
}

impl<'a> Transfer<'a> {
    /// Leaves out the first `kept` bytes of the compressed archive, because the machine has them.
    pub fn new(pipe: &'a mut Pipe, encoding: Encoding, kept: u64) -> io::Result<Self> {
        let (frame, known) = (Vec::with_capacity(BLOCK), CRC.digest());
        let frames = Frames { pipe, kept, known, left_out: kept, frame };
        let encoder = match encoding {
            Encoding::Plain => LineEncoder::Plain(frames),
            Encoding::Gzip => {
                LineEncoder::Gzip(GzEncoder::new(frames, flate2::Compression::new(GZIP_LEVEL)))
            }
            Encoding::Zstd => LineEncoder::Zstd(ZstdEncoder::new(frames, ZSTD_LEVEL)?),
        };
        Ok(Self { encoder, block: Vec::with_capacity(BLOCK) })
    }

    /// Sends the rest, and marks the end of the archive.
    pub fn finish(mut self) -> io::Result<()> {
        self.encode()?;
        let mut frames = match self.encoder {
            LineEncoder::Plain(frames) => frames,
            LineEncoder::Gzip(encoder) => encoder.finish()?,
            LineEncoder::Zstd(encoder) => encoder.finish()?,
        };
        frames.send()?;
        let end = match frames.kept {
            0 => "0\n".to_owned(),
            kept => format!("0 {} {kept}\n", cksum(frames.known, kept)),
        };
        frames.pipe.write_all(end.as_bytes())
    }

    /// Compresses a block. All blocks have the same length, so the result does not depend on how
    /// the archive is written.
    fn encode(&mut self) -> io::Result<()> {
        match &mut self.encoder {
            LineEncoder::Plain(out) => out.write_all(&self.block)?,
            LineEncoder::Gzip(out) => out.write_all(&self.block)?,
            LineEncoder::Zstd(out) => out.write_all(&self.block)?,
        }
        self.block.clear();
        Ok(())
    }
}

impl Write for Transfer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == BLOCK {
            self.encode()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The checksum of POSIX's `cksum`, which every machine has.
static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_CKSUM);

/// Ends a checksum: `cksum` adds the length, the lowest byte first.
fn cksum(mut digest: crc::Digest<'static, u32>, length: u64) -> u32 {
    let bytes = length.to_le_bytes();
    let count = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    digest.update(&bytes[..count]);
    digest.finalize()
}

/// Sends frames: the length in digits, a line break, and that many bytes. The end is a frame of
/// length 0, with the checksum and the length of the bytes that were left out, if there were any.
struct Frames<'a> {
    pipe: &'a mut Pipe,
    /// How many bytes the machine has.
    kept: u64,
    /// The checksum of the bytes that were left out.
    known: crc::Digest<'static, u32>,
    /// How many more bytes to leave out, because the machine has them.
    left_out: u64,
    frame: Vec<u8>,
}

impl Frames<'_> {
    fn send(&mut self) -> io::Result<()> {
        if !self.frame.is_empty() {
            self.pipe.write_all(format!("{}\n", self.frame.len()).as_bytes())?;
            self.pipe.write_all(&self.frame)?;
            self.frame.clear();
        }
        Ok(())
    }
}

impl Write for Frames<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.left_out > 0 {
            let known = bytes.len().min(usize::try_from(self.left_out).unwrap_or(bytes.len()));
            self.left_out -= known as u64;
            self.known.update(&bytes[..known]);
            return Ok(known);
        }
        let taken = bytes.len().min(BLOCK - self.frame.len());
        self.frame.extend_from_slice(&bytes[..taken]);
        if self.frame.len() == BLOCK {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use super::*;

    /// The bytes that a machine has after it read the frames. A frame of length 0 marks the end.
    fn sent(encoding: Encoding, kept: u64, writes: &[&[u8]]) -> Vec<u8> {
        let mut file = tempfile::tempfile().unwrap();
        let count = Arc::<AtomicU64>::default();
        let mut pipe = Pipe::new(file.try_clone().unwrap(), count.clone());
        let mut transfer = Transfer::new(&mut pipe, encoding, kept).unwrap();
        writes.iter().for_each(|bytes| transfer.write_all(bytes).unwrap());
        transfer.finish().unwrap();
        let mut raw = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut raw).unwrap();
        assert_eq!(count.load(Ordering::Relaxed), raw.len() as u64);
        let (mut rest, mut bytes) = (raw.as_slice(), Vec::new());
        loop {
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap();
            let line = std::str::from_utf8(&rest[..end]).unwrap();
            let (length, checksum) = line.split_once(' ').unwrap_or((line, ""));
            let length: usize = length.parse().unwrap();
            rest = &rest[end + 1..];
            if length == 0 {
                assert_eq!(checksum.is_empty(), kept == 0);
                assert!(rest.is_empty());
                return bytes;
            }
            bytes.extend_from_slice(&rest[..length]);
            rest = &rest[length..];
        }
    }

    #[test]
    fn the_checksum_is_that_of_cksum() {
        let mut digest = CRC.digest();
        digest.update(b"123456789");
        // printf 123456789 | cksum
        assert_eq!(cksum(digest, 9), 930_766_865);
        assert_eq!(cksum(CRC.digest(), 0), 4_294_967_295);
    }

    #[test]
    fn what_does_not_compress_grows_by_next_to_nothing() {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let noise: Vec<u8> = (0..3_000_000).map(|_| next()).collect();
        for encoding in [Encoding::Plain, Encoding::Gzip, Encoding::Zstd] {
            let length = sent(encoding, 0, &[&noise]).len();
            assert!(length < noise.len() * 1001 / 1000, "{encoding:?}: {length}");
        }
    }

    #[test]
    fn whatever_is_kept_and_however_it_is_written_the_same_bytes_arrive() {
        let text: Vec<u8> = (0..3_000_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for encoding in [Encoding::Plain, Encoding::Gzip, Encoding::Zstd] {
            let whole = sent(encoding, 0, &[&text]);
            let decoded = match encoding {
                Encoding::Plain => whole.clone(),
                Encoding::Gzip => {
                    let mut decoded = Vec::new();
                    flate2::read::GzDecoder::new(&whole[..]).read_to_end(&mut decoded).unwrap();
                    decoded
                }
                Encoding::Zstd => zstd::decode_all(&whole[..]).unwrap(),
            };
            assert!(decoded == text, "{encoding:?}");
            let pieces: Vec<&[u8]> = text.chunks(99_991).collect();
            for kept in [1, whole.len() / 2, whole.len()] {
                let rest = sent(encoding, kept as u64, &pieces);
                assert!(rest == whole[kept..], "{encoding:?}, {kept}");
            }
        }
    }
}
