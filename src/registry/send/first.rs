//! Lets one request ask a registry before all others. Its answer shows whether the registry wants a
//! login, and whether a loopback port speaks TLS; asking a dozen times at once would only give a
//! dozen times the same refusal.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

/// How long the others wait for the first answer.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// Whether a registry has answered for the first time.
#[derive(Debug, Default)]
pub struct FirstAnswer {
    /// A request is asking, or has asked.
    taken: AtomicBool,
    arrived: watch::Sender<bool>,
    /// The registry has answered something, if only that it wants a login.
    heard: watch::Sender<bool>,
}

/// Held by the request that asks first. The others may go on when it is dropped.
pub struct Turn<'a>(&'a FirstAnswer);

impl FirstAnswer {
    /// Waits for the first answer, or returns the turn if this is the first request.
    pub async fn turn(&self) -> Option<Turn<'_>> {
        if *self.arrived.borrow() {
            return None;
        }
        if !self.taken.swap(true, Ordering::Relaxed) {
            return Some(Turn(self));
        }
        let mut arrived = self.arrived.subscribe();
        // A registry that is so slow is asked by all at once.
        let _ = tokio::time::timeout(LONGEST_WAIT, arrived.wait_for(|arrived| *arrived)).await;
        None
    }

    /// The registry has answered something.
    pub fn was_heard(&self) {
        self.heard.send_replace(true);
    }

    /// Waits until the registry has answered something.
    pub async fn heard(&self) {
        // The sender lives as long as this future.
        let _ = self.heard.subscribe().wait_for(|heard| *heard).await;
    }

    /// The first answer has arrived, and tells what the others need to know.
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
