//! Sends one request and reads one answer: the connection, the limits on time and length, and a
//! line for `-v`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderValue};
use reqwest::{Method, StatusCode};
use tokio::time::{Instant, timeout};
use url::Url;

use super::super::auth::Realm;
use super::super::connect::problem::is_tunnel_refused;
use super::super::error::Error;
use super::super::scheme::{Speaks, may_want_tls};
use super::door::Door;
use super::failure::{FailedRequest, Unanswered};
use super::idle::COMMIT;
use super::mask::{SafeUrl, Secrets, header_lines};
use super::request::{Answer, AnswerTime, Payload, ReadBody, Redirects, Request};
use crate::event::Event;

/// How much to read of an error's body, and of a body that is not needed.
const SMALL_BODY: usize = 64 << 10;
/// How long to read such a body.
const SMALL_BODY_TIME: Duration = Duration::from_secs(10);

impl Door {
    /// Sends a request and reads the answer. For a loopback address this also finds out whether the
    /// server speaks TLS.
    pub(super) async fn exchange(
        &self,
        request: &Request,
        url: Url,
        authorization: Option<&HeaderValue>,
        secrets: &Secrets,
    ) -> Result<Answer, FailedRequest> {
        let undecided = self.scheme.get() == Speaks::Unknown && self.is_registry_url(&url);
        let result = self.roundtrip(request, &url, authorization, secrets).await;
        if !undecided {
            return result;
        }
        let maybe_tls = match &result {
            Ok(answer) => may_want_tls(answer.status),
            Err(failure) => failure.connected,
        };
        if !maybe_tls {
            return result;
        }
        let mut secure = url;
        // Cannot fail, because http and https are both special schemes.
        let _ = secure.set_scheme("https");
        match self.roundtrip(request, &secure, authorization, secrets).await {
            Ok(answer) => Ok(answer),
            // The server answered in TLS, so the user needs to see the trust problem.
            Err(failure) if failure.about_trust => {
                self.scheme.settle(Speaks::Tls);
                Err(failure)
            }
            // It rejected plain HTTP and completed a TLS handshake, so it speaks TLS.
            Err(failure) if result.is_ok() && failure.connected => {
                self.scheme.settle(Speaks::Tls);
                Err(failure)
            }
            Err(_) => {
                // A permanent failure here means that the server answered, but not in valid HTTP.
                if result.as_ref().err().is_none_or(|failure| !failure.transient) {
                    self.scheme.settle(Speaks::Plain);
                }
                result
            }
        }
    }

    async fn roundtrip(
        &self,
        request: &Request,
        url: &Url,
        authorization: Option<&HeaderValue>,
        secrets: &Secrets,
    ) -> Result<Answer, FailedRequest> {
        let server = self.server(url);
        server.wait_for_pause().await;
        let is_registry = self.is_registry_url(url);
        let clients = self.clients(url.scheme() == "https").await?;
        let proxy = clients.proxies.of(url)?;
        let unanswered = Unanswered {
            doing: &request.doing,
            url,
            proxy,
            heard: server.has_answered(),
            led_by: (!is_registry && request.redirects == Redirects::Follow).then_some(self.host()),
        };
        let client = match &request.payload {
            Payload::Stream(_) | Payload::OpenConnection => &clients.bodies,
            Payload::Empty | Payload::Bytes(_) => &clients.small,
        };
        let built = self
            .build(request, url, authorization, client)
            .map_err(|error| unanswered.broken(error))?;
        let shows_headers = self.options.show_headers;
        let mut headers =
            if shows_headers { header_lines('>', built.headers(), secrets) } else { Vec::new() };

        let started = Instant::now();
        let idle = self.idle();
        let answer = async {
            let response = execute(request, built, client, unanswered, idle).await?;
            if let (StatusCode::PROXY_AUTHENTICATION_REQUIRED, Some(proxy)) =
                (response.status(), proxy)
            {
                return Err(unanswered.refused_by_proxy(proxy));
            }
            server.note_answer();
            if is_registry {
                self.note_distance(started.elapsed());
                self.note_status(url, response.status());
            }
            read(request, unanswered, response, idle).await
        }
        .await;
        if let (true, Ok(answer)) = (is_registry, &answer) {
            self.note_answer(answer);
        }
        if let (true, Ok(answer)) = (shows_headers, &answer) {
            headers.extend(header_lines('<', &answer.headers, secrets));
        }
        let outcome = match &answer {
            Ok(answer) => answer.status.as_str().to_owned(),
            Err(failure) => failure.error.summary(),
        };
        let (url, millis) = (SafeUrl::from(url.clone()), started.elapsed().as_millis());
        let line = format!("{} {url} {outcome} {millis} ms", request.method);
        (self.events)(Event::Request { line, headers });
        let server = Some(server);
        answer.map_err(|failure| FailedRequest { server, ..failure })
    }

