//! Every request of a push goes through this door: to the registry, to its token server, and to the
//! storage that redirects lead to. It holds what they share: connections, pauses, and messages
//! about them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::StatusCode;
use reqwest::header::WARNING;
use tokio::sync::OnceCell;
use url::Url;

use super::super::auth::Realm;
use super::super::connect::Clients;
use super::super::connect::proxy::Proxy;
use super::super::error::Error;
use super::super::hosts;
use super::super::message::ErrorMessage;
use super::super::options::Options;
use super::super::scheme::{Scheme, Speaks, is_loopback};
use super::failure::FailedRequest;
use super::first::FirstAnswer;
use super::mask::SafeUrl;
use super::pause::{Announced, Server, Servers};
use super::request::Answer;
use super::retry::RetryBudget;
use crate::event::{Event, Events};

/// Longer limits from the user are shortened to this one, because they would overflow a clock.
const LONGEST_IDLE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// A registry is distant if all its answers took at least this long. On a busy machine some answers
/// of a near registry are slow too.
const FAR: Duration = Duration::from_millis(20);
/// The same for a loopback address, which is distant only through a tunnel.
const FAR_ON_LOOPBACK: Duration = Duration::from_millis(50);
/// How many different warnings of a registry are shown, and the longest length of each.
const MAX_WARNINGS: usize = 5;
const MAX_WARNING_CHARS: usize = 500;

/// The way to one registry and to the servers that it names.
pub struct Door {
    /// The registry as the user wrote it: `docker.io`, `registry.fly.io`, `localhost:5000`.
    host: String,
    pub(super) options: Arc<Options>,
    pub(super) events: Events,
    pub(super) scheme: Scheme,
    pub(super) servers: Servers,
    pub(in crate::registry) first: FirstAnswer,
    plain: OnceCell<Clients>,
    tls: OnceCell<Clients>,
    announced: Announced,
    warnings: Mutex<Vec<String>>,
    /// Whether an answer was one that only a registry gives.
    is_registry: AtomicBool,
    /// How many milliseconds the fastest answer took.
    quickest: AtomicU64,
}

impl Door {
    /// Nothing is sent yet.
    pub fn new(host: &str, options: Arc<Options>, events: Events) -> Self {
        Self {
            scheme: Scheme::of(host, options.plain_http),
            host: host.to_owned(),
            options,
            events,
            servers: Servers::default(),
            first: FirstAnswer::default(),
            plain: OnceCell::new(),
            tls: OnceCell::new(),
            announced: Announced::default(),
            warnings: Mutex::default(),
            is_registry: AtomicBool::new(false),
            quickest: AtomicU64::new(u64::MAX),
        }
    }

    /// The registry's name as the user wrote it.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The options for this registry.
    pub fn options(&self) -> &Arc<Options> {
        &self.options
    }

    /// Reports a detail that is shown with `-v`.
    pub fn note(&self, text: String) {
        (self.events)(Event::Note(text));
    }

    /// The URL of a path of the registry's API.
    pub fn url(&self, path: &str) -> Result<Url, Error> {
        let scheme = match self.scheme.get() {
            Speaks::Tls => "https",
            Speaks::Plain | Speaks::Unknown => "http",
        };
        format!("{scheme}://{}{path}", hosts::api_host(&self.host)).parse().map_err(|error| {
            Error::Settings(format!("{} is not a registry's address: {error}", self.host))
        })
    }

    /// The only realm that may receive credentials.
    pub fn realm(&self) -> Option<Realm> {
        self.url("/").ok().map(|url| Realm::of(&url))
    }

    /// Whether a URL is at the registry itself.
    pub fn is_registry_url(&self, url: &Url) -> bool {
        self.url("/").is_ok_and(|ours| {
            ours.host() == url.host() && ours.port_or_known_default() == url.port_or_known_default()
        })
    }

    /// How long a connection may be idle.
    pub(super) fn idle(&self) -> Duration {
        self.options.idle_timeout.min(LONGEST_IDLE)
    }

    pub(super) async fn clients(&self, tls: bool) -> Result<&Clients, Error> {
        if !tls {
            return self.plain.get_or_try_init(|| async { Clients::plain() }).await;
        }
        self.tls
            .get_or_try_init(|| async {
                let (host, options) = (self.host.clone(), self.options.tls.clone());
                // This reads several hundred certificates from disk.
                tokio::task::spawn_blocking(move || Clients::tls(&host, &options))
                    .await
                    .map_err(|error| Error::Settings(format!("cannot set up TLS: {error}")))?
            })
            .await
    }

