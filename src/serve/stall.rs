//! Ends connections whose clients take none of the bytes that they asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a client that was sent a blob may take none of its bytes.
const STALLED: Duration = Duration::from_secs(300);

/// How far the blobs of one connection are.
pub struct StallTimer {
    blobs: AtomicUsize,
    last: Mutex<Instant>,
}

impl Default for StallTimer {
    fn default() -> Self {
        Self { blobs: AtomicUsize::new(0), last: Mutex::new(Instant::now()) }
    }
}

/// A blob that a connection sends.
pub struct BlobOnItsWay(Arc<StallTimer>);

impl BlobOnItsWay {
    pub fn new(progress: &Arc<StallTimer>) -> Self {
        progress.blobs.fetch_add(1, Ordering::Relaxed);
        let progressing = Self(progress.clone());
        progressing.touch();
        progressing
    }

    /// More of the blob is asked for.
    pub fn touch(&self) {
        *self.0.last.lock() = Instant::now();
    }
}

impl Drop for BlobOnItsWay {
    fn drop(&mut self) {
        self.0.blobs.fetch_sub(1, Ordering::Relaxed);
    }
}

impl StallTimer {
    /// Waits until a blob was not taken any further for too long.
    pub async fn stalled(&self) {
        let mut every = tokio::time::interval(STALLED / 10);
        loop {
            every.tick().await;
            let is_sending = self.blobs.load(Ordering::Relaxed) > 0;
            if is_sending && self.last.lock().elapsed() > STALLED {
                return;
            }
        }
    }
}
