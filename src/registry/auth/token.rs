//! One request to a token server: scopes and a credential go in, a bearer token comes out.
//!
//! A GET with the password (or with nothing), or a POST with an identity token, as distribution's
//! "Token Authentication Specification" and "OAuth2 Token Authentication" have it. Nothing is
//! retried here, no redirect is followed, and of what the server says only its complaints are
//! shown.

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Client, Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use super::super::display::without_query_values;
use super::super::hosts;
use super::credential::{Credential, Found, basic, bearer};
use super::error::{AuthError, Denied, excerpt};
use super::realm::Realm;
use super::scopes::Scopes;
use super::secret::Secret;
use super::wire_log;
use crate::event::Events;

/// What we call ourselves to token servers.
const CLIENT_ID: &str = "pushimg";
/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;
/// How long a token lives where the server does not say.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// The longest life that is believed.
const MAX_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// How long before its end a token is replaced, unless its life is short.
const MARGIN: Duration = Duration::from_secs(10);

/// A bearer token, ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct Token {
    /// `Bearer …`; no debug format shows it.
    pub header: HeaderValue,
    /// What was asked for.
    pub scopes: Scopes,
    /// From then on a new one is fetched.
    pub stale_at: Instant,
}

/// Where tokens come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// The challenge's realm.
    pub url: Url,
    /// The challenge's service.
    pub service: Option<String>,
}

/// What is needed to fetch one token.
pub(super) struct TokenRequest {
    pub client: Client,
    /// The registry, as the user wrote it.
    pub host: String,
    pub endpoint: Endpoint,
    pub scopes: Scopes,
    pub found: Arc<Found>,
    /// How long the server may take for its whole answer.
    pub limit: Duration,
    pub events: Events,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<Secret>,
    access_token: Option<Secret>,
    expires_in: Option<Value>,
}

