//! Decides when a failed request is sent again, with a time budget, waits that double, and the
//! pause in `Retry-After`.

use std::time::{Duration, SystemTime};

use rand::RngExt;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use tokio::time::Instant;

use super::optional::Deadline;

const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A longer pause from a server counts as this one. It exceeds any limit, and larger values would
/// overflow a clock.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);

/// How long one request may fail before the push fails. The time begins with the first failure, and
/// begins again after each progress.
#[derive(Debug)]
pub struct RetryBudget {
    limit: Duration,
    deadline: Option<Deadline>,
    since: Option<Instant>,
    failures: u32,
}

/// Why a request is not sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// Retries are turned off.
    Off,
    /// The request is optional, and its time is over.
    Late,
    /// It kept failing until the limit.
    Spent {
        /// The limit.
        limit: Duration,
    },
    /// The registry asks for a longer pause than the rest of the limit.
    PauseTooLong {
        /// The pause.
        asked: Duration,
        /// The limit.
        limit: Duration,
    },
}

impl RetryBudget {
    /// A budget of this time. Zero means no retries.
    pub fn new(limit: Duration) -> Self {
        Self { limit, deadline: None, since: None, failures: 0 }
    }

    /// The same budget for a request that must be finished by the deadline.
    #[must_use]
    pub fn until(self, deadline: Option<Deadline>) -> Self {
        Self { deadline, ..self }
    }

    /// When the request must be finished.
    pub fn deadline(&self) -> Option<Deadline> {
        self.deadline.clone()
    }

    /// Records progress: the next failure counts as the first one.
    pub fn renew(&mut self) {
        self.since = None;
        self.failures = 0;
    }

    /// Counts the time from this moment, if it is before the first failure.
    pub fn count_from(&mut self, first: Instant) {
        self.since = Some(self.since.map_or(first, |since| since.min(first)));
    }

    /// Does not count this time, because bytes moved during it.
    pub fn excuse(&mut self, time: Duration) {
        // A start in the future would also exclude time that has not passed yet.
        self.since = self.since.map(|since| (since + time).min(Instant::now()));
    }

    /// How long to wait before the next attempt. `asked` is the pause in `Retry-After`.
    pub fn next_wait(&mut self, asked: Option<Duration>) -> Result<Duration, GivenUp> {
        let limit = self.limit;
        if limit.is_zero() {
            return Err(GivenUp::Off);
        }
        let spent = self.since.get_or_insert_with(Instant::now).elapsed();
        let doubled = FIRST_WAIT.saturating_mul(1 << self.failures.min(16)).min(LONGEST_WAIT);
        self.failures += 1;
        // Zero seconds, or a date in the past, counts as no pause.
        let asked = asked.filter(|asked| !asked.is_zero());
        let jittered = doubled.mul_f64(rand::rng().random_range(0.5..1.0));
        // Retry-After is a minimum; add jitter so that clients do not all retry together.
        let wait = asked.map_or(jittered, |asked| asked + jittered.min(FIRST_WAIT));
        if self.deadline.as_ref().is_some_and(|deadline| Instant::now() + wait >= deadline.at()) {
            return Err(GivenUp::Late);
        }
        match asked {
            _ if spent + wait <= limit => Ok(wait),
            Some(asked) if spent + asked > limit => Err(GivenUp::PauseTooLong { asked, limit }),
            _ => Err(GivenUp::Spent { limit }),
        }
    }
}

impl GivenUp {
    /// What a user can do about it.
    pub fn hint(&self) -> Option<String> {
        let shown = humantime::format_duration;
        match *self {
            Self::Off | Self::Late => None,
            Self::Spent { limit } => {
                Some(format!("tried for {}; --retry-for DURATION tries for longer", shown(limit)))
            }
            Self::PauseTooLong { asked, limit } => {
                let asked = match asked >= LONGEST_PAUSE {
                    true => "a day or more".to_owned(),
                    false => shown(Duration::from_secs(asked.as_secs())).to_string(),
                };
                Some(format!(
                    "it asks for a pause of {asked}, which is more than what is left of \
                     --retry-for {}",
                    shown(limit)
                ))
            }
        }
    }
}

/// The pause in `Retry-After` (RFC 9110, section 10.2.3), given in seconds or as a date; at most a
/// day.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that overflows is more than a day.
        let seconds = value.parse::<u64>().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(LONGEST_PAUSE));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    let wait = date.duration_since(SystemTime::now()).unwrap_or_default();
    Some(wait.min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_capped() {
        let header = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            headers
        };
        assert_eq!(retry_after(&header("7")), Some(Duration::from_secs(7)));
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        let wait = retry_after(&header(&soon)).unwrap();
        assert!((98..=100).contains(&wait.as_secs()), "{wait:?}");
        let past = retry_after(&header("Wed, 21 Oct 2015 07:28:00 GMT"));
        assert_eq!(past, Some(Duration::ZERO));
        assert_eq!(retry_after(&header("soon")), None);
        assert_eq!(retry_after(&header("")), None);
        for many in ["99999999999999", "18446744073709551615", "99999999999999999999999"] {
            assert_eq!(retry_after(&header(many)), Some(Duration::from_secs(86_400)), "{many}");
        }
    }

    #[test]
    fn a_limit_of_zero_retries_nothing() {
        assert_eq!(RetryBudget::new(Duration::ZERO).next_wait(None), Err(GivenUp::Off));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_end_at_the_limit_and_progress_renews_it() {
        let mut budget = RetryBudget::new(Duration::from_secs(60));
        let mut waits = 0;
        while let Ok(wait) = budget.next_wait(None) {
            tokio::time::sleep(wait).await;
            waits += 1;
        }
        assert!((6..=14).contains(&waits), "{waits}");
        budget.renew();
        assert!(budget.next_wait(None).is_ok());
        let (asked, limit) = (Duration::from_secs(3600), Duration::from_secs(60));
        let given_up = budget.next_wait(Some(asked)).unwrap_err();
        assert_eq!(given_up, GivenUp::PauseTooLong { asked, limit });
        assert!(given_up.hint().unwrap().contains("pause of 1h"));
        let given_up = budget.next_wait(Some(LONGEST_PAUSE)).unwrap_err();
        assert!(given_up.hint().unwrap().contains("pause of a day or more"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_of_no_time_does_not_make_requests_follow_each_other_closely() {
        let mut budget = RetryBudget::new(Duration::from_secs(60));
        let mut waits = 0;
        while let Ok(wait) = budget.next_wait(Some(Duration::ZERO)) {
            tokio::time::sleep(wait).await;
            waits += 1;
        }
        assert!((6..=14).contains(&waits), "{waits}");
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_bytes_moved_is_excused_and_waits_are_not() {
        let mut budget = RetryBudget::new(Duration::from_secs(60));
        assert!(budget.next_wait(None).is_ok());
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(300)).await;
            budget.excuse(Duration::from_secs(300));
            assert!(budget.next_wait(None).is_ok());
        }
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert!(budget.next_wait(None).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_ends_the_tries_before_it_passes() {
        let deadline = super::super::optional::OptionalTime::default().deadline();
        let mut budget = RetryBudget::new(Duration::from_secs(120)).until(Some(deadline));
        assert!(budget.next_wait(None).is_ok());
        assert_eq!(budget.next_wait(Some(Duration::from_secs(6))), Err(GivenUp::Late));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(budget.next_wait(None), Err(GivenUp::Late));
    }
}
