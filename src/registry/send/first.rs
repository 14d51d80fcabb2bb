//! Lets one request go to a registry before all others. Its answer shows whether the registry
//! requires a login, and whether a loopback port speaks TLS. Otherwise many requests would be
//! rejected for the same reason.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

/// How long the other requests wait for the first answer.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// Whether the first answer of a registry has arrived.
#[derive(Debug, Default)]
pub struct FirstAnswer {
    /// Whether a request was sent as the first one.
    taken: AtomicBool,
    arrived: watch::Sender<bool>,
    /// Whether the registry has answered at all; the answer may be that it requires a login.
    heard: watch::Sender<bool>,
}

/// Held by the first request. The others continue when it is dropped.
pub struct Turn<'a>(&'a FirstAnswer);

impl FirstAnswer {
    /// Waits for the first answer. If this is the first request, returns the turn at once.
    pub async fn turn(&self) -> Option<Turn<'_>> {
        if *self.arrived.borrow() {
            return None;
        }
        if !self.taken.swap(true, Ordering::Relaxed) {
            return Some(Turn(self));
        }
        let mut arrived = self.arrived.subscribe();
        // If the registry is slower than this, all requests go on without the first answer.
        let _ = tokio::time::timeout(LONGEST_WAIT, arrived.wait_for(|arrived| *arrived)).await;
        None
    }

    /// Records that the registry has answered.
    pub fn was_heard(&self) {
        self.heard.send_replace(true);
    }

    /// Waits until the registry has answered something.
    pub async fn heard(&self) {
        // Cannot fail, because the sender lives as long as this future.
        let _ = self.heard.subscribe().wait_for(|heard| *heard).await;
    }

    /// Records that the first answer has arrived, so that the other requests can continue.
    pub fn has_arrived(&self) {
        self.arrived.send_replace(true);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.has_arrived();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_others_wait_for_the_first_and_not_for_ever() {
        let first = FirstAnswer::default();
        let turn = first.turn().await;
        assert!(turn.is_some());
        let began = Instant::now();
        assert!(first.turn().await.is_none());
        assert_eq!(began.elapsed(), LONGEST_WAIT);
        drop(turn);
        assert!(first.turn().await.is_none());
        assert_eq!(began.elapsed(), LONGEST_WAIT);
    }
}
