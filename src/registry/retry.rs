//! When a request that failed is sent again: back-off with jitter, within a limit, and for all
//! requests to a host at once where the registry asks for a pause.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rand::RngExt;
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

/// Why there is no next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// Nothing is tried twice.
    Off,
    /// It was tried so often within the limit.
    Spent {
        /// How often.
        tries: u32,
        /// The limit.
        limit: Duration,
    },
    /// The registry wants a longer pause than what is left of the limit.
    AskedTooMuch {
        /// The pause.
        asked: Duration,
        /// The limit.
        limit: Duration,
    },
}

impl Patience {
    /// With zero, nothing is tried twice.
    pub fn new(limit: Duration) -> Self {
        Self { limit, since: None, failures: 0 }
    }

    /// Something was achieved: whatever fails next is the first failure again.
    pub fn renew(&mut self) {
        self.since = None;
        self.failures = 0;
    }

    /// So much of the time since the first failure was spent on moving bytes and does not count.
    pub fn excuse(&mut self, time: Duration) {
        // In the future it would excuse what has not happened yet.
        self.since = self.since.map(|since| (since + time).min(Instant::now()));
    }

    /// In how long to try again after a failure; `asked` is what the registry's `Retry-After`
    /// says.
    pub fn next_wait(&mut self, asked: Option<Duration>) -> Result<Duration, GivenUp> {
        let limit = self.limit;
        if limit.is_zero() {
            return Err(GivenUp::Off);
        }
        let spent = self.since.get_or_insert_with(Instant::now).elapsed();
        let doubled = FIRST_WAIT.saturating_mul(1 << self.failures.min(16)).min(LONGEST_WAIT);
        self.failures += 1;
        let jittered = doubled.mul_f64(rand::rng().random_range(0.5..1.0));
        // What the registry asks for is a least, so jitter is added: not everybody at once.
        let wait = asked.map_or(jittered, |asked| asked + jittered.min(FIRST_WAIT));
        match asked {
            _ if spent + wait <= limit => Ok(wait),
            Some(asked) if spent + asked > limit => Err(GivenUp::AskedTooMuch { asked, limit }),
            _ => Err(GivenUp::Spent { tries: self.failures, limit }),
        }
    }
}

impl GivenUp {
    /// What a user can do about it.
    pub fn hint(&self) -> Option<String> {
        let shown = humantime::format_duration;
        match *self {
            Self::Off => None,
            Self::Spent { tries, limit } => Some(format!(
                "tried {} within {}; --retry-for DURATION goes on for longer",
                if tries == 1 { "once".to_owned() } else { format!("{tries} times") },
                shown(limit)
            )),
            Self::AskedTooMuch { asked, limit } => Some(format!(
                "it asks for a pause of {}, which is more than what is left of --retry-for {}",
                shown(Duration::from_secs(asked.as_secs())),
                shown(limit)
            )),
        }
    }
}

/// A pause that all requests to a host make together: because one answer asked for it, or because
/// nobody can reach it.
#[derive(Debug, Default)]
pub struct Gate(Mutex<Pause>);

#[derive(Debug, Default)]
struct Pause {
    until: Option<Instant>,
    /// How long the last one was that was agreed on.
    length: Duration,
}

impl Gate {
    /// Waits until the host may be asked again.
    pub async fn pass(&self) {
        loop {
            let until = self.pause().until;
            match until {
                Some(until) if until > Instant::now() => tokio::time::sleep_until(until).await,
                _ => return,
            }
        }
    }

    /// No request goes out for so long.
    pub fn close_for(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut pause = self.pause();
        pause.until = Some(pause.until.map_or(until, |old| old.max(until)));
    }

    /// No request goes out for so long, or for as long as is left of a pause under way: how long
    /// that is. No pause is shorter than the last one, whoever asks for it. `None`, and no pause:
    /// it would be longer than `most`.
    pub fn wait_together(&self, wait: Duration, most: Duration) -> Option<Duration> {
        let now = Instant::now();
        let mut pause = self.pause();
        let under_way = pause.until.filter(|until| *until > now);
        let wait = under_way.map_or(pause.length.max(wait), |until| until - now);
        if wait > most {
            return None;
        }
        if under_way.is_none() {
            *pause = Pause { until: Some(now + wait), length: wait };
        }
        Some(wait)
    }

    fn pause(&self) -> MutexGuard<'_, Pause> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The troubles that were told and are being waited out.
#[derive(Debug, Default)]
pub struct Told(Mutex<HashMap<String, Instant>>);

impl Told {
    /// Whether a trouble that is waited out for so long is not being waited out already.
    pub fn is_news(&self, trouble: String, wait: Duration) -> bool {
        let now = Instant::now();
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, until| *until > now);
        let is_news = !told.contains_key(&trouble);
        if is_news {
            told.insert(trouble, now + wait);
        }
        is_news
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
        assert_eq!(Patience::new(Duration::ZERO).next_wait(None), Err(GivenUp::Off));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_end_at_the_limit_and_progress_renews_it() {
        let mut patience = Patience::new(Duration::from_secs(60));
        let mut waits = 0;
        while let Ok(wait) = patience.next_wait(None) {
            tokio::time::sleep(wait).await;
            waits += 1;
        }
        assert!((6..=14).contains(&waits), "{waits}");
        patience.renew();
        assert!(patience.next_wait(None).is_ok());
        let (asked, limit) = (Duration::from_secs(3600), Duration::from_secs(60));
        let given_up = patience.next_wait(Some(asked)).unwrap_err();
        assert_eq!(given_up, GivenUp::AskedTooMuch { asked, limit });
        assert!(given_up.hint().unwrap().contains("pause of 1h"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_host_waits_with_the_others_and_no_shorter_than_before() {
        let (gate, told) = (Gate::default(), Told::default());
        let second = Duration::from_secs(1);
        assert_eq!(gate.wait_together(4 * second, LONGEST_WAIT), Some(4 * second));
        assert!(told.is_news("down".to_owned(), 4 * second));
        tokio::time::sleep(second).await;
        assert_eq!(gate.wait_together(9 * second, LONGEST_WAIT), Some(3 * second));
        assert!(!told.is_news("down".to_owned(), 3 * second));
        assert!(told.is_news("on fire".to_owned(), second));
        let began = Instant::now();
        gate.pass().await;
        assert_eq!(began.elapsed(), 3 * second);
        assert_eq!(gate.wait_together(second, LONGEST_WAIT), Some(4 * second));
        assert!(told.is_news("down".to_owned(), 4 * second));
        tokio::time::sleep(4 * second).await;
        assert_eq!(gate.wait_together(second, 3 * second), None);
        let began = Instant::now();
        gate.pass().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_bytes_moved_is_excused_and_waits_are_not() {
        let mut patience = Patience::new(Duration::from_secs(60));
        assert!(patience.next_wait(None).is_ok());
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(300)).await;
            patience.excuse(Duration::from_secs(300));
            assert!(patience.next_wait(None).is_ok());
        }
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert!(patience.next_wait(None).is_err());
    }
}
