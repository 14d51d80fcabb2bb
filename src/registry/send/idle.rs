//! Checks that bytes still move while a request's body is being sent. Idle time is limited, the
//! total time is not.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The answer to the last byte of a blob may take this many times the idle limit. The registry
/// hashes and stores gigabytes then, and the last megabytes may still be in the kernel's buffer
/// when they count as sent.
pub const COMMIT: u32 = 5;

/// Records when the network takes bytes of a request's body.
#[derive(Debug)]
pub struct IdleTimer(Mutex<TimerState>);

#[derive(Debug)]
struct TimerState {
    moved_at: Instant,
    phase: Phase,
    /// How often the body was started.
    sending: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The network has to take bytes.
    Moving,
    /// The source has to provide bytes.
    Preparing,
    /// The last byte was sent, and the answer is awaited.
    Sent,
    /// The answer has arrived.
    Answered,
}

impl IdleTimer {
    /// A timer that starts now.
    pub fn new() -> Self {
        Self(Mutex::new(TimerState { moved_at: Instant::now(), phase: Phase::Moving, sending: 0 }))
    }

    /// The body is sent, possibly again. Returns the number of this attempt.
    pub fn start(&self) -> u64 {
        let mut state = self.0.lock();
        let sending = state.sending + 1;
        *state = TimerState { moved_at: Instant::now(), phase: Phase::Moving, sending };
        sending
    }

    /// The network took bytes, or the source provided some.
    pub fn moved(&self) {
        self.enter(Phase::Moving);
    }

    /// The source has to provide bytes. The timer stops until then.
    pub fn preparing(&self) {
        self.enter(Phase::Preparing);
    }

    /// The network took the last byte.
    pub fn sent(&self) {
        self.enter(Phase::Sent);
    }

    /// The answer has arrived. The rest of the body is not needed.
    pub fn answered(&self) {
        self.enter(Phase::Answered);
    }

    /// Whether this attempt to send the body still needs bytes.
    pub fn needs(&self, sending: u64) -> bool {
        let state = self.0.lock();
        state.sending == sending && state.phase != Phase::Answered
    }

    /// Returns when no bytes have moved for longer than `idle`, or [`COMMIT`] times that after the
    /// last byte. Returns the limit that was exceeded.
    pub async fn expired(&self, idle: Duration) -> Duration {
        loop {
            let (moved_at, phase) = {
                let state = self.0.lock();
                (state.moved_at, state.phase)
            };
            let limit = if phase == Phase::Sent { idle * COMMIT } else { idle };
            let stopped = matches!(phase, Phase::Preparing | Phase::Answered);
            let until = if stopped { Instant::now() + idle } else { moved_at + limit };
            if until <= Instant::now() {
                return limit;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    fn enter(&self, phase: Phase) {
        let mut state = self.0.lock();
        state.moved_at = Instant::now();
        state.phase = phase;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn standing_still_is_limited_and_waiting_for_ourselves_is_not() {
        let timer = IdleTimer::new();
        let began = Instant::now();
        timer.preparing();
        let held = tokio::time::timeout(10 * IDLE, timer.expired(IDLE)).await;
        assert!(held.is_err(), "the content may take its time");
        timer.moved();
        assert_eq!(timer.expired(IDLE).await, IDLE);
        assert_eq!(began.elapsed().as_secs(), 660);
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_to_the_last_byte_may_take_longer() {
        let timer = IdleTimer::new();
        timer.sent();
        assert_eq!(timer.expired(IDLE).await, COMMIT * IDLE);
    }

    #[test]
    fn a_body_that_was_answered_or_begun_again_needs_no_more_bytes() {
        let timer = IdleTimer::new();
        let first = timer.start();
        assert!(timer.needs(first));
        timer.answered();
        assert!(!timer.needs(first));
        let second = timer.start();
        assert!(timer.needs(second) && !timer.needs(first));
    }
}
