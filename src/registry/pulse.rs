//! Whether bytes still move on a connection: there is a limit on standing still, never one on a
//! whole upload.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// Beats each time the network takes bytes.
#[derive(Debug)]
pub struct Pulse(Mutex<Beat>);

#[derive(Debug)]
struct Beat {
    last: Instant,
    /// The network waits for us, not we for it.
    held: bool,
}

impl Pulse {
    /// A pulse that beats now.
    pub fn new() -> Self {
        Self(Mutex::new(Beat { last: Instant::now(), held: false }))
    }

    /// Bytes moved.
    pub fn beat(&self) {
        *self.lock() = Beat { last: Instant::now(), held: false };
    }

    /// From now until the next beat the bytes are ours to give: the clock stands still.
    pub fn hold(&self) {
        self.lock().held = true;
    }

    /// Returns when there was no beat for so long.
    pub async fn stopped(&self, limit: Duration) {
        loop {
            let (last, held) = {
                let beat = self.lock();
                (beat.last, beat.held)
            };
            let until = if held { Instant::now() + limit } else { last + limit };
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Beat> {
        // Two fields are set at once and nothing in between can panic.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