    /// The request in the form in which it is sent.
    fn build(
        &self,
        request: &Request,
        url: &Url,
        authorization: Option<&HeaderValue>,
        client: &reqwest::Client,
    ) -> Result<reqwest::Request, reqwest::Error> {
        let mut builder =
            client.request(request.method.clone(), url.clone()).headers(request.headers.clone());
        // Send the credential only to its own realm, not to the target of a location or redirect.
        if let Some(value) = authorization
            && Some(Realm::of(url)) == self.realm()
        {
            builder = builder.header(AUTHORIZATION, value.clone());
        }
        let builder = match &request.payload {
            Payload::Empty
                if matches!(request.method, Method::GET | Method::HEAD | Method::DELETE) =>
            {
                builder
            }
            Payload::OpenConnection => builder,
            // Some servers require a length with every POST, PUT and PATCH.
            Payload::Empty => builder.header(CONTENT_LENGTH, 0),
            Payload::Bytes(bytes) => {
                request.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                builder.body(bytes.clone())
            }
            Payload::Stream(stream) => {
                let sending = stream.timer.start();
                let builder = match stream.length {
                    Some(length) => builder.header(CONTENT_LENGTH, length),
                    None => builder,
                };
                builder.body((stream.open)(sending))
            }
        };
        builder.build()
    }

    /// Records what the status of an answer shows: the registry's scheme, and that the other
    /// requests may be sent, unless the registry requires a login first.
    fn note_status(&self, url: &Url, status: StatusCode) {
        if self.scheme.get() == Speaks::Unknown {
            match url.scheme() {
                "https" => self.scheme.settle(Speaks::Tls),
                _ if may_want_tls(status) => return,
                _ => self.scheme.settle(Speaks::Plain),
            }
        }
        self.first.was_heard();
        if status != StatusCode::UNAUTHORIZED {
            self.first.has_arrived();
        }
    }
}

/// Sends a request, and waits for the head of its answer.
async fn execute(
    request: &Request,
    built: reqwest::Request,
    client: &reqwest::Client,
    unanswered: Unanswered<'_>,
    idle: Duration,
) -> Result<reqwest::Response, FailedRequest> {
    let response = match &request.payload {
        Payload::Stream(stream) => tokio::select! {
            response = client.execute(built) => {
                // The answer may come early. Do not send the rest of the body.
                stream.timer.answered();
                response
            }
            limit = stream.timer.expired(idle) => return Err(unanswered.stalled(limit)),
        },
        _ => {
            let limit = match request.answer_time {
                AnswerTime::Idle => idle,
                AnswerTime::Commit => idle * COMMIT,
            };
            timeout(limit, client.execute(built)).await.map_err(|_| unanswered.stalled(limit))?
        }
    };
    match (response, unanswered.proxy) {
        (Ok(response), _) => Ok(response),
        (Err(error), Some(proxy)) if is_tunnel_refused(&error) => {
            Err(match proxy.refusal(unanswered.url).await {
                Some(status) => unanswered.refused_tunnel(proxy, status),
                None => unanswered.broken(error),
            })
        }
        (Err(error), _) => Err(unanswered.broken(error)),
    }
}

/// Reads as much of an answer's body as the request needs.
async fn read(
    request: &Request,
    unanswered: Unanswered<'_>,
    response: reqwest::Response,
    idle: Duration,
) -> Result<Answer, FailedRequest> {
    let (status, headers, url) =
        (response.status(), response.headers().clone(), response.url().clone());
    let limit = match request.read {
        ReadBody::Success(limit) if status.is_success() => Some(limit),
        ReadBody::Always(limit) => Some(limit),
        ReadBody::Success(_) | ReadBody::Nothing => None,
    };
    let mut body = Vec::new();
    let mut stream = response.bytes_stream();
    let Some(limit) = limit else {
        // The status is the answer, so a body that breaks off does not matter.
        let reading = async {
            while let Some(Ok(piece)) = stream.next().await {
                if body.len() + piece.len() > SMALL_BODY {
                    return;
                }
                body.extend_from_slice(&piece);
            }
        };
        let _ = timeout(idle.min(SMALL_BODY_TIME), reading).await;
        return Ok(Answer { status, headers, url, body: Bytes::from(body) });
    };
    let reading = async {
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| unanswered.broken(error))?;
            if body.len() as u64 + piece.len() as u64 > limit {
                let url = SafeUrl::from(url.clone());
                let problem = format!("the answer of {url} is longer than {limit} bytes");
                return Err(Error::Protocol { doing: request.doing.clone(), problem }.into());
            }
            body.extend_from_slice(&piece);
        }
        Ok::<(), FailedRequest>(())
    };
    // Limit the total time, because a body that arrives byte by byte is never idle.
    timeout(idle, reading).await.map_err(|_| unanswered.unfinished(idle))??;
    Ok(Answer { status, headers, url, body: Bytes::from(body) })
}
