//! Requests that only save work: reading previous images, and mounts. All requests of one kind
//! together may lose only a limited time. After that the push goes on without them.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use super::super::error::Error;

/// How long optional requests of one kind may take, and how much time they may lose in a run.
pub const OPTIONAL_TIME: Duration = Duration::from_secs(5);

/// A request that fails faster than this does not count as lost time.
const WORTH_COUNTING: Duration = Duration::from_secs(1);

/// The time that optional requests of one kind have lost in this run.
#[derive(Clone, Debug, Default)]
pub struct OptionalTime(Arc<Mutex<Lost>>);

#[derive(Debug, Default)]
struct Lost {
    total: Duration,
    /// Time before this moment is counted already.
    until: Option<Instant>,
}

/// When an optional request must be over.
#[derive(Clone, Debug)]
pub struct Deadline {
    at: Instant,
    time: OptionalTime,
}

impl OptionalTime {
    /// The deadline for requests that begin now.
    pub fn deadline(&self) -> Deadline {
        let left = OPTIONAL_TIME.saturating_sub(self.0.lock().total);
        Deadline { at: Instant::now() + left, time: self.clone() }
    }

    /// Counts the time from `start` until now as lost. Time that several requests lose at the same
    /// time counts once.
    fn lose(&self, start: Instant) {
        let (mut lost, now) = (self.0.lock(), Instant::now());
        let start = lost.until.map_or(start, |until| until.max(start));
        lost.total += now.saturating_duration_since(start);
        lost.until = Some(now);
    }
}

impl Deadline {
    pub fn at(&self) -> Instant {
        self.at
    }

    /// The earlier one.
    #[must_use]
    pub fn or(self, other: Option<&Self>) -> Self {
        match other {
            Some(other) if other.at < self.at => other.clone(),
            _ => self,
        }
    }

    /// Stops the work at the deadline. `doing` says in an error what the work was. If the registry
    /// cannot be reached at all, no time is counted as lost, because then the whole push has to
    /// wait.
    pub async fn limit<T>(
        &self,
        doing: &str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let started = Instant::now();
        let late = || {
            let reason = "it took too long for something that is optional".to_owned();
            Error::Transport { doing: doing.to_owned(), reason }
        };
        if self.at <= started {
            return Err(late());
        }
        let done = timeout_at(self.at, work).await.unwrap_or_else(|_| Err(late()));
        if let Err(error) = &done
            && started.elapsed() >= WORTH_COUNTING
            && !error.is_unreachable()
        {
            self.time.lose(started);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits this long and then fails.
    async fn fail(deadline: &Deadline, after: Duration) {
        let refused = async {
            tokio::time::sleep(after).await;
            Err::<(), _>(Error::Protocol { doing: "ask".into(), problem: "no".into() })
        };
        assert!(deadline.limit("ask", refused).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn requests_share_what_time_is_left() {
        let time = OptionalTime::default();
        let left = || time.deadline().at() - Instant::now();
        assert_eq!(left(), OPTIONAL_TIME);
        fail(&time.deadline(), Duration::from_millis(500)).await;
        assert_eq!(left(), OPTIONAL_TIME, "it was over soon");
        let first = time.deadline();
        // If several requests fail at the same time, the time is lost once.
        let second = Duration::from_secs(2);
        futures::future::join_all((0..10).map(|_| fail(&first, second))).await;
        assert_eq!(left(), OPTIONAL_TIME - second);
        fail(&time.deadline(), Duration::from_secs(60)).await;
        assert_eq!(left(), Duration::ZERO);
        assert_eq!(first.clone().or(Some(&time.deadline())).at(), first.at());
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_cannot_be_reached_loses_no_optional_time() {
        let time = OptionalTime::default();
        let gone = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let (host, reason) = ("h.example".to_owned(), "Connection refused".to_owned());
            Err::<(), _>(Error::Unreachable { host, reason, hint: None })
        };
        assert!(time.deadline().limit("ask", gone).await.is_err());
        assert_eq!(time.deadline().at() - Instant::now(), OPTIONAL_TIME);
    }
}
