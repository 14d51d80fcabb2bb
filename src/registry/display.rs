//! URLs and headers as they may be shown: without passwords, tokens and signatures.

use std::fmt;

use reqwest::header::{HeaderMap, HeaderName};
use url::Url;

/// Query parameters that say what a request is about and grant nothing.
const PLAIN_PARAMETERS: [&str; 8] =
    ["digest", "mount", "from", "scope", "service", "n", "last", "artifactType"];

/// A URL that prints without its user information, and with the values of all query parameters
/// hidden but those of the distribution protocol: upload locations and pre-signed storage URLs
/// carry their permission in the query.
#[derive(Clone, PartialEq, Eq)]
pub struct SafeUrl(Url);

impl SafeUrl {
    /// Its host, without the port.
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }
}

impl From<Url> for SafeUrl {
    fn from(url: Url) -> Self {
        Self(url)
    }
}

impl fmt::Display for SafeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.0.scheme(), self.0.host_str().unwrap_or_default())?;
        if let Some(port) = self.0.port() {
            write!(f, ":{port}")?;
        }
        f.write_str(self.0.path())?;
        for (i, (name, value)) in self.0.query_pairs().enumerate() {
            f.write_str(if i == 0 { "?" } else { "&" })?;
            let value = if PLAIN_PARAMETERS.contains(&&*name) { &*value } else { "***" };
            // Decoded by query_pairs: control characters must not reach a terminal.
            write!(f, "{}={}", name.escape_debug(), value.escape_debug())?;
        }
        Ok(())
    }
}

impl fmt::Debug for SafeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text of others with the values of query strings hidden, but for those that a [`SafeUrl`] shows.
pub fn without_query_values(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['?', '&']) {
        let (before, after) = rest.split_at(at + 1);
        shown.push_str(before);
        rest = after;
        let is_name = |c: char| c.is_ascii_alphanumeric() || "_-.;%".contains(c);
        let name = &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())];
        let Some(value) = rest[name.len()..].strip_prefix('=') else {
            continue;
        };
        shown.push_str(name);
        shown.push('=');
        let end = value.find(|c: char| c.is_whitespace() || "&\"'<>()[]{}\\".contains(c));
        let (value, left) = value.split_at(end.unwrap_or(value.len()));
        let is_plain = PLAIN_PARAMETERS.contains(&name);
        shown.push_str(if is_plain { value } else { "***" });
        rest = left;
    }
    shown.push_str(rest);
    shown
}

/// Headers as lines, each behind `mark` (`>` for what is sent, `<` for what came).
pub fn header_lines(mark: char, headers: &HeaderMap) -> Vec<String> {
    headers
        .iter()
        .map(|(name, value)| {
            let shown = match value.to_str() {
                _ if value.is_sensitive() || is_secret(name) => "***".to_owned(),
                Ok(text) if *name == reqwest::header::LOCATION => safe_location(text),
                Ok(text) => without_query_values(text),
                Err(_) => "(not text)".to_owned(),
            };
            format!("{mark} {name}: {shown}")
        })
        .collect()
}

fn is_secret(name: &HeaderName) -> bool {
    let name = name.as_str();
    // Upload-State and the like are what some registries put a session's permission in.
    ["authorization", "cookie", "token", "secret", "signature", "-state"]
        .iter()
        .any(|part| name.contains(part))
}

/// A Location header's value, which may be relative.
fn safe_location(text: &str) -> String {
    match Url::parse(text) {
        Ok(url) => SafeUrl(url).to_string(),
        Err(_) => match text.split_once('?') {
            Some((path, _)) => format!("{path}?***"),
            None => text.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_grants_access_is_shown() {
        let url =
            "https://user:hunter2@s3.example:444/b/x?X-Amz-Signature=abc&digest=sha256:1&_state=t";
        let shown = SafeUrl(url.parse().unwrap()).to_string();
        assert_eq!(
            shown,
            "https://s3.example:444/b/x?X-Amz-Signature=***&digest=sha256:1&_state=***"
        );

        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer abc".parse().unwrap());
        headers.insert("set-cookie", "session=abc".parse().unwrap());
        headers.insert("docker-upload-uuid", "1234".parse().unwrap());
        headers.insert("location", "/v2/a/blobs/uploads/1?_state=abc".parse().unwrap());
        headers.insert("content-location", "https://h/b?X-Amz-Signature=abc".parse().unwrap());
        let lines = header_lines('>', &headers).join("\n");
        assert!(!lines.contains("abc"), "{lines}");
        assert!(lines.contains("> docker-upload-uuid: 1234"));
    }
}
