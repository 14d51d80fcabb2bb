//! The wire: the OCI distribution protocol as registries really speak it.
//!
//! A [`Registry`] is one host; a [`Repository`] one repository there. Every request goes through
//! `send`, which knows of authorization, redirects, retries and errors; [`upload`](mod@upload)
//! knows how to get bytes across and to go on where a broken connection left off. Nothing here
//! knows of images' sources.

pub mod auth;
mod blobs;
mod body;
mod display;
mod dns;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod hints;
mod hosts;
mod http;
mod ladder;
mod manifests;
mod pulse;
mod referrers;
mod retry;
mod scheme;
mod send;
mod sessions;
pub mod upload;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Mutex, OnceCell, Semaphore};
use tokio::time::Instant;
use url::Url;

pub use blobs::{Mount, Present};
pub use display::SafeUrl;
pub use error::{ApiError, Error, Said, StatusError};
pub use http::TlsOptions;
pub use manifests::Fetched;
pub use referrers::Referrer;
pub use scheme::is_loopback;
pub use sessions::Sessions;

use crate::event::Events;
use auth::{Authenticator, Realm, Scopes};
use http::Clients;
use ladder::Ladder;
use retry::{Gate, Patience, Told};
use scheme::{Scheme, Speaks};

/// Small requests to one registry under way at the same time, as long as it answers at once: more
/// connections to a near registry only make work.
const SMALL_REQUESTS_NEAR: usize = 16;
/// The same once an answer took a while. Over HTTP/2 they share a connection; over HTTP/1.1 each
/// needs one, and a hundred layers are then asked for in two round trips.
const SMALL_REQUESTS_FAR: usize = 128;
/// An answer that took longer came from far.
const FAR: Duration = Duration::from_millis(10);

/// How long a request may fail that only saves work.
const HASTE: Duration = Duration::from_secs(10);

/// How to talk to registries.
#[derive(Clone, Debug)]
pub struct Options {
    /// Plain HTTP for every host. Default: only loopback addresses are tried so.
    pub plain_http: bool,
    /// Who we are. Default: what the environment offers.
    pub credentials: auth::Sources,
    /// How long a request may fail before the push does. Default: [`DEFAULT_RETRY_FOR`]; zero: no
    /// retry.
    pub retry_for: Duration,
    /// How long nothing may move on a connection, in either direction; never a limit on a whole
    /// upload. The answer to a blob's last byte may take five times as long: registries hash and
    /// store gigabytes then. Default: one minute.
    pub idle_timeout: Duration,
    /// Trust at the TLS level.
    pub tls: TlsOptions,
    /// The upload sessions open at any moment, for whoever has to cancel them.
    pub sessions: Sessions,
    /// Whether events carry headers (`-vv`). Default: no.
    pub show_headers: bool,
}

/// How long a request may fail before the push does, unless told otherwise.
pub const DEFAULT_RETRY_FOR: Duration = Duration::from_secs(120);

impl Default for Options {
    fn default() -> Self {
        Self {
            plain_http: false,
            credentials: auth::Sources::default(),
            retry_for: DEFAULT_RETRY_FOR,
            idle_timeout: Duration::from_secs(60),
            tls: TlsOptions::default(),
            sessions: Sessions::default(),
            show_headers: false,
        }
    }
}

/// One registry host: its connections, our authorization there, and what was learnt about it.
pub struct Registry {
    /// As users write it: `docker.io`, `registry.fly.io`, `localhost:5000`.
    host: String,
    settings: Arc<Options>,
    events: Events,
    scheme: Scheme,
    plain: OnceCell<Clients>,
    tls: OnceCell<Clients>,
    auth: OnceLock<Authenticator>,
    gate: Gate,
    small_requests: Semaphore,
    far: AtomicBool,
    ladder: Ladder,
    /// Whether the host ever answered, so that a wrong name or port is found out soon.
    answered: AtomicBool,
    /// When it was first asked for anything.
    first_request: OnceLock<Instant>,
    /// The troubles that the user knows of.
    told: Told,
    /// It does not take HEAD for blobs.
    refuses_head: AtomicBool,
    /// Held by whoever changes a list of referrers: two at once would each undo what the other did.
    referrers: Mutex<()>,
}

/// One repository of a registry.
#[derive(Clone)]
pub struct Repository {
    registry: Arc<Registry>,
    name: String,
    scopes: Scopes,
    /// How long a request may fail.
    retry_for: Duration,
    /// Bytes of request bodies handed to the network.
    sent: Arc<AtomicU64>,
}

