//! Why a connection failed, in words, and what to do about it.

use std::error::Error as StdError;
use std::io;

use reqwest::StatusCode;
use rustls::{AlertDescription, CertificateError};
use url::Url;

use super::proxy::Proxy;
use super::verify::CertificateProblem;
use crate::open_files;
use crate::registry::error::is_transient;
use crate::registry::send::mask::host_and_port;

/// Why a connection could not be made.
#[derive(Debug)]
pub struct ConnectionProblem {
    pub reason: String,
    pub hint: Option<String>,
    /// Whether a later attempt may succeed. Waiting does not help with an untrusted certificate or
    /// a misspelt name.
    pub transient: bool,
    /// The server speaks TLS, and one side does not trust the other.
    pub about_trust: bool,
}

impl ConnectionProblem {
    fn new(reason: impl Into<String>, hint: impl Into<Option<String>>) -> Self {
        Self { reason: reason.into(), hint: hint.into(), transient: true, about_trust: false }
    }

    fn permanent(self) -> Self {
        Self { transient: false, ..self }
    }

    fn about_trust(self) -> Self {
        Self { about_trust: true, ..self.permanent() }
    }

    /// What is wrong with the connection to `url`. `None` if there was a connection and it broke.
    /// `heard` says whether the server has answered before.
    pub fn of(
        error: &reqwest::Error,
        url: &Url,
        proxy: Option<&Proxy>,
        heard: bool,
    ) -> Option<Self> {
        if let Some(tls) = causes(error).find_map(tls_error) {
            let problem = of_tls(tls);
            // In TLS 1.3 a server rejects the client only after the handshake.
            if error.is_connect() || problem.about_trust {
                return Some(match proxy {
                    Some(proxy) if proxy.speaks_tls() => problem.of_either(proxy),
                    Some(proxy) if problem.about_trust => problem.with_proxy(proxy),
                    _ => problem,
                });
            }
        }
        // With HTTP/2, only the text of such an error is left.
        let text = innermost(error);
        if let Some(alert) = text.strip_prefix("received fatal alert: ") {
            let problem = of_alert_named(alert);
            if error.is_connect() || problem.about_trust {
                return Some(problem);
            }
        }
        if !error.is_connect() {
            return None;
        }
        let cause = match error.is_timeout() {
            true => "no connection could be made in time".to_owned(),
            false => innermost(error),
        };
        let advice = |error: &io::Error| open_files::advice(error, "");
        let advice = causes(error).filter_map(|cause| cause.downcast_ref().map(advice)).max();
        if let Some(advice) = advice.filter(|advice| !advice.is_empty()) {
            return Some(Self::new(cause, advice.to_owned()));
        }
        Some(match proxy {
            Some(proxy) => of_proxy(proxy, url, error, &cause, heard),
            None => of_server(&cause),
        })
    }

    /// The proxy requires a login, or rejects the one that was sent (407).
    pub fn proxy_login(proxy: &Proxy) -> Self {
        let variable = proxy.variable;
        let (problem, hint) = match proxy.has_login() {
            true => {
                ("refuses its login", format!("the user or the password in {variable} is wrong"))
            }
            false => (
                "wants a user and a password",
                format!("put them into {variable}, as in http://USER:PASSWORD@HOST:PORT"),
            ),
        };
        let reason = format!("the proxy {proxy} {problem} (407 Proxy Authentication Required)");
        Self::new(reason, hint).permanent()
    }

    /// The proxy refuses a tunnel to a server.
    pub fn proxy_refusal(proxy: &Proxy, url: &Url, status: Option<StatusCode>) -> Self {
        let (host, name) = (host_and_port(url), url.host_str().unwrap_or_default());
        let said = status.map(|status| format!(" ({status})")).unwrap_or_default();
        let reason = format!("the proxy {proxy} refused to connect to {host}{said}");
        let hint =
            format!("the proxy must allow it; if {name} needs no proxy, name it in NO_PROXY");
        let problem = Self::new(reason, hint);
        if status.is_none_or(is_transient) { problem } else { problem.permanent() }
    }

    /// The proxy itself is reached over TLS, and the error does not say which of the two handshakes
    /// failed.
    fn of_either(self, proxy: &Proxy) -> Self {
        let reason =
            format!("a TLS handshake failed, with it or with the proxy {proxy}: {}", self.reason);
        let check = format!("check {}: most proxies are http://HOST:PORT", proxy.variable);
        let hint = self.hint.filter(|_| self.about_trust);
        let hint = hint.map_or(check.clone(), |hint| format!("{check}; {hint}"));
        Self { reason, hint: Some(hint), ..self }
    }

    /// Adds to the hint that the certificate may be the proxy's, because some proxies replace
    /// certificates.
    fn with_proxy(self, proxy: &Proxy) -> Self {
        let hint = self.hint.map(|hint| {
            format!("{hint}; the proxy {proxy} may have shown its own certificate in place of it")
        });
        Self { hint, ..self }
    }
}

fn of_server(cause: &str) -> ConnectionProblem {
    let unknown = cause.contains("lookup address");
    let hint = if unknown {
        Some("check the registry's name, and the network")
    } else if cause.contains("refused") {
        Some("is a registry running there?")
    } else {
        None
    };
    let problem = ConnectionProblem::new(cause, hint.map(str::to_owned));
    if unknown && !cause.contains("Temporary failure") { problem.permanent() } else { problem }
}

