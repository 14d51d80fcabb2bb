//! The one place that every request goes through: authorization, redirects, idle limits, retries,
//! and errors that say what was attempted.

use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode};
use tokio::time::Instant;
use url::Url;

use super::auth::{Realm, Scopes};
use super::display::{SafeUrl, header_lines};
use super::error::{Said, StatusError, is_transient};
use super::hints;
use super::pulse::{COMMIT, Pulse};
use super::retry::{Patience, retry_after};
use super::scheme::{Speaks, may_want_tls};
use super::{Error, Registry};
use crate::event::Event;

/// How many redirects are followed; storage behind a registry needs one or two.
const MAX_REDIRECTS: usize = 5;
/// How long a host that has never answered is tried, from the first request on.
const FIRST_CONTACT: Duration = Duration::from_secs(10);
/// How much is read of an answer that nobody asked to read.
const SMALL_BODY: usize = 64 << 10;
/// And how long that may take.
const UNWANTED: Duration = Duration::from_secs(10);

/// A request to be made.
pub(super) struct Call<'a> {
    /// What it is for, to follow the word "cannot": `upload blob sha256:… to HOST/REPOSITORY`.
    pub doing: String,
    pub method: Method,
    pub to: Target,
    pub headers: HeaderMap,
    pub payload: Payload,
    /// Whose repository it is about, for the choice of credentials and for hints.
    pub repository: &'a str,
    pub scopes: &'a Scopes,
    /// Counts the bytes of bodies.
    pub sent: &'a AtomicU64,
    /// Statuses besides 2xx that are an answer and no error.
    pub also: &'a [StatusCode],
    /// How much of the answer's body is taken; more is an error. `None`: it is of no interest.
    pub read: Option<u64>,
    pub persistence: Persistence,
    pub answer: AnswerTime,
}

/// How long an answer may take.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerTime {
    /// As long as nothing may move on a connection.
    Idle,
    /// Longer: the registry completes a blob.
    Commit,
}

/// Where a request goes.
#[derive(Clone)]
pub(super) enum Target {
    /// A path of this registry's API, with its query: `/v2/…`.
    Path(String),
    /// A location that the registry gave.
    Url(Url),
}

/// What a request carries.
pub(super) enum Payload {
    Empty,
    Bytes(Bytes),
    Stream(StreamPayload),
}

/// A body that is made anew each time the request is sent, under the name that the pulse gives to
/// this sending.
pub(super) struct StreamPayload {
    pub open: Box<dyn Fn(u64) -> reqwest::Body + Send + Sync>,
    /// Sent as `Content-Length`; without it the transfer is chunked.
    pub length: Option<u64>,
    /// Tells whether bytes move, and the body when it is of no more use.
    pub pulse: Arc<Pulse>,
}

/// How often a request that failed for a passing reason is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Persistence {
    /// Until the limit that the user has set.
    UntilLimit,
    /// Once; the caller knows better what to do next.
    Once,
}

/// An answer, its body read.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The URL that gave it, after redirects.
    pub url: Url,
    pub body: Bytes,
}

/// A failed attempt.
#[derive(Debug)]
pub(super) struct Failure {
    pub error: Error,
    /// Whether the same request may succeed later.
    pub transient: bool,
    /// How long the host asks to be left alone.
    pub retry_after: Option<Duration>,
    /// The host is the registry's, not that of its tokens or its storage.
    pub by_registry: bool,
    /// There was a connection.
    pub connected: bool,
}

impl Registry {
    /// Sends a request until there is an answer, or no hope, or no more patience.
    pub(super) async fn send_within(
        &self,
        call: &Call<'_>,
        patience: &mut Patience,
    ) -> Result<Answer, Error> {
        loop {
            let failure = match self.attempt(call).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if call.persistence == Persistence::Once {
                return Err(failure.error);
            }
            self.wait_before_retry(failure, patience).await?;
        }
    }