impl Registry {
    /// A registry by the name that users write. Nothing is sent yet.
    pub fn new(host: &str, settings: Arc<Options>, events: Events) -> Arc<Self> {
        Arc::new(Self {
            scheme: Scheme::of(host, settings.plain_http),
            host: host.to_owned(),
            settings,
            events,
            plain: OnceCell::new(),
            tls: OnceCell::new(),
            auth: OnceLock::new(),
            gate: Gate::default(),
            small_requests: Semaphore::new(SMALL_REQUESTS_NEAR),
            far: AtomicBool::new(false),
            ladder: Ladder::default(),
            answered: AtomicBool::new(false),
            first_request: OnceLock::new(),
            told: Told::default(),
            refuses_head: AtomicBool::new(false),
            referrers: Mutex::default(),
        })
    }

    /// The registry's name as users write it.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Takes note of how long an answer took.
    fn note_distance(&self, took: Duration) {
        if took > FAR && !self.far.swap(true, Ordering::Relaxed) {
            self.small_requests.add_permits(SMALL_REQUESTS_FAR - SMALL_REQUESTS_NEAR);
        }
    }

    /// A repository here, for pulling and pushing.
    pub fn repository(self: &Arc<Self>, name: &str) -> Repository {
        self.repository_for(name, Scopes::push(name))
    }

    /// A repository here, for pulling only: nobody is asked for a right to push that is not needed.
    pub fn readable_repository(self: &Arc<Self>, name: &str) -> Repository {
        self.repository_for(name, Scopes::pull(name))
    }

    fn repository_for(self: &Arc<Self>, name: &str, scopes: Scopes) -> Repository {
        let retry_for = self.settings.retry_for;
        let sent = Arc::default();
        Repository { registry: self.clone(), name: name.to_owned(), scopes, retry_for, sent }
    }

    /// With which credentials it was asked, for messages.
    fn origin(&self, repository: &str) -> String {
        let origin = |auth: &Authenticator| auth.origin(repository);
        self.auth.get().map_or_else(|| "without credentials".to_owned(), origin)
    }

    fn url(&self, path: &str) -> Result<Url, Error> {
        let scheme = match self.scheme.get() {
            Speaks::Tls => "https",
            Speaks::Plain | Speaks::Unknown => "http",
        };
        format!("{scheme}://{}{path}", hosts::api_host(&self.host)).parse().map_err(|error| {
            Error::Settings(format!("{} is not a registry's address: {error}", self.host))
        })
    }

    fn realm(&self) -> Option<Realm> {
        self.url("/").ok().map(|url| Realm::of(&url))
    }

    fn is_ours(&self, url: &Url) -> bool {
        self.url("/").is_ok_and(|ours| {
            ours.host() == url.host() && ours.port_or_known_default() == url.port_or_known_default()
        })
    }

    /// The one who answers this registry's challenges, from the first challenge on.
    async fn authenticator(
        &self,
        challenge: &reqwest::header::HeaderMap,
    ) -> Result<&Authenticator, Error> {
        if let Some(auth) = self.auth.get() {
            return Ok(auth);
        }
        // A registry on plain HTTP may well name a token server on HTTPS.
        let tls = self.scheme.get() == Speaks::Tls
            || challenge
                .get_all(reqwest::header::WWW_AUTHENTICATE)
                .iter()
                .any(|value| String::from_utf8_lossy(value.as_bytes()).contains("https://"));
        let client = self.clients(tls).await?.small.clone();
        let base = self.url("/")?;
        Ok(self.auth.get_or_init(|| {
            let sources = self.settings.credentials.clone();
            let auth = Authenticator::new(&base, &self.host, sources, client, self.events.clone())
                .with_time_limit(self.settings.idle_timeout);
            if self.settings.plain_http { auth.allow_plain_token_servers() } else { auth }
        }))
    }

    async fn clients(&self, tls: bool) -> Result<&Clients, Error> {
        if !tls {
            return self.plain.get_or_try_init(|| async { Clients::plain(&self.host) }).await;
        }
        self.tls
            .get_or_try_init(|| async {
                let (host, options) = (self.host.clone(), self.settings.tls.clone());
                // Reads some hundred certificates from disk.
                tokio::task::spawn_blocking(move || Clients::tls(&host, &options))
                    .await
                    .map_err(|error| Error::Settings(format!("cannot set up TLS: {error}")))?
            })
            .await
    }
}

impl Repository {
    /// Its name, without the registry's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same repository, for requests whose answers are not worth a long wait: they are tried
    /// for ten seconds at most, or for `--retry-for` where that is less.
    #[must_use]
    pub fn hastily(&self) -> Self {
        Self { retry_for: self.retry_for.min(HASTE), ..self.clone() }
    }

    /// Bytes of request bodies handed to the network so far through this value and its clones,
    /// those sent again included.
    pub fn bytes_sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn patience(&self) -> Patience {
        Patience::new(self.retry_for)
    }

    /// The registry that it is in.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry.host, self.name)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
