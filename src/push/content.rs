//! Where the bytes of an upload come from: a spool, memory, or a part of a file.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::task;

use crate::error::Error;
use crate::image::{Digest, Hasher};
use crate::pack::Spool;
use crate::registry::Repository;
use crate::registry::upload::{UploadSource, UploadSourceError};
use crate::source::layout::{LayoutError, Region};
use crate::source::{self, FileError};

impl UploadSource for Spool {
    fn whole(&self) -> Option<(Digest, u64)> {
        // `Some` only if the blob is complete. An error is reported when the bytes are read.
        let packed = self.finished().now_or_never()?.ok()?;
        Some((packed.blob.digest, packed.blob.size))
    }

    fn ready(&self) -> u64 {
        self.available()
    }

    fn finished(&self) -> BoxFuture<'_, Result<(Digest, u64), UploadSourceError>> {
        async {
            let packed = Spool::finished(self).await?;
            Ok((packed.blob.digest, packed.blob.size))
        }
        .boxed()
    }

    fn chunk(
        &self,
        offset: u64,
        max: usize,
    ) -> BoxFuture<'_, Result<Option<Bytes>, UploadSourceError>> {
        async move { Ok(Spool::chunk(self, offset, max).await?) }.boxed()
    }
}

/// A small blob that is in memory anyway: an image config.
pub struct InMemory {
    /// The bytes.
    pub bytes: Bytes,
    /// Their digest.
    pub digest: Digest,
}

impl UploadSource for InMemory {
    fn whole(&self) -> Option<(Digest, u64)> {
        Some((self.digest.clone(), self.bytes.len() as u64))
    }

    fn chunk(
        &self,
        offset: u64,
        max: usize,
    ) -> BoxFuture<'_, Result<Option<Bytes>, UploadSourceError>> {
        let start = usize::try_from(offset).map_or(self.bytes.len(), |at| at.min(self.bytes.len()));
        let end = self.bytes.len().min(start.saturating_add(max));
        let piece = (end > start).then(|| self.bytes.slice(start..end));
        async move { Ok(piece) }.boxed()
    }
}

/// A blob of another repository, which is read in parts. The receiving registry checks the digest.
pub struct InRepository {
    repository: Repository,
    digest: Digest,
    size: u64,
    /// The part that was read last, and where it begins.
    part: tokio::sync::Mutex<(u64, Bytes)>,
}

/// How many bytes are asked for at a time.
const PART: u64 = 4 << 20;

impl InRepository {
    /// The blob of this digest and length. Nothing is read yet.
    pub fn new(repository: Repository, digest: Digest, size: u64) -> Self {
        Self { repository, digest, size, part: tokio::sync::Mutex::default() }
    }

    async fn read(&self, offset: u64, max: usize) -> Result<Option<Bytes>, UploadSourceError> {
        if offset >= self.size {
            return Ok(None);
        }
        let mut part = self.part.lock().await;
        let (start, bytes) = &*part;
        if !(*start..*start + bytes.len() as u64).contains(&offset) {
            let length = PART.min(self.size - offset);
            *part = (offset, self.repository.blob_part(&self.digest, offset, length).await?);
        }
        let (start, bytes) = &*part;
        let within = (offset - start) as usize;
        Ok(Some(bytes.slice(within..bytes.len().min(within.saturating_add(max)))))
    }
}

impl UploadSource for InRepository {
    fn whole(&self) -> Option<(Digest, u64)> {
        Some((self.digest.clone(), self.size))
    }

    fn chunk(
        &self,
        offset: u64,
        max: usize,
    ) -> BoxFuture<'_, Result<Option<Bytes>, UploadSourceError>> {
        self.read(offset, max).boxed()
    }
}

/// A part of a file that should have this digest. Its last bytes are returned only after all bytes
/// were verified, so that no registry ever gets a complete but damaged blob.
pub struct Checked {
    region: Region,
    digest: Digest,
    state: Arc<Mutex<Hashed>>,
}

#[derive(Default)]
struct Hashed {
    hasher: Hasher,
    /// How far the bytes were hashed.
    position: u64,
    /// Why no more bytes are returned.
    problem: Option<source::Error>,
}

impl Checked {
    /// Nothing was read yet.
    pub fn new(region: Region, digest: Digest) -> Self {
        Self { region, digest, state: Arc::default() }
    }

    /// What was wrong with the bytes. Returned once.
    pub fn problem(&self) -> Option<Error> {
        self.state.lock().problem.take().map(Error::Source)
    }
}

impl UploadSource for Checked {
    fn whole(&self) -> Option<(Digest, u64)> {
        Some((self.digest.clone(), self.region.length))
    }

    fn chunk(
        &self,
        offset: u64,
        max: usize,
    ) -> BoxFuture<'_, Result<Option<Bytes>, UploadSourceError>> {
        let (region, digest, state) =
            (self.region.clone(), self.digest.clone(), self.state.clone());
        async move {
            // The task itself fails only while the runtime shuts down.
            task::spawn_blocking(move || read(&region, &digest, &state, offset, max)).await?
        }
        .boxed()
    }
}

fn read(
    region: &Region,
    digest: &Digest,
    state: &Mutex<Hashed>,
    offset: u64,
    max: usize,
) -> Result<Option<Bytes>, UploadSourceError> {
    let mut state = state.lock();
    let result = state.read(region, digest, offset, max);
    result.map_err(|problem| {
        let reason = problem.to_string();
        state.problem = Some(problem);
        reason.into()
    })
}

impl Hashed {
    fn read(
        &mut self,
        region: &Region,
        digest: &Digest,
        offset: u64,
        max: usize,
    ) -> Result<Option<Bytes>, source::Error> {
        let left = region.length.saturating_sub(offset);
        let mut bytes = BytesMut::zeroed(usize::try_from(left).map_or(max, |left| left.min(max)));
        let end = offset + bytes.len() as u64;
        // A resumed upload may continue after bytes that were not hashed here yet, so hash them
        // now.
        while self.position < offset {
            let most = (offset - self.position).min(bytes.len().max(1 << 16) as u64) as usize;
            let mut skipped = vec![0; most];
            fill(region, digest, &mut skipped, self.position)?;
            self.hash(&skipped);
        }
        fill(region, digest, &mut bytes, offset)?;
        if end > self.position {
            let new = (self.position - offset) as usize;
            self.hash(&bytes[new..]);
        }
        if end == region.length && self.position == end {
            let actual = self.hasher.clone().finish();
            if actual != *digest {
                return Err(LayoutError::DamagedBlob {
                    file: region.name.clone(),
                    listed: digest.clone(),
                    actual,
                }
                .into());
            }
        }
        Ok((left > 0).then(|| bytes.freeze()))
    }

    fn hash(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.position += bytes.len() as u64;
    }
}

/// Fills the buffer. It is an error if the file is too short.
fn fill(region: &Region, digest: &Digest, bytes: &mut [u8], at: u64) -> Result<(), source::Error> {
    let file = region.name.clone();
    match region.read_at(bytes, at) {
        Ok(count) if count == bytes.len() => Ok(()),
        Ok(_) => Err(LayoutError::CutBlob { file, digest: digest.clone() }.into()),
        Err(source) => Err(FileError::Read { file, at: region.offset + at, source }.into()),
    }
}
