//! A request that failed once, and whether a retry may help.

use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use url::Url;

use super::super::connect::problem::{ConnectionProblem, innermost, is_invalid_http};
use super::super::connect::proxy::Proxy;
use super::super::error::Error;
use super::mask::host_and_port;
use super::pause::Server;

/// A failed attempt.
#[derive(Debug)]
pub struct FailedRequest {
    pub error: Error,
    /// Whether the same request may succeed later.
    pub transient: bool,
    /// How long the server asks to wait.
    pub retry_after: Option<Duration>,
    /// The server that failed, if waiting for it can help.
    pub server: Option<Arc<Server>>,
    /// There was a connection.
    pub connected: bool,
    /// The server speaks TLS, and one side does not trust the other.
    pub about_trust: bool,
}

impl FailedRequest {
    /// The same failure of a request that was redirected away from the registry.
    pub fn elsewhere(self) -> Self {
        Self { error: Error::Elsewhere(Box::new(self.error)), ..self }
    }
}

/// A request that got no answer.
#[derive(Clone, Copy)]
pub struct Unanswered<'a> {
    /// What the request was for.
    pub doing: &'a str,
    pub url: &'a Url,
    /// The proxy on the way there.
    pub proxy: Option<&'a Proxy>,
    /// Whether the server has answered before.
    pub heard: bool,
    /// The registry that named this server, if the server is not the registry itself.
    pub led_by: Option<&'a str>,
}

impl Unanswered<'_> {
    /// The connection could not be made, or broke.
    pub fn broken(self, error: reqwest::Error) -> FailedRequest {
        // The URL may hold a signature.
        let error = error.without_url();
        if let Some(problem) = ConnectionProblem::of(&error, self.url, self.proxy, self.heard) {
            return FailedRequest { connected: !error.is_connect(), ..self.not_connected(problem) };
        }
        let cause = innermost(&error);
        if error.is_builder() {
            let reason = format!("no such request can be made: {cause}");
            return Error::Transport { doing: self.doing.to_owned(), reason }.into();
        }
        // A repeated request would get the same kind of answer, so it is not retried.
        if is_invalid_http(&error) {
            return self.unreadable(&cause).into();
        }
        self.silent("the connection", &format!("broke: {cause}"))
    }

    /// The proxy requires a login, or rejects the one that was sent.
    pub fn refused_by_proxy(self, proxy: &Proxy) -> FailedRequest {
        self.not_connected(ConnectionProblem::proxy_login(proxy))
    }

    /// The proxy does not connect to this server.
    pub fn refused_tunnel(self, proxy: &Proxy, status: StatusCode) -> FailedRequest {
        let problem = ConnectionProblem::proxy_refusal(proxy, self.url, Some(status));
        FailedRequest { connected: false, ..self.not_connected(problem) }
    }

    fn not_connected(self, problem: ConnectionProblem) -> FailedRequest {
        let ConnectionProblem { reason, hint, transient, about_trust } = problem;
        FailedRequest { transient, about_trust, ..self.unreachable(reason, hint).into() }
    }

    /// No bytes moved for too long.
    pub fn stalled(self, limit: Duration) -> FailedRequest {
        let limit = format!("for {}", humantime::format_duration(limit));
        self.silent("nothing moved on the connection", &limit)
    }

    /// The answer began, but did not end in time.
    pub fn unfinished(self, limit: Duration) -> FailedRequest {
        let limit = humantime::format_duration(limit);
        let reason =
            format!("the answer of {} did not end within {limit}", host_and_port(self.url));
        let error = Error::Transport { doing: self.doing.to_owned(), reason };
        FailedRequest { transient: true, ..error.into() }
    }

    fn unreadable(self, cause: &str) -> Error {
        let through = self.through();
        let problem = format!("it answered{through}, but not in valid HTTP ({cause})");
        if !self.heard {
            let hint = "check the host's name and port: does a registry listen there?".to_owned();
            return self.unreachable(problem, Some(hint));
        }
        let problem = format!(
            "{} answered{through}, but not in valid HTTP ({cause})\nhint: something between pushimg and the \
             registry, or the registry itself, sends broken answers",
            host_and_port(self.url)
        );
        Error::Protocol { doing: self.doing.to_owned(), problem }
    }

    /// There was a connection but no answer. `what` and `how` are the words before and after the
    /// server's name.
    fn silent(self, what: &str, how: &str) -> FailedRequest {
        let through = self.through();
        let error = if self.heard {
            let reason = format!("{what} to {}{through} {how}", host_and_port(self.url));
            Error::Transport { doing: self.doing.to_owned(), reason }
        } else {
            self.unreachable(format!("{what}{through} {how}"), None)
        };
        FailedRequest { transient: true, ..error.into() }
    }

    /// Names the proxy, because it may be the one that does not answer.
    fn through(self) -> String {
        self.proxy.map(|proxy| format!(" through the proxy {proxy}")).unwrap_or_default()
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

impl From<Error> for FailedRequest {
    fn from(error: Error) -> Self {
        // Settings errors, such as an unreadable certificate file, are about trust.
        let about_trust = matches!(error, Error::Settings(_));
        Self {
            error,
            transient: false,
            retry_after: None,
            server: None,
            connected: true,
            about_trust,
        }
    }
}
