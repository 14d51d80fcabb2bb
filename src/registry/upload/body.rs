//! A part of a blob, as the body of a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::stream;
use parking_lot::Mutex;

use super::super::send::idle::IdleTimer;
use super::super::send::request::{Payload, StreamPayload};
use super::{UploadProgress, UploadSource, UploadSourceError};

/// How many bytes are handed to the network at a time.
const PIECE: u64 = 256 << 10;

/// The source of a blob's bytes, and how far the network has taken them.
#[derive(Clone)]
pub struct UploadBody {
    pub source: Arc<dyn UploadSource>,
    pub progress: UploadProgress,
    /// Counts all bytes that were handed to the network.
    pub sent: Arc<AtomicU64>,
    /// How far the network has taken bytes in the current session.
    pub taken: Arc<AtomicU64>,
    /// The reason why no more bytes can be read, if there is one.
    pub broken: Arc<Mutex<Option<String>>>,
}

/// The answer came before the whole body was sent.
#[derive(Debug, thiserror::Error)]
#[error("the rest of the body is not needed")]
struct NotNeeded;

impl UploadBody {
    /// The bytes from `from` to `end`, or to the end of the source.
    pub fn part(&self, from: u64, end: Option<u64>) -> Payload {
        let timer = Arc::new(IdleTimer::new());
        let (body, own_timer) = (self.clone(), timer.clone());
        let open = move |sending| {
            let (body, timer) = (body.clone(), own_timer.clone());
            let pieces = stream::try_unfold(from, move |at| {
                let (body, timer) = (body.clone(), timer.clone());
                async move { body.piece(at, end, &timer, sending).await }
            });
            reqwest::Body::wrap_stream(pieces)
        };
        let length = end.map(|end| end - from);
        Payload::Stream(StreamPayload { open: Box::new(open), length, timer })
    }

    /// The piece at `at`, and where the next piece begins.
    async fn piece(
        &self,
        at: u64,
        end: Option<u64>,
        timer: &IdleTimer,
        sending: u64,
    ) -> Result<Option<(bytes::Bytes, u64)>, UploadSourceError> {
        if !timer.needs(sending) {
            return Err(NotNeeded.into());
        }
        // A request for the next piece means that the network has taken the previous one.
        (self.progress)(at);
        let most = end.map_or(PIECE, |end| (end - at).min(PIECE));
        if most == 0 {
            timer.sent();
            return Ok(None);
        }
        timer.preparing();
        let piece = self.source.chunk(at, most as usize).await;
        timer.moved();
        let piece = piece.inspect_err(|error| self.remember_reason(error.to_string()))?;
        let Some(bytes) = piece else {
            timer.sent();
            return Ok(None);
        };
        let next = at + bytes.len() as u64;
        if end == Some(next) {
            // The network asks for no more bytes than the announced length.
            timer.sent();
        }
        self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.taken.fetch_max(next, Ordering::Relaxed);
        Ok(Some((bytes, next)))
    }

    /// Keeps the first reason why no more bytes can be read.
    pub fn remember_reason(&self, reason: String) {
        self.broken.lock().get_or_insert(reason);
    }

    /// The reason why no more bytes can be read, if there is one.
    pub fn broken(&self) -> Option<String> {
        self.broken.lock().clone()
    }
}