    /// Sleeps as long as the failure and the user's patience ask for; gives the error back where
    /// there is no point in trying again.
    pub(super) async fn wait_before_retry(
        &self,
        failure: Failure,
        patience: &mut Patience,
    ) -> Result<(), Error> {
        if !failure.transient {
            return Err(failure.error);
        }
        let mut wait = match patience.next_wait(failure.retry_after) {
            Ok(wait) => wait,
            Err(given_up) => {
                return Err(match given_up.hint() {
                    Some(hint) => Error::GaveUp { error: Box::new(failure.error), hint },
                    None => failure.error,
                });
            }
        };
        if !self.answered() {
            // A host that nobody has heard of yet is more likely misspelt than restarting.
            let begun = self.first_request.get().map_or(Duration::ZERO, Instant::elapsed);
            let most = match failure.connected {
                true => Duration::MAX,
                false => FIRST_CONTACT.saturating_sub(begun),
            };
            // Nobody gets further than the others, so all wait for the same moment.
            let Some(together) = self.gate.wait_together(wait, most) else {
                return Err(failure.error);
            };
            wait = together;
        } else if failure.retry_after.is_some() && failure.by_registry {
            self.gate.close_for(wait);
        }
        self.tell_retry(&failure.error, wait);
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Says that something is sent again, and when; of many requests that have met the same trouble
    /// and wait at the same time, the first says it for all.
    pub(super) fn tell_retry(&self, error: &Error, wait: Duration) {
        if !self.told.is_news(error.trouble(), wait) {
            return;
        }
        // What a user can do about it is of interest only when it has failed for good.
        let why = error.to_string().lines().next().unwrap_or_default().to_owned();
        (self.events)(Event::Retry { why, wait });
    }

    /// Whether the host ever answered.
    fn answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Sends a request once; a second time with a new token where the first one is refused.
    pub(super) async fn attempt(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let in_call = |source| Failure::auth(&self.host, source);
        // Before the first challenge there is nothing to send: a credential is never sent unasked.
        let authorization = match self.auth.get() {
            Some(auth) => {
                auth.authorization(call.repository, call.scopes).await.map_err(in_call)?
            }
            None => None,
        };
        let answer = self.follow(call, authorization.as_ref()).await?;
        if !asks_for_credentials(&answer) || Some(Realm::of(&answer.url)) != self.realm() {
            return self.judge(call, answer, authorization.as_ref());
        }
        let auth = self.authenticator(&answer.headers).await?;
        let renewed = auth
            .challenged(call.repository, call.scopes, &answer.headers, authorization.as_ref())
            .await
            .map_err(in_call)?;
        let answer = self.follow(call, Some(&renewed)).await?;
        self.judge(call, answer, Some(&renewed))
    }

    /// Sends a request and goes where redirects point, leaving the authorization behind where they
    /// leave the registry's realm.
    async fn follow(
        &self,
        call: &Call<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, Failure> {
        let mut method = call.method.clone();
        let mut url = match &call.to {
            Target::Url(url) => url.clone(),
            Target::Path(path) => self.url(path)?,
        };
        let mut answer = self.exchange(call, &method, url, authorization).await?;
        for _ in 0..MAX_REDIRECTS {
            let keeps_body = match answer.status.as_u16() {
                307 | 308 => true,
                301..=303 => matches!(method, Method::GET | Method::HEAD),
                _ => return Ok(answer),
            };
            if !keeps_body {
                method = Method::GET;
            }
            url = location(&answer.url, &answer.headers).map_err(|problem| {
                Failure::from(Error::Protocol { doing: call.doing.clone(), problem })
            })?;
            answer = self.exchange(call, &method, url, authorization).await?;
        }
        let last = SafeUrl::from(answer.url);
        let problem = format!("more than {MAX_REDIRECTS} redirects, the last to {last}");
        Err(Error::Protocol { doing: call.doing.clone(), problem }.into())
    }

    /// One request, one answer. For a loopback address this is also where it is found out whether
    /// it speaks TLS.
    async fn exchange(
        &self,
        call: &Call<'_>,
        method: &Method,
        url: Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, Failure> {
        let undecided = self.scheme.get() == Speaks::Unknown && self.is_ours(&url);
        let result = self.roundtrip(call, method, &url, authorization).await;
        if !undecided {
            return result;
        }
        let maybe_tls = match &result {
            Ok(answer) => may_want_tls(answer.status),
            Err(failure) => failure.connected,
        };
        if !maybe_tls {
            if result.is_ok() {
                self.scheme.settle(Speaks::Plain);
            }
            return result;
        }
        let mut secure = url;
        // Cannot fail: http and https are both special schemes.
        let _ = secure.set_scheme("https");
        match self.roundtrip(call, method, &secure, authorization).await {
            Ok(answer) => {
                self.scheme.settle(Speaks::Tls);
                Ok(answer)
            }
            // It did answer in TLS, and one of us does not trust the other: that is the news.
            Err(failure) if failure.is_about_trust() => Err(failure),
            // Who refuses plain HTTP and shakes hands is a TLS server, whatever came after.
            Err(failure) if result.is_ok() && failure.connected => {
                self.scheme.settle(Speaks::Tls);
                Err(failure)
            }
            Err(_) => {
                if result.is_ok() {
                    self.scheme.settle(Speaks::Plain);
                }
                result
            }
        }
    }

    async fn roundtrip(
        &self,
        call: &Call<'_>,
        method: &Method,
        url: &Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, Failure> {
        if self.is_ours(url) {
            self.gate.pass().await;
            self.first_request.get_or_init(Instant::now);
        }
        let clients = self.clients(url.scheme() == "https").await?;
        let client = match &call.payload {
            Payload::Stream(_) => &clients.bodies,
            Payload::Empty | Payload::Bytes(_) => &clients.small,
        };
        let mut request = client.request(method.clone(), url.clone()).headers(call.headers.clone());
        // A credential goes to its own realm only, never to where a location or redirect points.
        if let Some(value) = authorization
            && Some(Realm::of(url)) == self.realm()
        {
            request = request.header(AUTHORIZATION, value.clone());
        }
        request = match &call.payload {
            // Some servers want a length on every POST, PUT and PATCH.
            Payload::Empty if matches!(*method, Method::GET | Method::HEAD | Method::DELETE) => {
                request
            }
            Payload::Empty => request.header("content-length", 0),
            Payload::Bytes(bytes) => {
                call.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                request.body(bytes.clone())
            }
            Payload::Stream(stream) => {
                let sending = stream.pulse.begin();
                let request = match stream.length {
                    Some(length) => request.header("content-length", length),
                    None => request,
                };
                request.body((stream.open)(sending))
            }
        };
        // Of a host that redirects lead to it is enough that the registry answered.
        let heard = self.answered();
        let request =
            request.build().map_err(|error| Failure::transport(call, url, error, heard))?;
        let sent_headers = self.settings.show_headers.then(|| header_lines('>', request.headers()));

        let started = Instant::now();
        let idle = self.settings.idle_timeout;
        let answer = async {
            let response = match &call.payload {
                Payload::Stream(stream) => tokio::select! {
                    response = client.execute(request) => {
                        // A hasty answer: the rest of the body would be sent for nothing.
                        stream.pulse.answered();
                        response
                    }
                    limit = stream.pulse.stopped(idle) => {
                        return Err(Failure::stalled(call, url, limit, heard));
                    }
                },
                _ => {
                    let limit = match call.answer {
                        AnswerTime::Idle => idle,
                        AnswerTime::Commit => idle * COMMIT,
                    };
                    tokio::time::timeout(limit, client.execute(request))
                        .await
                        .map_err(|_| Failure::stalled(call, url, limit, heard))?
                }
            };
            let response = response.map_err(|error| Failure::transport(call, url, error, heard))?;
            self.answered.store(true, Ordering::Relaxed);
            self.note_distance(started.elapsed());
            read(call, response, idle).await
        }
        .await;
        self.tell(method, url, started, &answer, sent_headers);
        answer
    }

    /// Sorts answers from errors.
    fn judge(
        &self,
        call: &Call<'_>,
        answer: Answer,
        sent: Option<&HeaderValue>,
    ) -> Result<Answer, Failure> {
        if answer.status.is_success() || call.also.contains(&answer.status) {
            return Ok(answer);
        }
        let sent = sent.and_then(|value| value.to_str().ok()?.split_once(' '));
        let said = Said::parse(&answer.body).without_secrets(sent.map(|(_, secret)| secret));
        let hint = hints::for_status(self, call.repository, answer.status, &said);
        let ours = self.is_ours(&answer.url);
        // It is not about what was asked for, but about who asks.
        let doing = match answer.status {
            StatusCode::UNAUTHORIZED if ours => format!("log in to {}", self.host),
            _ => call.doing.clone(),
        };
        Err(Failure {
            transient: is_transient(answer.status),
            retry_after: retry_after(&answer.headers),
            by_registry: ours,
            connected: true,
            error: Error::Status(Box::new(StatusError {
                doing,
                url: answer.url.into(),
                status: answer.status,
                said,
                hint,
            })),
        })
    }

    fn tell(
        &self,
        method: &Method,
        url: &Url,
        started: Instant,
        answer: &Result<Answer, Failure>,
        sent: Option<Vec<String>>,
    ) {
        let outcome = match answer {
            Ok(answer) => answer.status.as_str().to_owned(),
            Err(failure) => failure.error.to_string(),
        };
        let mut headers = sent.unwrap_or_default();
        if let (false, Ok(answer)) = (headers.is_empty(), answer) {
            headers.extend(header_lines('<', &answer.headers));
        }
        let url = SafeUrl::from(url.clone());
        let millis = started.elapsed().as_millis();
        (self.events)(Event::Request {
            line: format!("{method} {url} {outcome} {millis} ms"),
            headers,
        });
    }
}

impl Failure {
    fn auth(host: &str, source: super::auth::AuthError) -> Self {
        Self {
            transient: source.is_transient(),
            retry_after: source.retry_after(),
            by_registry: false,
            connected: true,
            error: Error::Auth { host: host.to_owned(), source: Box::new(source) },
        }
    }

    /// No answer came over the connection, or there is none. `heard` tells whether anything was
    /// ever heard of the host.
    fn transport(call: &Call<'_>, url: &Url, error: reqwest::Error, heard: bool) -> Self {
        // The URL may hold a signature.
        let error = error.without_url();
        let cause = innermost(&error);
        let about_trust = hints::is_about_trust(&cause);
        if error.is_connect() || about_trust {
            let reason = match error.is_timeout() {
                true => "no connection could be made in time".to_owned(),
                false => cause.clone(),
            };
            let hint = hints::for_connection(&cause);
            return Self {
                transient: !hints::is_permanent(&cause),
                // With TLS 1.3 it is only now that a server says it wants another certificate.
                connected: !error.is_connect(),
                ..Error::Unreachable { host: place(url), reason, hint }.into()
            };
        }
        if error.is_builder() {
            let reason = format!("no such request can be made: {cause}");
            return Error::Transport { doing: call.doing.clone(), reason }.into();
        }
        Self::silent(call, url, "the connection", &format!("broke: {cause}"), heard)
    }

    fn stalled(call: &Call<'_>, url: &Url, limit: Duration, heard: bool) -> Self {
        let limit = format!("for {}", humantime::format_duration(limit));
        Self::silent(call, url, "nothing moved on the connection", &limit, heard)
    }

    /// A connection over which no answer came; `what` and `how` are the words before and after the
    /// host's name, which is said but once.
    fn silent(call: &Call<'_>, url: &Url, what: &str, how: &str, heard: bool) -> Self {
        let host = place(url);
        let error = match heard {
            true => {
                let reason = format!("{what} to {host} {how}");
                Error::Transport { doing: call.doing.clone(), reason }
            }
            false => Error::Unreachable { host, reason: format!("{what} {how}"), hint: None },
        };
        Self { transient: true, ..error.into() }
    }

    /// Whether the other side speaks TLS, and one of us does not trust the other.
    fn is_about_trust(&self) -> bool {
        match &self.error {
            Error::Unreachable { reason, .. } => hints::is_about_trust(reason),
            // A file of certificates that cannot be read.
            Error::Settings(_) => true,
            _ => false,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, transient: false, retry_after: None, by_registry: false, connected: true }
    }
}

/// Whether an answer means that (other) credentials would help: 401, or a 403 that says the token's
/// scope was too narrow (RFC 6750, section 3.1).
fn asks_for_credentials(answer: &Answer) -> bool {
    match answer.status {
        StatusCode::UNAUTHORIZED => true,
        StatusCode::FORBIDDEN => answer
            .headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .any(|value| value.to_str().is_ok_and(|text| text.contains("insufficient_scope"))),
        _ => false,
    }
}

/// Reads an answer's body, as much of it as was asked for. Where nobody asked, the status is the
/// answer, and what breaks in the body does not change it.
async fn read(
    call: &Call<'_>,
    response: reqwest::Response,
    idle: Duration,
) -> Result<Answer, Failure> {
    let (status, headers, url) =
        (response.status(), response.headers().clone(), response.url().clone());
    let mut body = Vec::new();
    let mut stream = response.bytes_stream();
    let Some(limit) = status.is_success().then_some(call.read).flatten() else {
        let reading = async {
            while let Some(Ok(piece)) = stream.next().await {
                if body.len() + piece.len() > SMALL_BODY {
                    return;
                }
                body.extend_from_slice(&piece);
            }
        };
        let _ = tokio::time::timeout(idle.min(UNWANTED), reading).await;
        return Ok(Answer { status, headers, url, body: body.into() });
    };
    while let Some(piece) = tokio::time::timeout(idle, stream.next())
        .await
        .map_err(|_| Failure::stalled(call, &url, idle, true))?
    {
        let piece = piece.map_err(|error| Failure::transport(call, &url, error, true))?;
        if body.len() as u64 + piece.len() as u64 > limit {
            let url = SafeUrl::from(url);
            let problem = format!("the answer of {url} is longer than {limit} bytes");
            return Err(Error::Protocol { doing: call.doing.clone(), problem }.into());
        }
        body.extend_from_slice(&piece);
    }
    Ok(Answer { status, headers, url, body: body.into() })
}

/// Host and port, as they are written.
fn place(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"))
}

/// Where an answer's `Location` points, resolved against the URL that gave it.
///
/// A registry behind a proxy that does not tell it its own name writes locations with the scheme
/// `http`, or without the port; where only those differ, its real address is meant.
pub(super) fn location(from: &Url, headers: &HeaderMap) -> Result<Url, String> {
    let value = headers
        .get(LOCATION)
        .ok_or_else(|| format!("{} gave no Location", SafeUrl::from(from.clone())))?;
    let text = value.to_str().map_err(|_| "its Location is not text".to_owned())?;
    let mut url = from.join(text).map_err(|error| format!("its Location is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("its Location is not an HTTP URL but {}:…", url.scheme()));
    }
    if url.host_str() == from.host_str()
        && Realm::of(&url) != Realm::of(from)
        && url.port().is_none()
    {
        // Neither can fail on an HTTP URL.
        let _ = url.set_scheme(from.scheme());
        let _ = url.set_port(from.port());
    }
    if from.scheme() == "https" && url.scheme() == "http" {
        return Err(format!("its Location leads from HTTPS to plain HTTP: {}", SafeUrl::from(url)));
    }
    Ok(url)
}

/// The text of the innermost cause, which is the one that says something.
pub(super) fn innermost(error: &dyn StdError) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