fn of_proxy(
    proxy: &Proxy,
    url: &Url,
    error: &reqwest::Error,
    cause: &str,
    heard: bool,
) -> ConnectionProblem {
    let said = |text: &str| causes(error).any(|cause| cause.to_string().contains(text));
    if said("proxy authorization required") {
        return ConnectionProblem::proxy_login(proxy);
    }
    if is_tunnel_refused(error) {
        return ConnectionProblem::proxy_refusal(proxy, url, None);
    }
    let name = url.host_str().unwrap_or_default();
    // This message means that a SOCKS proxy cannot be reached. It does not give the reason.
    let is_down = cause.ends_with("failed to create underlying connection");
    let cause = if is_down { "it refused the connection, or its name is unknown" } else { cause };
    let reason = format!("no connection through the proxy {proxy}: {cause}");
    let hint = format!("check {}; if {name} needs no proxy, name it in NO_PROXY", proxy.variable);
    let problem = ConnectionProblem::new(reason, hint);
    let unknown = cause.contains("lookup address") && !cause.contains("Temporary failure");
    match unknown || (cause.contains("refused") && !heard) {
        true => problem.permanent(),
        false => problem,
    }
}

fn of_tls(error: &rustls::Error) -> ConnectionProblem {
    use rustls::Error as Tls;
    match error {
        Tls::InvalidCertificate(CertificateError::Other(other)) => {
            match other.0.downcast_ref::<CertificateProblem>() {
                Some(problem) => {
                    ConnectionProblem::new(problem.to_string(), problem.hint.clone()).about_trust()
                }
                None => {
                    ConnectionProblem::new("its certificate cannot be verified", None).about_trust()
                }
            }
        }
        Tls::InvalidCertificate(_) => ConnectionProblem::new(
            "it does not prove that it has the key of its certificate",
            "the registry's certificate and its key must belong together".to_owned(),
        )
        .about_trust(),
        Tls::AlertReceived(alert) => of_alert(*alert),
        Tls::InvalidMessage(_) => ConnectionProblem::new(
            "it does not speak TLS",
            "for plain HTTP there is --plain-http".to_owned(),
        )
        .permanent(),
        Tls::PeerIncompatible(_) => no_common_tls(),
        other => ConnectionProblem::new(format!("the TLS handshake failed: {other}"), None),
    }
}

fn no_common_tls() -> ConnectionProblem {
    ConnectionProblem::new(
        "it offers no TLS version or cipher that pushimg supports",
        "the registry, or the proxy before it, must offer TLS 1.2 or 1.3".to_owned(),
    )
    .permanent()
}

fn of_alert(alert: AlertDescription) -> ConnectionProblem {
    use AlertDescription as Alert;
    match alert {
        Alert::InternalError => {
            ConnectionProblem::new("it ended the TLS handshake with an internal error", None)
        }
        Alert::ProtocolVersion | Alert::InsufficientSecurity => no_common_tls(),
        Alert::UnrecognisedName => ConnectionProblem::new(
            "it serves no host of this name over TLS",
            "check the registry's name".to_owned(),
        )
        .about_trust(),
        alert => rejected(&format!("{alert:?}")),
    }
}

/// The problem for an alert of which only the name is known.
fn of_alert_named(alert: &str) -> ConnectionProblem {
    match alert {
        "InternalError" => of_alert(AlertDescription::InternalError),
        "ProtocolVersion" => of_alert(AlertDescription::ProtocolVersion),
        other => rejected(other),
    }
}

fn rejected(alert: &str) -> ConnectionProblem {
    let client = "if it requires a client certificate, put client.cert and client.key into \
                  ~/.config/containers/certs.d/HOST:PORT/";
    let hint = match alert {
        // The server found no cipher or signature type that both sides support.
        "HandshakeFailure" => format!(
            "{client}; else the key of its certificate may be of a kind that pushimg does not know \
             (it knows RSA, P-256, P-384, P-521 and Ed25519)"
        ),
        _ => client.to_owned(),
    };
    let reason = format!("it ended the TLS handshake (alert {})", alert_name(alert));
    ConnectionProblem::new(reason, hint).about_trust()
}

/// Writes `CertificateRequired` as RFC 8446 does: `certificate_required`.
fn alert_name(code: &str) -> String {
    let mut name = String::new();
    for c in code.chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}

/// An error that can be downcast to its type.
type Cause<'a> = &'a (dyn StdError + 'static);

/// An error and its causes. The error inside an I/O error is not returned by `source`, so it is
/// added here.
fn causes(error: Cause<'_>) -> impl Iterator<Item = Cause<'_>> {
    std::iter::successors(Some(error), |&error| {
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as Cause<'_>),
            None => error.source(),
        }
    })
}

fn tls_error(error: Cause<'_>) -> Option<&rustls::Error> {
    error.downcast_ref()
}

/// Whether a proxy refused to open a tunnel.
pub fn is_tunnel_refused(error: &reqwest::Error) -> bool {
    error.is_connect()
        && causes(error).any(|cause| cause.to_string().contains("tunnel error: unsuccessful"))
}

/// Whether the answer is not HTTP, or has an invalid or too long header.
pub fn is_invalid_http(error: Cause<'_>) -> bool {
    causes(error)
        .find_map(|cause| cause.downcast_ref::<hyper::Error>())
        .is_some_and(|error| error.is_parse())
}

/// The text of the innermost cause, which says what happened, without the error number.
pub fn innermost(error: Cause<'_>) -> String {
    let text = causes(error).last().map(ToString::to_string).unwrap_or_default();
    match text.split_once(" (os error ") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}
