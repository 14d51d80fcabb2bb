//! What a user can do about a connection that could not be made, by the text of its cause.

/// The hint for a connection that could not be made, by the text of its cause.
pub(super) fn for_connection(cause: &str) -> Option<String> {
    let hint = if cause.contains("received fatal alert") {
        "the server closed the connection during the TLS handshake; if it requires a client \
         certificate, put client.cert and client.key into ~/.config/containers/certs.d/HOST:PORT/"
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
