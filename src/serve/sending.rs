//! Sends a blob in pieces, which are read on threads that may block.
//!
//! Memory is limited: at most two pieces of each blob are in memory, and pieces are shorter when
//! many blobs are sent at the same time. A slow client delays only its own blob.

use std::io::{self, Read};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures::Stream;
use futures::stream::{self, BoxStream, StreamExt};
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_blocking;

use super::blob::{BlobBytes, ServedBlob, read_region};
use super::shared::Shared;
use super::stall::BlobOnItsWay;
use crate::error::Error;
use crate::event::Event;
use crate::pack::Spool;
use crate::source::MakeLayer;
use crate::source::layout::Region;

/// The total memory for the pieces of all blobs.
const MEMORY: usize = 8 << 20;

/// The shortest and the longest piece.
const PIECE: (usize, usize) = (16 << 10, 256 << 10);

/// How many pieces are read at the same time.
const READS: usize = 8;

/// The state that all blob reads share.
pub struct BlobReads {
    active: AtomicUsize,
    reads: Semaphore,
}

impl BlobReads {
    pub fn new() -> Self {
        Self { active: AtomicUsize::new(0), reads: Semaphore::new(READS) }
    }

    fn piece(&self) -> usize {
        (MEMORY / self.active.load(Ordering::Relaxed).max(1)).clamp(PIECE.0, PIECE.1)
    }
}

/// The bytes of a blob from `first` up to, but not including, `end`, as the body of an answer.
pub struct BlobBody {
    pieces: BoxStream<'static, io::Result<Bytes>>,
    left: u64,
    sent: u64,
    asked: Range<u64>,
    began: Instant,
    shared: Arc<Shared>,
    blob: Arc<ServedBlob>,
    repository: String,
    progressing: BlobOnItsWay,
}

impl BlobBody {
    pub fn new(
        shared: &Arc<Shared>,
        repository: &str,
        blob: &Arc<ServedBlob>,
        (first, end): (u64, u64),
        progressing: BlobOnItsWay,
    ) -> Result<Self, Error> {
        let pieces = match &blob.bytes {
            BlobBytes::Held(bytes) => {
                // A range is always within the blob, and the blob has exactly these bytes.
                let part = bytes.slice(first as usize..end as usize);
                stream::once(async { Ok(part) }).boxed()
            }
            BlobBytes::Stored(region) => stored(shared, region.clone(), first, end).boxed(),
            BlobBytes::Made(make) => made(shared, make.clone(), first, end).boxed(),
            BlobBytes::Spooled(spool) => spooled(shared, spool.clone(), first, end).boxed(),
            BlobBytes::Later(later) => spooled(shared, later.spool()?, first, end).boxed(),
        };
        shared.reading.active.fetch_add(1, Ordering::Relaxed);
        shared.pulls.asked(&blob.digest);
        (shared.events)(Event::BlobAsked {
            repository: repository.to_owned(),
            digest: blob.digest.clone(),
            name: blob.label().to_owned(),
            bytes: end - first,
        });
        Ok(Self {
            pieces,
            left: end - first,
            sent: 0,
            asked: first..end,
            began: Instant::now(),
            shared: shared.clone(),
            blob: blob.clone(),
            repository: repository.to_owned(),
            progressing,
        })
    }
}

impl Body for BlobBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.progressing.touch();
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let piece = match self.pieces.poll_next_unpin(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Ok(piece))) if piece.len() as u64 <= self.left => piece,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
            Poll::Ready(_) => {
                let odd = io::Error::other("the blob is not as long as its manifest says");
                return Poll::Ready(Some(Err(odd)));
            }
        };
        let length = piece.len() as u64;
        self.left -= length;
        self.sent += length;
        self.shared.bytes_sent.fetch_add(length, Ordering::Relaxed);
        let (digest, position) = (self.blob.digest.clone(), self.sent);
        (self.shared.events)(Event::BlobProgress { digest, position });
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl Drop for BlobBody {
    fn drop(&mut self) {
        self.shared.reading.active.fetch_sub(1, Ordering::Relaxed);
        let whole = self.left == 0;
        let part = self.asked.start..self.asked.start + self.sent;
        self.shared.pulls.sent(&self.blob.digest, part, &self.asked, self.blob.size);
        (self.shared.events)(Event::BlobSent {
            repository: self.repository.clone(),
            digest: self.blob.digest.clone(),
            name: self.blob.label().to_owned(),
            bytes: self.sent,
            whole,
            took: self.began.elapsed(),
        });
    }
}

