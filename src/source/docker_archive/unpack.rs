//! Layers stored as xz or bzip2. Clients of registries cannot read these, so they are decompressed
//! and packed again. Layers that are a tar, gzip or Zstandard are returned as they are stored.

use std::io::{self, Read};

use bzip2::Decompress as Bzip2;
use liblzma::stream::{Action, CONCATENATED, Status, Stream as Xz};

use crate::source::wrapping::{self, Wrapping};

/// How much is read of the stored bytes at a time.
const READ_AT_ONCE: usize = 64 << 10;

/// The decompressor of one layer.
pub struct Unpacker {
    decoder: Decoder,
    input: Vec<u8>,
    start: usize,
    end: usize,
    /// Whether all stored bytes were read.
    at_end: bool,
}

enum Decoder {
    Xz(Xz),
    /// The flag says whether a stream has begun. Several streams may follow one another.
    Bzip2(Bzip2, bool),
}

/// The memory in bytes that reading a layer takes. `head` is the beginning of the layer.
pub fn memory(head: &[u8]) -> usize {
    match Wrapping::of(head) {
        compressed @ (Wrapping::Xz | Wrapping::Bzip2) => wrapping::memory(compressed, head),
        Wrapping::None | Wrapping::Gzip | Wrapping::Zstd => 0,
    }
}

impl Unpacker {
    /// The decompressor for the layer that begins with `head`; `None` if the layer is returned as
    /// it is stored.
    pub fn new(head: &[u8]) -> io::Result<Option<Self>> {
        let decoder = match Wrapping::of(head) {
            Wrapping::Xz => Decoder::Xz(Xz::new_stream_decoder(memory(head) as u64, CONCATENATED)?),
            Wrapping::Bzip2 => Decoder::Bzip2(Bzip2::new(false), false),
            Wrapping::None | Wrapping::Gzip | Wrapping::Zstd => return Ok(None),
        };
        let input = vec![0; READ_AT_ONCE];
        Ok(Some(Self { decoder, input, start: 0, end: 0, at_end: false }))
    }

    /// Reads the next decompressed bytes. `stored` gives the compressed ones.
    pub fn read(&mut self, stored: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.start == self.end && !self.at_end {
                self.end = stored.read(&mut self.input)?;
                (self.start, self.at_end) = (0, self.end == 0);
            }
            let input = &self.input[self.start..self.end];
            let (consumed, produced, is_over) = self.decoder.decode(input, buffer, self.at_end)?;
            self.start += consumed;
            if produced > 0 || is_over || buffer.is_empty() {
                return Ok(produced);
            }
            if self.at_end && consumed == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl Decoder {
    /// How many bytes were consumed and produced, and whether this is the end.
    fn decode(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        at_end: bool,
    ) -> io::Result<(usize, usize, bool)> {
        match self {
            Self::Xz(xz) => {
                let (read, written) = (xz.total_in(), xz.total_out());
                let action = if at_end { Action::Finish } else { Action::Run };
                let status = xz.process(input, output, action)?;
                // Both are bounded by the lengths of the two slices.
                let consumed = (xz.total_in() - read) as usize;
                let produced = (xz.total_out() - written) as usize;
                Ok((consumed, produced, status == Status::StreamEnd))
            }
            Self::Bzip2(_, false) if at_end && input.is_empty() => Ok((0, 0, true)),
            Self::Bzip2(bzip2, has_begun) => {
                let (read, written) = (bzip2.total_in(), bzip2.total_out());
                let status = bzip2.decompress(input, output).map_err(io::Error::other)?;
                let consumed = (bzip2.total_in() - read) as usize;
                let produced = (bzip2.total_out() - written) as usize;
                *has_begun = status != bzip2::Status::StreamEnd;
                if !*has_begun {
                    *bzip2 = Bzip2::new(false);
                }
                Ok((consumed, produced, false))
            }
        }
    }
}
