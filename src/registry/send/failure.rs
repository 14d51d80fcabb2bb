//! A request that failed once, and whether sending it again may help.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::super::error::Error;
use super::super::hints;
use super::mask::host_and_port;
use super::pause::Server;

/// A failed attempt.
#[derive(Debug)]
pub struct Failure {
    pub error: Error,
    /// Whether the same request may succeed later.
    pub transient: bool,
    /// How long the server asks to be left alone.
    pub retry_after: Option<Duration>,
    /// The server that failed, where there is one to wait for.
    pub server: Option<Arc<Server>>,
    /// There was a connection.
    pub connected: bool,
}

/// An attempt that no answer came to.
#[derive(Clone, Copy)]
pub struct Unanswered<'a> {
    /// What the request was for.
    pub doing: &'a str,
    pub url: &'a Url,
    /// Whether the server has ever answered.
    pub heard: bool,
    /// The registry whose answer named this server, if it is not the registry itself.
    pub led_by: Option<&'a str>,
}

impl Unanswered<'_> {
    /// The connection could not be made, or broke.
    pub fn broken(self, error: reqwest::Error) -> Failure {
        // The URL may hold a signature.
        let error = error.without_url();
        let cause = innermost(&error);
        let about_trust = hints::is_about_trust(&cause);
        if error.is_connect() || about_trust {
            let reason = match error.is_timeout() {
                true => "no connection could be made in time".to_owned(),
                false => cause.clone(),
            };
            return Failure {
                transient: !hints::is_permanent(&cause),
                // With TLS 1.3 a server says only now that it wants another certificate.
                connected: !error.is_connect(),
                ..self.unreachable(reason, hints::for_connection(&cause)).into()
            };
        }
        if error.is_builder() {
            let reason = format!("no such request can be made: {cause}");
            return Error::Transport { doing: self.doing.to_owned(), reason }.into();
        }
        self.silent("the connection", &format!("broke: {cause}"))
    }

    /// Nothing has moved for too long.
    pub fn stalled(self, limit: Duration) -> Failure {
        let limit = format!("for {}", humantime::format_duration(limit));
        self.silent("nothing moved on the connection", &limit)
    }

    /// The answer began and did not end in time.
    pub fn unfinished(self, limit: Duration) -> Failure {
        let limit = humantime::format_duration(limit);
        let reason =
            format!("the answer of {} did not end within {limit}", host_and_port(self.url));
        let error = Error::Transport { doing: self.doing.to_owned(), reason };
        Failure { transient: true, ..error.into() }
    }

    /// There was a connection and no answer; `what` and `how` are the words before and after the
    /// server's name.
    fn silent(self, what: &str, how: &str) -> Failure {
        let error = if self.heard {
            let reason = format!("{what} to {} {how}", host_and_port(self.url));
            Error::Transport { doing: self.doing.to_owned(), reason }
        } else {
            self.unreachable(format!("{what} {how}"), None)
        };
        Failure { transient: true, ..error.into() }
    }

    fn unreachable(self, reason: String, hint: Option<String>) -> Error {
        let host = host_and_port(self.url);
        match self.led_by {
            None => Error::Unreachable { host, reason, hint },
            Some(registry) => Error::Unreachable {
                reason: format!("{reason}; the answer of {registry} named this address"),
                hint: hint.or_else(|| {
                    Some(format!(
                        "if {host} is an inner address, {registry} does not know its public one: \
                         the proxy before it must pass on Host and X-Forwarded-Proto, or its \
                         configuration must name the public address"
                    ))
                }),
                host,
            },
        }
    }
}

impl Failure {
    /// Whether the other side speaks TLS, and one of us does not trust the other.
    pub fn is_about_trust(&self) -> bool {
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
        Self { error, transient: false, retry_after: None, server: None, connected: true }
    }
}

/// The text of the innermost cause, which is the one that says something.
pub fn innermost(error: &dyn StdError) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