/// The pieces of a region. While one is sent, the next one is read.
fn stored(
    shared: &Arc<Shared>,
    region: Region,
    first: u64,
    end: u64,
) -> impl Stream<Item = io::Result<Bytes>> + use<> {
    let shared = shared.clone();
    stream::iter(Cuts { shared: shared.clone(), at: first, end })
        .map(move |(at, length)| {
            let (shared, region) = (shared.clone(), region.clone());
            // Spawned, so that it is read while the previous piece is sent.
            async move { tokio::spawn(read(shared, region, at, length)).await }
        })
        .buffered(1)
        .map(|read| read.unwrap_or_else(|error| Err(io::Error::other(error))))
}

async fn read(shared: Arc<Shared>, region: Region, at: u64, length: usize) -> io::Result<Bytes> {
    // The semaphore is never closed.
    let _permit = shared.reading.reads.acquire().await;
    let read = spawn_blocking(move || {
        let mut buffer = vec![0; length];
        read_region(&region, &mut buffer, at).map(|()| Bytes::from(buffer))
    });
    read.await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// A region cut into pieces.
struct Cuts {
    shared: Arc<Shared>,
    at: u64,
    end: u64,
}

impl Iterator for Cuts {
    type Item = (u64, usize);

    fn next(&mut self) -> Option<(u64, usize)> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let length = self.shared.reading.piece().min(left);
        let at = self.at;
        self.at += length as u64;
        (length > 0).then_some((at, length))
    }
}

/// The pieces of a layer that is made while it is sent. The bytes before the range are made too,
/// and dropped.
fn made(
    shared: &Arc<Shared>,
    make: MakeLayer,
    first: u64,
    end: u64,
) -> impl Stream<Item = io::Result<Bytes>> + use<> {
    let (sender, receiver) = mpsc::channel(1);
    let shared = shared.clone();
    spawn_blocking(move || {
        let make = || -> io::Result<()> {
            let mut content = make().map_err(io::Error::other)?;
            if io::copy(&mut content.by_ref().take(first), &mut io::sink())? < first {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut left = end - first;
            while left > 0 {
                let most = (shared.reading.piece() as u64).min(left);
                let mut piece = Vec::with_capacity(most as usize);
                if content.by_ref().take(most).read_to_end(&mut piece)? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                left -= piece.len() as u64;
                if sender.blocking_send(Ok(Bytes::from(piece))).is_err() {
                    return Ok(());
                }
            }
            Ok(())
        };
        if let Err(error) = make() {
            (shared.events)(Event::Warning(format!("a layer could not be made: {error}")));
            // The receiver gets the error, or was dropped.
            let _ = sender.blocking_send(Err(error));
        }
    });
    stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) })
}

/// The pieces of a blob in a spool, which may still be growing.
fn spooled(
    shared: &Arc<Shared>,
    spool: Spool,
    first: u64,
    end: u64,
) -> impl Stream<Item = io::Result<Bytes>> + use<> {
    let shared = shared.clone();
    stream::try_unfold(first, move |at| {
        let (shared, spool) = (shared.clone(), spool.clone());
        async move {
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            if left == 0 {
                return Ok(None);
            }
            let piece = spool.chunk(at, shared.reading.piece().min(left)).await;
            let piece = piece.map_err(io::Error::other)?;
            Ok(piece.map(|piece| {
                let next = at + piece.len() as u64;
                (piece, next)
            }))
        }
    })
}
