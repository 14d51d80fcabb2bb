//! Measures the current speed.

use std::time::{Duration, Instant};

/// After this time without a byte, the push counts as waiting, for example for a retry.
const LULL: Duration = Duration::from_secs(5);

/// The rate is an average over about this many seconds. Earlier bytes count little: the first ones
/// only fill the system's buffers, and the connection may become slower.
const MEMORY: f64 = 5.0;

/// No rate is given before this many seconds of work.
const TOO_SHORT: f64 = 0.5;

/// Bytes per second, counting only the time in which there was something to send.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The bytes that moved; earlier ones have less weight.
    bytes: f64,
    /// The seconds in which they moved; earlier ones have less weight by the same factor.
    seconds: f64,
    last: Instant,
}

impl Pace {
    pub fn begin(now: Instant) -> Self {
        Self { bytes: 0.0, seconds: 0.0, last: now }
    }

    /// Records that there was nothing to move since the last call.
    pub fn rested(&mut self, now: Instant) {
        self.last = now;
    }

    /// Records the bytes that moved since the last call.
    pub fn moved(&mut self, bytes: u64, now: Instant) {
        *self = self.at(now, bytes as f64);
    }

    /// Bytes per second. `None` before half a second of work, and after a long time without a byte.
    pub fn per_second(&self, now: Instant) -> Option<f64> {
        if now.duration_since(self.last) > LULL {
            return None;
        }
        let Self { bytes, seconds, .. } = self.at(now, 0.0);
        (seconds >= TOO_SHORT && bytes > 0.0).then(|| bytes / seconds)
    }

    /// The state at a later time, after `bytes` more have moved.
    fn at(&self, now: Instant, bytes: f64) -> Self {
        let passed = now.duration_since(self.last).min(LULL).as_secs_f64();
        let kept = (-passed / MEMORY).exp();
        // The time that has passed; its beginning has less weight than its end.
        let weighted = MEMORY * (1.0 - kept);
        let weight = if passed > 0.0 { weighted / passed } else { 1.0 };
        Self {
            bytes: self.bytes * kept + bytes * weight,
            seconds: self.seconds * kept + weighted,
            last: now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(begin: Instant, seconds: f64) -> Instant {
        begin + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn the_rate_of_a_steady_line_is_found_and_a_change_is_followed() {
        let begin = Instant::now();
        let mut pace = Pace::begin(begin);
        // At the beginning, buffers take several megabytes at once.
        pace.moved(10_000_000, at(begin, 0.01));
        let steps = |pace: &mut Pace, from: u32, to: u32, bytes: u64| {
            for step in from..to {
                pace.moved(bytes, at(begin, f64::from(step) / 10.0));
            }
        };
        steps(&mut pace, 1, 250, 500_000);
        let rate = pace.per_second(at(begin, 25.0)).unwrap();
        assert!((4.9e6..5.2e6).contains(&rate), "{rate}");
        steps(&mut pace, 250, 450, 100_000);
        let rate = pace.per_second(at(begin, 45.0)).unwrap();
        assert!((0.9e6..1.2e6).contains(&rate), "{rate}");
    }

    #[test]
    fn time_without_work_does_not_count_and_a_long_wait_has_no_rate() {
        let begin = Instant::now();
        let mut pace = Pace::begin(begin);
        pace.moved(1000, at(begin, 1.0));
        let rate = pace.per_second(at(begin, 1.0));
        pace.rested(at(begin, 100.0));
        assert_eq!(pace.per_second(at(begin, 100.0)), rate);
        assert_eq!(pace.per_second(at(begin, 106.0)), None);
    }
}