impl TokenRequest {
    /// Asks for the token.
    pub async fn send(self) -> Result<Token, AuthError> {
        let request = self.request();
        let sent_at = Instant::now();
        let log = wire_log::Line::of(&request);
        let answer = self.client.execute(request).await;
        (self.events)(log.answered(&answer, sent_at.elapsed()));
        let mut response = answer.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_redirection() {
            return Err(self.failed(status, None, redirected(&response)));
        }
        let retry_after = retry_after(&response);
        let body = self.read(&mut response).await?;
        if status.is_success() {
            let (token, life) = parse(&body).map_err(|said| self.failed(status, None, said))?;
            let header = bearer(&token).ok_or_else(|| {
                self.failed(status, None, "it sent a token that fits in no header".into())
            })?;
            return Ok(Token {
                header,
                scopes: self.scopes,
                // The clock starts when we asked: the server may have made the token then.
                stale_at: sent_at + (life - MARGIN.min(life / 4)),
            });
        }
        let said = complaint(status, &self.without_secrets(&words(&body)));
        Err(match status {
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                AuthError::Denied(Box::new(Denied {
                    server: self.server(),
                    scopes: self.scopes.to_string(),
                    status,
                    said,
                    origin: self.found.to_string(),
                    advice: hosts::log_in(&self.host),
                    host: self.host,
                }))
            }
            _ => self.failed(status, retry_after, said),
        })
    }

    fn request(&self) -> Request {
        let mut fields = Vec::new();
        if let Some(service) = &self.endpoint.service {
            fields.push(("service", service.as_str()));
        }
        let mut url = self.endpoint.url.clone();
        let mut request = if let Some(Credential::IdentityToken(token)) = &self.found.credential {
            let scopes = self.scopes.to_string();
            let mut form = form_urlencoded::Serializer::new(String::new());
            form.append_pair("grant_type", "refresh_token")
                .extend_pairs(fields)
                .append_pair("client_id", CLIENT_ID);
            if !scopes.is_empty() {
                form.append_pair("scope", &scopes);
            }
            form.append_pair("refresh_token", token.expose());
            let mut request = Request::new(Method::POST, url);
            request.headers_mut().insert(
                CONTENT_TYPE,
                HeaderValue::from_static("application/x-www-form-urlencoded"),
            );
            *request.body_mut() = Some(form.finish().into());
            request
        } else {
            let mut query = url.query_pairs_mut();
            query.extend_pairs(fields);
            for scope in self.scopes.iter() {
                query.append_pair("scope", &scope);
            }
            query.append_pair("client_id", CLIENT_ID);
            let mut authorization = None;
            if let Some(Credential::Basic { username, password }) = &self.found.credential {
                query.append_pair("account", username);
                authorization = Some(basic(username, password));
            }
            drop(query);
            let mut request = Request::new(Method::GET, url);
            if let Some(value) = authorization {
                request.headers_mut().insert(AUTHORIZATION, value);
            }
            request
        };
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        *request.timeout_mut() = Some(self.limit);
        request
    }

    async fn read(&self, response: &mut Response) -> Result<Zeroizing<Vec<u8>>, AuthError> {
        let mut body = Zeroizing::new(Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            if body.len() + chunk.len() > MAX_ANSWER {
                let said = format!("its answer is longer than {} KiB", MAX_ANSWER / 1024);
                return Err(self.failed(response.status(), None, said));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn server(&self) -> String {
        Realm::of(&self.endpoint.url).to_string()
    }

    fn failed(&self, status: StatusCode, retry_after: Option<Duration>, said: String) -> AuthError {
        AuthError::TokenServer {
            host: self.host.clone(),
            server: self.server(),
            scopes: self.scopes.to_string(),
            status: Some(status),
            said,
            transient: status.is_server_error()
                || matches!(
                    status,
                    StatusCode::REQUEST_TIMEOUT
                        | StatusCode::TOO_EARLY
                        | StatusCode::TOO_MANY_REQUESTS
                ),
            retry_after,
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> AuthError {
        AuthError::TokenServer {
            host: self.host.clone(),
            server: self.server(),
            scopes: self.scopes.to_string(),
            status: None,
            said: reasons(error),
            transient: !error.is_builder() && !is_bad_certificate(error),
            retry_after: None,
        }
    }

    /// A server may repeat what it was sent.
    fn without_secrets(&self, said: &str) -> String {
        let secrets = self.found.credential.iter().flat_map(Credential::secrets);
        let said = secrets
            .filter(|secret| !secret.is_empty())
            .fold(said.to_owned(), |said, secret| said.replace(secret.as_str(), "***"));
        without_query_values(&said)
    }
}

/// The token and its life. The error says what is wrong with the answer, and nothing of it.
pub(super) fn parse(body: &[u8]) -> Result<(Secret, Duration), String> {
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|_| "it answered 200, but not with the JSON of a token".to_owned())?;
    let token = [answer.token, answer.access_token]
        .into_iter()
        .flatten()
        .find(|token| !token.is_empty())
        .ok_or("it answered 200, but without a token")?;
    let seconds = match answer.expires_in {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    let life = seconds
        .filter(|seconds| *seconds > 0.0)
        .map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(MAX_LIFE))
        .map_or(DEFAULT_LIFE, |life| life.min(MAX_LIFE));
    Ok((token, life))
}

/// Status and the server's own words.
fn complaint(status: StatusCode, words: &str) -> String {
    let words = excerpt(words);
    if words.is_empty() { status.to_string() } else { format!("{status}: {words}") }
}

/// The server's own words, whole: cut short, a secret might no longer be known as one.
pub(super) fn words(body: &[u8]) -> String {
    match serde_json::from_slice::<Value>(body) {
        Ok(json) => json_words(&json).join("; "),
        // A page made for a browser by something in between tells nothing.
        Err(_) if body.trim_ascii_start().starts_with(b"<") => String::new(),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    }
}

fn json_words(json: &Value) -> Vec<String> {
    let text = |value: &Value, name: &str| {
        value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let mut said: Vec<String> = json
        .get("errors")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|error| match (text(error, "code"), text(error, "message")) {
            (Some(code), Some(message)) => Some(format!("{code}: {message}")),
            (code, message) => message.or(code),
        })
        .collect();
    said.extend(
        ["error", "error_description", "details", "detail", "message"]
            .iter()
            .filter_map(|name| text(json, name)),
    );
    said
}

fn redirected(response: &Response) -> String {
    let to = response
        .headers()
        .get(LOCATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| response.url().join(text).ok())
        .map(|url| format!(" to {}", Realm::of(&url)))
        .unwrap_or_default();
    format!(
        "{}, a redirect{to}, which is not followed: a credential may go along",
        response.status()
    )
}

/// `Retry-After`, in seconds or as a date (RFC 9110 section 10.2.3).
fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let date = httpdate::parse_http_date(text).ok()?;
            Some(date.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO))
        }
    }
}

