//! When a request that failed is sent again: back-off with jitter, within a limit, and for all
//! requests to a host at once where the registry asks for a pause.

use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use rand::Rng;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use tokio::time::Instant;

const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How long one request may fail before its push does. Begins with the first failure, and anew
/// after each bit of progress.
#[derive(Debug)]
pub struct Patience {
    limit: Duration,
    since: Option<Instant>,
    failures: u32,
}

impl Patience {
    /// With zero, nothing is tried twice.
    pub fn new(limit: Duration) -> Self {
        Self { limit, since: None, failures: 0 }
    }

    /// Lowers the limit.
    pub fn shorten(&mut self, limit: Duration) {
        self.limit = self.limit.min(limit);
    }

    /// Something was achieved: whatever fails next is the first failure again.
    pub fn renew(&mut self) {
        self.since = None;
        self.failures = 0;
    }

    /// Whether, and in how long, to try again after a failure; `asked` is what the registry's
    /// `Retry-After` says.
    pub fn next_wait(&mut self, asked: Option<Duration>) -> Option<Duration> {
        if self.limit.is_zero() {
            return None;
        }
        let spent = self.since.get_or_insert_with(Instant::now).elapsed();
        let doubled = FIRST_WAIT.saturating_mul(1 << self.failures.min(16)).min(LONGEST_WAIT);
        self.failures += 1;
        let jittered = doubled.mul_f64(rand::rng().random_range(0.5..1.0));
        // What the registry asks for is a least, so jitter is added: not everybody at once.
        let wait = asked.map_or(jittered, |asked| asked + jittered.min(FIRST_WAIT));
        (spent + wait <= self.limit).then_some(wait)
    }
}

/// A pause that one answer of a host imposes on all requests to it.
#[derive(Debug, Default)]
pub struct Gate(Mutex<Option<Instant>>);

impl Gate {
    /// Waits until the host may be asked again.
    pub async fn pass(&self) {
        loop {
            let until = *self.0.lock().unwrap_or_else(|e| e.into_inner());
            match until {
                Some(until) if until > Instant::now() => tokio::time::sleep_until(until).await,
                _ => return,
            }
        }
    }

    /// No request goes out for so long.
    pub fn close_for(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut gate = self.0.lock().unwrap_or_else(|e| e.into_inner());
        *gate = Some(gate.map_or(until, |old| old.max(until)));
    }
}

/// What `Retry-After` asks for (RFC 9110, section 10.2.3): seconds, or a date.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        // A day is longer than any limit; larger numbers would overflow a clock.
        return Some(Duration::from_secs(seconds.min(86_400)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    let wait = date.duration_since(SystemTime::now()).unwrap_or_default();
    Some(wait.min(Duration::from_secs(86_400)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, value.parse().unwrap());
        headers
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after(&header("7")), Some(Duration::from_secs(7)));
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        let wait = retry_after(&header(&soon)).unwrap();
        assert!((98..=100).contains(&wait.as_secs()), "{wait:?}");
        let past = retry_after(&header("Wed, 21 Oct 2015 07:28:00 GMT"));
        assert_eq!(past, Some(Duration::ZERO));
        assert_eq!(retry_after(&header("soon")), None);
        assert_eq!(retry_after(&header("99999999999999")), Some(Duration::from_secs(86_400)));
    }

    #[test]
    fn a_limit_of_zero_retries_nothing() {
        assert_eq!(Patience::new(Duration::ZERO).next_wait(None), None);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_end_at_the_limit_and_progress_renews_it() {
        let mut patience = Patience::new(Duration::from_secs(60));
        let mut waits = 0;
        while let Some(wait) = patience.next_wait(None) {
            tokio::time::sleep(wait).await;
            waits += 1;
        }
        assert!((6..=14).contains(&waits), "{waits}");
        patience.renew();
        assert!(patience.next_wait(None).is_some());
        assert_eq!(patience.next_wait(Some(Duration::from_secs(3600))), None);
    }
}
