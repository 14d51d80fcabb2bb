//! Ends connections whose clients do not take the bytes that they requested.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a client may take no bytes of a blob that is being sent.
const STALLED: Duration = Duration::from_secs(300);

/// The progress of the blobs on one connection.
pub struct StallTimer {
    blobs: AtomicUsize,
    last: Mutex<Instant>,
}

impl Default for StallTimer {
    fn default() -> Self {
        Self { blobs: AtomicUsize::new(0), last: Mutex::new(Instant::now()) }
    }
}

/// A blob that is being sent on a connection.
pub struct BlobOnItsWay(Arc<StallTimer>);

impl BlobOnItsWay {
    pub fn new(progress: &Arc<StallTimer>) -> Self {
        progress.blobs.fetch_add(1, Ordering::Relaxed);
        let progressing = Self(progress.clone());
        progressing.touch();
        progressing
    }

    /// Records that the client wants more of the blob.
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
    /// Waits until a client has taken no bytes of a blob for too long.
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
