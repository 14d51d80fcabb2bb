//! Decompresses a gzip stream (RFC 1952) and checks every member's trailer.
//!
//! This differs from flate2's own reader in three ways. libdeflate computes the checksum, which saves
//! a tenth of the time. Zeros and garbage after the last member are skipped, as gzip does. And a file
//! that was cut off gets another error than one that is damaged.

use std::io::{self, BufRead, Read};

use flate2::{Decompress, FlushDecompress, Status};
use libdeflater::Crc;

/// The first two bytes of every member.
pub const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A reader that decompresses.
///
/// Fails with [`io::ErrorKind::UnexpectedEof`] if the input was cut off, and with
/// [`io::ErrorKind::InvalidData`] if it is damaged. Errors of the input are returned as they are.
pub struct GzipReader<R> {
    input: R,
    inflate: Decompress,
    crc: Crc,
    /// The length of this member's content so far, modulo 2^32, as in its trailer.
    length: u32,
    state: MemberState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum MemberState {
    FirstHeader,
    Data,
    BetweenMembers,
    End,
}

impl<R: BufRead> GzipReader<R> {
    /// A reader of the members in `input`.
    pub fn new(input: R) -> Self {
        Self {
            input,
            inflate: Decompress::new(false),
            crc: Crc::new(),
            length: 0,
            state: MemberState::FirstHeader,
        }
    }

    /// Reads a member's header from its third byte on (RFC 1952, section 2.3, "Member format").
    fn header(&mut self) -> io::Result<()> {
        const HEADER_CRC: u8 = 1 << 1;
        const EXTRA: u8 = 1 << 2;
        const NAME: u8 = 1 << 3;
        const COMMENT: u8 = 1 << 4;
        const RESERVED: u8 = 0b1110_0000;

        // Method, flags, modification time, extra flags, operating system.
        let fixed: [u8; 8] = self.array()?;
        if fixed[0] != 8 {
            return Err(corrupt("its compression method is unknown"));
        }
        let flags = fixed[1];
        if flags & RESERVED != 0 {
            return Err(corrupt("its header has unknown flags"));
        }
        if flags & EXTRA != 0 {
            let length = u16::from_le_bytes(self.array()?);
            for _ in 0..length {
                self.byte()?;
            }
        }
        for text in [NAME, COMMENT] {
            if flags & text != 0 {
                while self.byte()? != 0 {}
            }
        }
        if flags & HEADER_CRC != 0 {
            let _: [u8; 2] = self.array()?;
        }
        self.inflate.reset(false);
        self.crc = Crc::new();
        self.length = 0;
        self.state = MemberState::Data;
        Ok(())
    }

    fn trailer(&mut self) -> io::Result<()> {
        if u32::from_le_bytes(self.array()?) != self.crc.sum() {
            return Err(corrupt("the checksum does not match"));
        }
        if u32::from_le_bytes(self.array()?) != self.length {
            return Err(corrupt("the length does not match"));
        }
        self.state = MemberState::BetweenMembers;
        Ok(())
    }

    /// Finds the next member, or skips zeros and garbage up to the end.
    fn next_member(&mut self) -> io::Result<()> {
        while let Some(&first) = self.input.fill_buf()?.first() {
            self.input.consume(1);
            if first == 0 {
                continue;
            }
            if first == MAGIC[0] && self.input.fill_buf()?.first() == Some(&MAGIC[1]) {
                self.input.consume(1);
                return self.header();
            }
            // Garbage. A program that writes it into a pipe would block if it were not read.
            loop {
                match self.input.fill_buf()?.len() {
                    0 => break,
                    length => self.input.consume(length),
                }
            }
        }
        self.state = MemberState::End;
        Ok(())
    }

    fn inflate(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let input = self.input.fill_buf()?;
            let at_end = input.is_empty();
            let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self
                .inflate
                .decompress(input, buffer, FlushDecompress::None)
                .map_err(|_| corrupt("its compressed data is damaged"))?;
            // Both are bounded by the lengths of the two slices.
            let consumed = (self.inflate.total_in() - before_in) as usize;
            let produced = (self.inflate.total_out() - before_out) as usize;
            self.input.consume(consumed);
            self.crc.update(&buffer[..produced]);
            self.length = self.length.wrapping_add(produced as u32);
            if status == Status::StreamEnd {
                self.trailer()?;
                return Ok(produced);
            }
            if produced > 0 {
                return Ok(produced);
            }
            if at_end {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if consumed == 0 {
                return Err(corrupt("its compressed data is damaged"));
            }
        }
    }

    fn byte(&mut self) -> io::Result<u8> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

impl<R: BufRead> Read for GzipReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match self.state {
                MemberState::FirstHeader => {
                    if self.array()? != MAGIC {
                        return Err(corrupt("it does not begin as gzip does"));
                    }
                    self.header()?;
                }
                MemberState::Data => {
                    let count = self.inflate(buffer)?;
                    if count > 0 {
                        return Ok(count);
                    }
                }
                MemberState::BetweenMembers => self.next_member()?,
                MemberState::End => return Ok(0),
            }
        }
    }
}

fn corrupt(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::GzEncoder;
    use flate2::{Compression, GzBuilder};

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        // A small buffer, so that everything is once split across two fills.
        let input = io::BufReader::with_capacity(7, bytes);
        GzipReader::new(input).read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn members_padding_and_garbage_are_read_as_gzip_does() {
        let mut file = gzip(b"one ");
        file.extend(gzip(b""));
        file.extend(gzip(b"two"));
        assert_eq!(read(&file).unwrap(), b"one two");
        file.extend([0; 1000]);
        assert_eq!(read(&file).unwrap(), b"one two");
        file.extend(b"\x1f garbage");
        assert_eq!(read(&file).unwrap(), b"one two");
    }

    #[test]
    fn all_fields_of_a_header_are_passed_over() {
        let mut encoder = GzBuilder::new()
            .extra(vec![7; 300])
            .filename("name")
            .comment("comment")
            .write(Vec::new(), Compression::fast());
        encoder.write_all(b"content").unwrap();
        let mut file = encoder.finish().unwrap();
        assert_eq!(read(&file).unwrap(), b"content");
        file[3] |= 0x80;
        assert_eq!(read(&file).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_cut_anywhere_is_noticed() {
        let data: Vec<u8> = (0..2000_u32).flat_map(|n| (n * n).to_le_bytes()).collect();
        let file = gzip(&data);
        for length in 0..file.len() {
            let error = read(&file[..length]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "at {length}");
        }
        assert_eq!(read(&file).unwrap(), data);
    }

    #[test]
    fn a_wrong_checksum_or_length_is_noticed() {
        let file = gzip(b"content");
        for index in file.len() - 8..file.len() {
            let mut file = file.clone();
            file[index] ^= 1;
            let error = read(&file).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "at {index}");
        }
    }
}
