//! What all requests to one server share while it fails: a common pause, and a single message for
//! requests with the same failure.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use url::Url;

/// How long to try a server that has never answered, counted from the first request.
const FIRST_CONTACT: Duration = Duration::from_secs(10);

/// The servers that requests were sent to, by host and port: the registry, its token server, its
/// storage.
#[derive(Default)]
pub struct Servers(Mutex<HashMap<Address, Arc<Server>>>);

type Address = (String, Option<u16>);

/// What is known of one server.
#[derive(Debug, Default)]
pub struct Server {
    pause: Mutex<Pause>,
    answered: AtomicBool,
    first_request: Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Pause {
    until: Option<Instant>,
    /// The length of the last common pause.
    length: Duration,
}

impl Servers {
    /// The server in a URL.
    pub fn of(&self, url: &Url) -> Arc<Server> {
        let host = url.host_str().unwrap_or_default().to_owned();
        let key = (host, url.port_or_known_default());
        self.0.lock().entry(key).or_default().clone()
    }
}

impl Server {
    /// Waits until the pause is over, if there is one.
    pub async fn wait_for_pause(&self) {
        loop {
            let until = self.pause.lock().until;
            match until {
                Some(until) if until > Instant::now() => tokio::time::sleep_until(until).await,
                _ => break,
            }
        }
        self.first_request.lock().get_or_insert_with(Instant::now);
    }

    /// Stops all requests for this long.
    pub fn pause_for(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut pause = self.pause.lock();
        pause.until = Some(pause.until.map_or(until, |old| old.max(until)));
    }

    /// Pauses all requests for this long, or for the rest of a pause that is running, and returns
    /// that time. A pause is never shorter than the previous one. `None` if it would be longer than
    /// `most`; then there is no pause.
    pub fn join_pause(&self, wait: Duration, most: Duration) -> Option<Duration> {
        let now = Instant::now();
        let mut pause = self.pause.lock();
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

    /// Records that the server has answered a request.
    pub fn note_answer(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// Whether the server has ever answered a request.
    pub fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// When the first request was sent.
    pub fn first_request(&self) -> Option<Instant> {
        *self.first_request.lock()
    }

    /// How much longer to try a server that has never answered. The limit is short, because a
    /// misspelt name is more likely than a server that is restarting.
    pub fn first_contact_left(&self) -> Duration {
        let tried = self.first_request.lock().map_or(Duration::ZERO, |first| first.elapsed());
        FIRST_CONTACT.saturating_sub(tried)
    }
}

/// The failures that were reported and whose waits have not ended.
#[derive(Debug, Default)]
pub struct Announced(Mutex<HashMap<String, Instant>>);

impl Announced {
    /// Whether a failure has not been reported by another request that still waits. `wait` is how
    /// long this request waits now.
    pub fn is_news(&self, failure: String, wait: Duration) -> bool {
        let now = Instant::now();
        let mut announced = self.0.lock();
        announced.retain(|_, until| *until > now);
        let is_news = !announced.contains_key(&failure);
        if is_news {
            announced.insert(failure, now + wait);
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_host_waits_with_the_others_and_no_shorter_than_before() {
        let (server, announced) = (Server::default(), Announced::default());
        let second = Duration::from_secs(1);
        let longest = Duration::from_secs(30);
        assert_eq!(server.join_pause(4 * second, longest), Some(4 * second));
        assert!(announced.is_news("down".to_owned(), 4 * second));
        tokio::time::sleep(second).await;
        assert_eq!(server.join_pause(9 * second, longest), Some(3 * second));
        assert!(!announced.is_news("down".to_owned(), 3 * second));
        assert!(announced.is_news("on fire".to_owned(), second));
        let began = Instant::now();
        server.wait_for_pause().await;
        assert_eq!(began.elapsed(), 3 * second);
        assert_eq!(server.join_pause(second, longest), Some(4 * second));
        assert!(announced.is_news("down".to_owned(), 4 * second));
        tokio::time::sleep(4 * second).await;
        assert_eq!(server.join_pause(second, 3 * second), None);
        let began = Instant::now();
        server.wait_for_pause().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[test]
    fn a_server_is_known_by_its_host_and_port() {
        let servers = Servers::default();
        let of = |url: &str| servers.of(&url.parse().unwrap());
        assert!(Arc::ptr_eq(&of("https://h.example/a"), &of("https://h.example:443/b?c")));
        assert!(!Arc::ptr_eq(&of("https://h.example/a"), &of("https://h.example:444/a")));
    }
}