/// An error with its causes, without the URL and without repetition.
fn reasons(error: &reqwest::Error) -> String {
    let mut said = match (error.is_timeout(), error.is_connect()) {
        (true, _) => "no answer in time".to_owned(),
        (_, true) => "cannot connect".to_owned(),
        _ => "the connection broke".to_owned(),
    };
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !said.contains(&text) {
            said = format!("{said}: {text}");
        }
        cause = inner.source();
    }
    excerpt(&said)
}

/// Whether the server showed a certificate that we do not trust, which waiting does not mend.
fn is_bad_certificate(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(rustls::Error::InvalidCertificate(_)) = inner.downcast_ref() {
            return true;
        }
        // An I/O error's `source` is that of the error which it wraps; the wrapped one itself is
        // had by `get_ref`.
        cause = match inner.downcast_ref::<std::io::Error>() {
            Some(io) => io.get_ref().map(|wrapped| wrapped as &dyn std::error::Error),
            None => inner.source(),
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_under_either_name_and_with_or_without_a_life() {
        for (body, token, seconds) in [
            (r#"{"token":"t"}"#, "t", 60),
            (r#"{"access_token":"t","expires_in":300}"#, "t", 300),
            (r#"{"token":"","access_token":"t","expires_in":"300"}"#, "t", 300),
            (r#"{"token":"t","access_token":"u","expires_in":null}"#, "t", 60),
            (r#"{"token":"t","expires_in":0}"#, "t", 60),
            (r#"{"token":"t","expires_in":-5}"#, "t", 60),
            (r#"{"token":"t","expires_in":1e300}"#, "t", 86400),
            (r#"{"token":"t","expires_in":[]}"#, "t", 60),
        ] {
            let (parsed, life) = parse(body.as_bytes()).unwrap();
            assert_eq!(parsed.expose(), token, "{body}");
            assert_eq!(life, Duration::from_secs(seconds), "{body}");
        }
        for body in ["", "{}", "[]", r#"{"token":5}"#, r#"{"token":"hunter2""#, "hunter2"] {
            assert!(!parse(body.as_bytes()).unwrap_err().contains("hunter2"));
        }
    }

    #[test]
    fn complaints_are_read_in_every_form() {
        let said = |body: &str| complaint(StatusCode::FORBIDDEN, &words(body.as_bytes()));
        for (body, expected) in [
            (
                r#"{"errors":[{"code":"DENIED","message":"no\nway"},{"code":"X"}]}"#,
                "DENIED: no way; X",
            ),
            (r#"{"details":"incorrect username or password"}"#, "incorrect username or password"),
            (
                r#"{"error":"invalid_grant","error_description":"expired"}"#,
                "invalid_grant; expired",
            ),
            ("plain words", "plain words"),
        ] {
            assert_eq!(said(body), format!("403 Forbidden: {expected}"));
        }
        for body in ["", "<html><body>nginx</body></html>", "{}", "[1]", "null"] {
            assert_eq!(said(body), "403 Forbidden", "{body}");
        }
        assert!(said(&"x".repeat(100_000)).len() < 400);
    }
}
