//! A part of a blob as the body of a request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures::stream;

use super::Registry;
use super::pulse::Pulse;
use super::send::{Payload, StreamPayload};
use super::upload::{Content, ContentError, Progress};

/// Bytes handed to the network at a time.
const PIECE: u64 = 256 << 10;

/// Where the bytes of a blob come from, and who hears how they fare.
#[derive(Clone)]
pub(super) struct Cargo {
    pub registry: Arc<Registry>,
    /// Counts all bytes that are handed to the network.
    pub sent: Arc<AtomicU64>,
    pub content: Arc<dyn Content>,
    pub progress: Progress,
    /// How far the network has taken bytes in the present session.
    pub taken: Arc<AtomicU64>,
    /// Why there are no more bytes, once that is so.
    pub broken: Arc<Mutex<Option<String>>>,
}

/// The answer came before the body was whole.
#[derive(Debug, thiserror::Error)]
#[error("no more of this is needed")]
struct Answered;

impl Cargo {
    /// The bytes from `from` to `end`, or to wherever the content ends.
    pub fn part(&self, from: u64, end: Option<u64>) -> Payload {
        let pulse = Arc::new(Pulse::new());
        let (cargo, beating) = (self.clone(), pulse.clone());
        let open = move |sending| {
            let (cargo, pulse) = (cargo.clone(), beating.clone());
            let pieces = stream::try_unfold(from, move |at| {
                let (cargo, pulse) = (cargo.clone(), pulse.clone());
                async move { cargo.piece(at, end, &pulse, sending).await }
            });
            reqwest::Body::wrap_stream(pieces)
        };
        let length = end.map(|end| end - from);
        Payload::Stream(StreamPayload { open: Box::new(open), length, pulse })
    }

    /// The piece at `at` and where the next one begins.
    async fn piece(
        &self,
        at: u64,
        end: Option<u64>,
        pulse: &Pulse,
        sending: u64,
    ) -> Result<Option<(bytes::Bytes, u64)>, ContentError> {
        if !pulse.wants(sending) {
            return Err(Answered.into());
        }
        // Asked for the next piece, the network has taken the one before.
        (self.progress)(at);
        let most = end.map_or(PIECE, |end| (end - at).min(PIECE));
        if most == 0 {
            pulse.sent();
            return Ok(None);
        }
        pulse.hold();
        let piece = self.content.chunk(at, most as usize).await;
        pulse.beat();
        let piece = piece.inspect_err(|error| self.remember(error.to_string()))?;
        let Some(bytes) = piece else {
            pulse.sent();
            return Ok(None);
        };
        let next = at + bytes.len() as u64;
        if end == Some(next) {
            // Nobody asks for more than the length that was announced.
            pulse.sent();
        }
        self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.taken.fetch_max(next, Ordering::Relaxed);
        Ok(Some((bytes, next)))
    }

    /// Keeps the first reason why there are no bytes.
    pub fn remember(&self, reason: String) {
        // An Option is whole at any time.
        self.broken.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(reason);
    }

    /// The reason why there are no bytes, if that is so.
    pub fn broken(&self) -> Option<String> {
        self.broken.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }
}