    /// Waits before a retry for as long as the failure and the budget require. Returns the error if
    /// a retry is pointless.
    pub async fn wait_before_retry(
        &self,
        failure: FailedRequest,
        budget: &mut RetryBudget,
    ) -> Result<(), Error> {
        if !failure.transient {
            return Err(failure.error);
        }
        // If a server has never answered, the time limit counts from the first request to it, not
        // from the start of each request.
        if let Some(server) = failure.server.as_ref().filter(|server| !server.has_answered())
            && let Some(first) = server.first_request()
        {
            budget.count_from(first);
        }
        let mut wait = match budget.next_wait(failure.retry_after) {
            Ok(wait) => wait,
            Err(given_up) => {
                return Err(match given_up.hint() {
                    Some(hint) => Error::GaveUp { error: Box::new(failure.error), hint },
                    None => failure.error,
                });
            }
        };
        if let Some(server) = &failure.server {
            if !server.has_answered() {
                let most =
                    if failure.connected { Duration::MAX } else { server.first_contact_left() };
                let Some(together) = server.join_pause(wait, most) else {
                    return Err(failure.error);
                };
                wait = together;
            } else if failure.retry_after.is_some() {
                server.pause_for(wait);
            }
        }
        self.announce_retry(&failure.error, wait);
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Reports that a request will be sent again, and when. If many requests wait after the same
    /// failure, only one reports it.
    pub fn announce_retry(&self, error: &Error, wait: Duration) {
        if !self.announced.is_news(error.cause(), wait) {
            return;
        }
        // Without the hints: they are shown only if the request finally fails.
        (self.events)(Event::Retry { why: error.summary(), wait });
    }

    /// The server at a URL.
    pub fn server(&self, url: &Url) -> Arc<Server> {
        self.servers.of(url)
    }

    /// Records what an answer shows about the registry, and reports its warnings.
    pub(super) fn note_answer(&self, answer: &Answer) {
        if shows_a_registry(answer) {
            self.is_registry.store(true, Ordering::Relaxed);
        }
        for value in answer.headers.get_all(WARNING) {
            for text in warnings(&String::from_utf8_lossy(value.as_bytes())) {
                let mut shown = self.warnings.lock();
                if shown.len() < MAX_WARNINGS && !shown.contains(&text) {
                    (self.events)(Event::Warning(format!("{} says: {text}", self.host)));
                    shown.push(text);
                }
            }
        }
    }

    /// Records how long an answer took.
    pub(super) fn note_distance(&self, took: Duration) {
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX - 1);
        self.quickest.fetch_min(millis, Ordering::Relaxed);
    }

    /// Whether the registry is distant, according to all answers so far.
    pub fn is_far(&self) -> bool {
        let quickest = self.quickest.load(Ordering::Relaxed);
        let far = if is_loopback(&self.host) { FAR_ON_LOOPBACK } else { FAR };
        quickest != u64::MAX && Duration::from_millis(quickest) >= far
    }

    /// Whether any answer so far was one that only a registry gives.
    pub fn is_registry(&self) -> bool {
        self.is_registry.load(Ordering::Relaxed)
    }

    /// The error for an answer that a registry would not give.
    pub fn not_a_registry(&self, answer: &Answer) -> Error {
        let (url, status) = (SafeUrl::from(answer.url.clone()), answer.status);
        let what = match answer.redirect() {
            Some(to) => format!(" with a redirect to {to}"),
            None if answer.is_web_page() => " with a web page".to_owned(),
            None => String::new(),
        };
        let proxy = self.proxy_before(&answer.url);
        let through = proxy.map(|proxy| format!(", through the proxy {proxy}"));
        Error::NotARegistry {
            host: self.host.clone(),
            answered: format!("{url} answered {status}{what}{}", through.unwrap_or_default()),
        }
    }

    /// The proxy that may have answered in place of the server: the one for plain HTTP.
    pub(super) fn proxy_before(&self, url: &Url) -> Option<&Proxy> {
        let clients = self.plain.get().filter(|_| url.scheme() == "http")?;
        clients.proxies.of(url).ok().flatten()
    }
}

/// Whether an answer is one that only a registry gives, by its headers, its media type, or the
/// codes in an error's body.
fn shows_a_registry(answer: &Answer) -> bool {
    const HEADERS: [&str; 4] = [
        "docker-distribution-api-version",
        "docker-content-digest",
        "docker-upload-uuid",
        "oci-chunk-min-length",
    ];
    let has = |name: &str, part: &str| answer.header(name).is_some_and(|it| it.contains(part));
    let is_session = answer.status == StatusCode::ACCEPTED && has("location", "/");
    HEADERS.iter().any(|name| answer.headers.contains_key(*name))
        || is_session
        || has("www-authenticate", "service=")
        || has("content-type", "application/vnd.")
        || !ErrorMessage::parse(&answer.text()).errors.is_empty()
}

/// The texts of `299 - "text", 299 - "text"` (OCI distribution-spec 1.1, "Warnings").
fn warnings(value: &str) -> Vec<String> {
    let (mut texts, mut rest) = (Vec::new(), value);
    while let Some((before, quoted)) = rest.split_once('"') {
        let Some((text, after)) = unquote(quoted) else { break };
        let code_and_agent = before.rsplit(',').next().unwrap_or_default();
        if code_and_agent.split_whitespace().eq(["299", "-"]) && !text.is_empty() {
            texts.push(text);
        }
        rest = after;
    }
    texts
}

/// The text before the closing quote, and the rest after it. Some registries do not escape a quote
/// within the text; such a quote is part of the text.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let (mut text, mut escaped) = (String::new(), false);
    for (place, c) in quoted.char_indices() {
        if c == '"' && !escaped {
            let after = &quoted[place + 1..];
            let next = after.trim_start();
            if next.is_empty() || next.starts_with([',', '"']) {
                return Some((text.chars().take(MAX_WARNING_CHARS).collect(), after));
            }
        }
        escaped = c == '\\' && !escaped;
        if !escaped {
            text.push(c);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_read_as_the_specification_writes_it() {
        assert_eq!(warnings(r#"299 - "be \"quick\"""#), [r#"be "quick""#]);
        assert_eq!(warnings(r#"299 - "v1 "old" is old""#), [r#"v1 "old" is old"#]);
        let several =
            r#"299 - "one, two" "Sat, 01 Aug 2026 00:00:00 GMT", 199 - "x", 299 - "three""#;
        assert_eq!(warnings(several), ["one, two", "three"]);
        for other in ["", "299 - \"\"", "199 - \"x\"", "299 - x", "299 - \""] {
            assert!(warnings(other).is_empty(), "{other}");
        }
    }
}
