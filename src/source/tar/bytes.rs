//! Where the bytes of a tar come from.

use crate::source::error::Error;

/// Where a tar's bytes come from.
pub trait Bytes {
    /// Reads some bytes; 0 at the end.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error>;

    /// Skips `count` bytes, or fewer if the end comes first. Returns how many.
    fn skip(&mut self, count: u64) -> Result<u64, Error>;
}

impl Bytes for &[u8] {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let count = buffer.len().min(self.len());
        let (now, later) = self.split_at(count);
        buffer[..count].copy_from_slice(now);
        *self = later;
        Ok(count)
    }

    fn skip(&mut self, count: u64) -> Result<u64, Error> {
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(self.len());
        *self = &self[count..];
        Ok(count as u64)
    }
}
