//! What a user can do about a failure: one row for each that we know, the registries' peculiarities
//! included.

use reqwest::StatusCode;

use super::error::Said;
use super::{Registry, hosts};

/// The hint for an answer that is an error.
pub(super) fn for_status(
    registry: &Registry,
    repository: &str,
    status: StatusCode,
    said: &Said,
) -> Option<String> {
    let host = registry.host();
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            if hosts::says_not_found(host) && said.has_code("NAME_UNKNOWN") {
                return Some(hosts::create(host, repository));
            }
            Some(format!("asked {}; {}", registry.origin(repository), hosts::log_in(host)))
        }
        StatusCode::NOT_FOUND if said.has_code("NAME_UNKNOWN") || hosts::says_not_found(host) => {
            Some(hosts::create(host, repository))
        }
        StatusCode::PAYLOAD_TOO_LARGE => Some(
            "a gateway before the registry limits the size of a request; raise its limit"
                .to_owned(),
        ),
        StatusCode::TOO_MANY_REQUESTS => {
            Some("the registry limits the rate of requests; try later, or log in".to_owned())
        }
        _ => None,
    }
}

/// The hint for a connection that could not be made, by the text of its cause.
pub(super) fn for_connection(cause: &str) -> Option<String> {
    let hint = if cause.contains("received fatal alert") {
        "it does not take us; if it wants a client certificate, put client.cert and client.key \
         into ~/.config/containers/certs.d/HOST:PORT/"
    } else if is_certificate(cause) {
        "if you trust that registry, name its certificate authority with --ca-file FILE; for plain \
         HTTP there is --plain-http"
    } else if cause.contains("corrupt message") || cause.contains("InvalidContentType") {
        "it does not speak TLS; for plain HTTP there is --plain-http"
    } else if cause.contains("lookup address") {
        "check the registry's name, and the network"
    } else if cause.contains("refused") {
        "is a registry running there?"
    } else {
        return None;
    };
    Some(hint.to_owned())
}

/// Whether a connection that failed for this cause will fail again: a certificate does not become
/// trusted, nor a misspelt name known, by waiting.
pub(super) fn is_permanent(cause: &str) -> bool {
    is_about_trust(cause)
        || cause.contains("corrupt message")
        || cause.contains("InvalidContentType")
        || (cause.contains("lookup address") && !cause.contains("Temporary failure"))
}

/// Whether one side of a TLS connection does not trust the other, by the text of the cause.
pub(super) fn is_about_trust(cause: &str) -> bool {
    is_certificate(cause)
        || (cause.contains("received fatal alert") && !cause.contains("InternalError"))
}

fn is_certificate(cause: &str) -> bool {
    // `CertificateRequired` is in the alert of a server that knows its clients by theirs.
    cause.contains("ertificate") || cause.contains("UnknownIssuer")
}
