//! One request to a token server: scopes and a credential go in, a bearer token comes out.
//!
//! It is a GET with a password or anonymous, or a POST with an identity token, as described in
//! distribution's "Token Authentication Specification" and "OAuth2 Token Authentication". The
//! request goes through the same door as all others. It is sent once, and no redirect is followed.
//! Of the answer only error messages are shown.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;
use url::{Url, form_urlencoded};

use super::super::error::{Error, is_transient};
use super::super::hosts;
use super::super::send::door::Door;
use super::super::send::failure::FailedRequest;
use super::super::send::mask::Secrets;
use super::super::send::request::{Answer, Payload, ReadBody, Redirects, Request, RequestTarget};
use super::super::send::retry::retry_after;
use super::credential::{Credential, Found, basic, bearer};
use super::error::{AuthError, Denied, excerpt};
use super::realm::Realm;
use super::scopes::Scopes;
use super::secret::Secret;
use crate::json;

/// The name of this client for token servers.
const CLIENT_ID: &str = "pushimg";
/// The longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 1024 * 1024;
/// The lifetime of a token if the server does not give one.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// The longest lifetime that is accepted.
const MAX_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// How long before it expires a token is replaced, unless its lifetime is short.
const MARGIN: Duration = Duration::from_secs(10);

/// A bearer token, ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct Token {
    /// `Bearer …`, marked as sensitive so that debug output hides it.
    pub header: HeaderValue,
    /// The scopes that were requested.
    pub scopes: Scopes,
    /// When to fetch a new token.
    pub stale_at: Instant,
}

/// A token server's endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// The challenge's realm.
    pub url: Url,
    /// The challenge's service.
    pub service: Option<String>,
}

/// What is needed to fetch one token.
pub(super) struct TokenRequest {
    pub door: Arc<Door>,
    pub endpoint: Endpoint,
    pub scopes: Scopes,
    pub found: Arc<Found>,
    /// Texts that the server may repeat and that must not be shown.
    pub secrets: Secrets,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<Secret>,
    access_token: Option<Secret>,
    expires_in: Option<Value>,
}

impl TokenRequest {
    /// Asks for the token.
    pub async fn send(self) -> Result<Token, AuthError> {
        let request = self.request();
        let sent_at = Instant::now();
        let answer = self.door.follow(&request, None, &self.secrets).await;
        let answer = answer.map_err(|failure| self.unanswered(failure))?;
        let status = answer.status;
        if status.is_redirection() {
            return Err(self.failed(&answer, redirected(&answer)));
        }
        if status.is_success() {
            let (token, life) = parse(&answer.body).map_err(|said| self.failed(&answer, said))?;
            let header = bearer(&token).ok_or_else(|| {
                self.failed(&answer, "it sent a token that fits in no header".into())
            })?;
            return Ok(Token {
                header,
                scopes: self.scopes,
                // The lifetime counts from the time of the request, because the server may have
                // made the token then.
                stale_at: sent_at + (life - MARGIN.min(life / 4)),
            });
        }
        let said = complaint(status, &self.secrets.mask(&words(&answer.body)));
        Err(match status {
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                AuthError::Denied(Box::new(Denied {
                    host: self.host(),
                    server: self.server(),
                    scopes: self.scopes.to_string(),
                    status,
                    said,
                    origin: self.found.to_string(),
                    advice: self.advice(status),
                }))
            }
            _ => self.failed(&answer, said),
        })
    }

    fn request(&self) -> Request {
        let service = self.endpoint.service.as_ref().map(|service| ("service", service.as_str()));
        let mut url = self.endpoint.url.clone();
        let doing = format!("get a token for {}", self.door.host());
        let identity = match &self.found.credential {
            Some(Credential::IdentityToken(token)) => Some(token),
            _ => None,
        };
        let mut request = if let Some(token) = identity {
            let scopes = self.scopes.to_string();
            let mut form = form_urlencoded::Serializer::new(String::new());
            form.append_pair("grant_type", "refresh_token")
                .extend_pairs(service)
                .append_pair("client_id", CLIENT_ID);
            if !scopes.is_empty() {
                form.append_pair("scope", &scopes);
            }
            form.append_pair("refresh_token", token.expose());
            let mut request = Request::new(doing, Method::POST, RequestTarget::Url(url));
            let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
            request.headers.insert(CONTENT_TYPE, kind);
            request.payload = Payload::Bytes(form.finish().into());
            request
        } else {
            let mut query = url.query_pairs_mut();
            query.extend_pairs(service);
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
            let mut request = Request::new(doing, Method::GET, RequestTarget::Url(url));
            request.headers.extend(authorization.map(|value| (AUTHORIZATION, value)));
            request
        };
        request.headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        request.read = ReadBody::Always(MAX_ANSWER);
        // A redirect could receive a credential.
        request.redirects = Redirects::Return;
        request
    }

    /// A 401 is about the login. Some token servers also answer 403 to a wrong password.
    fn advice(&self, status: StatusCode) -> String {
        let log_in = hosts::log_in(self.door.host());
        match status {
            StatusCode::FORBIDDEN if self.found.credential.is_some() => {
                format!("either this user may not do that, or the login is wrong; {log_in}")
            }
            _ => log_in,
        }
    }

    fn host(&self) -> String {
        self.door.host().to_owned()
    }

    fn server(&self) -> String {
        Realm::of(&self.endpoint.url).to_string()
    }

    fn failed(&self, answer: &Answer, said: String) -> AuthError {
        AuthError::TokenServer {
            host: self.host(),
            server: self.server(),
            scopes: self.scopes.to_string(),
            status: Some(answer.status),
            said,
            hint: None,
            transient: is_transient(answer.status),
            retry_after: retry_after(&answer.headers),
        }
    }

    fn unanswered(&self, failure: FailedRequest) -> AuthError {
        let (said, hint) = match failure.error {
            Error::Unreachable { reason, hint, .. } => (format!("cannot connect: {reason}"), hint),
            Error::Transport { reason, .. } => (reason, None),
            Error::Protocol { problem, .. } => (problem, None),
            other => (other.to_string(), None),
        };
        AuthError::TokenServer {
            host: self.host(),
            server: self.server(),
            scopes: self.scopes.to_string(),
            status: None,
            said: excerpt(&self.secrets.mask(&said)),
            hint,
            transient: failure.transient,
            retry_after: None,
        }
    }
}

/// The token and its lifetime. The error says what is wrong with the answer, but does not quote it.
pub(super) fn parse(body: &[u8]) -> Result<(Secret, Duration), String> {
    let answer: TokenAnswer = json::from_slice(body)
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

/// The status and the server's message.
fn complaint(status: StatusCode, words: &str) -> String {
    let words = excerpt(words);
    if words.is_empty() { status.to_string() } else { format!("{status}: {words}") }
}

/// The server's message, not shortened: in a shortened text a secret might not be recognised.
pub(super) fn words(body: &[u8]) -> String {
    match serde_json::from_slice::<Value>(body) {
        Ok(json) => json_words(&json).join("; "),
        // An HTML page comes from something between us and the server, and says nothing useful.
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

fn redirected(answer: &Answer) -> String {
    let to = answer
        .header(LOCATION.as_str())
        .and_then(|text| answer.url.join(text).ok())
        .map(|url| format!(" to {}", Realm::of(&url)))
        .unwrap_or_default();
    format!("{}, a redirect{to}, which is not followed: a credential may go along", answer.status)
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
            (r#"{"Token":"t","EXPIRES_IN":300}"#, "t", 300),
            (r#"{"token":null,"access_token":"t"}"#, "t", 60),
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
