//! Whether bytes still move on a connection: there is a limit on standing still, never one on a
//! whole upload.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// How many times the idle limit a registry may take to answer the last byte of a blob: it hashes
/// and stores gigabytes then, and the last megabytes may still be in the kernel's buffer when we
/// believe them sent.
pub const COMMIT: u32 = 5;

/// Beats each time the network takes bytes of a request's body.
#[derive(Debug)]
pub struct Pulse(Mutex<Beat>);

#[derive(Debug)]
struct Beat {
    last: Instant,
    phase: Phase,
    /// Counts the times that the body was sent.
    sending: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// We wait for the network to take bytes.
    Moving,
    /// The network waits for us.
    Held,
    /// The last byte is gone; we wait for the answer.
    Sent,
    /// The answer is there.
    Answered,
}

impl Pulse {
    /// A pulse that beats now.
    pub fn new() -> Self {
        Self(Mutex::new(Beat { last: Instant::now(), phase: Phase::Moving, sending: 0 }))
    }

    /// The body is sent, once more perhaps. The number is this sending's name.
    pub fn begin(&self) -> u64 {
        let mut beat = self.lock();
        let sending = beat.sending + 1;
        *beat = Beat { last: Instant::now(), phase: Phase::Moving, sending };
        sending
    }

    /// Bytes moved.
    pub fn beat(&self) {
        self.enter(Phase::Moving);
    }

    /// From now until the next beat the bytes are ours to give: the clock stands still.
    pub fn hold(&self) {
        self.enter(Phase::Held);
    }

    /// The last byte was taken.
    pub fn sent(&self) {
        self.enter(Phase::Sent);
    }

    /// The answer is there: whatever of the body was not sent yet is of no use.
    pub fn answered(&self) {
        self.enter(Phase::Answered);
    }

    /// Whether this sending of the body is still of use.
    pub fn wants(&self, sending: u64) -> bool {
        let beat = self.lock();
        beat.sending == sending && beat.phase != Phase::Answered
    }

    /// Returns the time without a beat when that was too long: longer than `idle`, or [`COMMIT`]
    /// times that after the last byte.
    pub async fn stopped(&self, idle: Duration) -> Duration {
        loop {
            let (last, phase) = {
                let beat = self.lock();
                (beat.last, beat.phase)
            };
            let limit = if phase == Phase::Sent { idle * COMMIT } else { idle };
            let held = matches!(phase, Phase::Held | Phase::Answered);
            let until = if held { Instant::now() + idle } else { last + limit };
            if until <= Instant::now() {
                return limit;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    fn enter(&self, phase: Phase) {
        let mut beat = self.lock();
        beat.last = Instant::now();
        beat.phase = phase;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Beat> {
        // Fields are set at once and nothing in between can panic.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn standing_still_is_limited_and_waiting_for_ourselves_is_not() {
        let pulse = Pulse::new();
        let began = Instant::now();
        pulse.hold();
        let held = tokio::time::timeout(10 * IDLE, pulse.stopped(IDLE)).await;
        assert!(held.is_err(), "the content may take its time");
        pulse.beat();
        assert_eq!(pulse.stopped(IDLE).await, IDLE);
        assert_eq!(began.elapsed().as_secs(), 660);
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_to_the_last_byte_may_take_longer() {
        let pulse = Pulse::new();
        pulse.sent();
        assert_eq!(pulse.stopped(IDLE).await, COMMIT * IDLE);
    }

    #[test]
    fn a_body_that_was_answered_or_begun_again_is_of_no_use() {
        let pulse = Pulse::new();
        let first = pulse.begin();
        assert!(pulse.wants(first));
        pulse.answered();
        assert!(!pulse.wants(first));
        let second = pulse.begin();
        assert!(pulse.wants(second) && !pulse.wants(first));
    }
}
