//! What may be shown of URLs, headers and text from elsewhere: no passwords, no tokens, no
//! signatures. `-v`, errors and the JSON report show only texts that passed through this module.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, LOCATION};
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

/// Query parameters that are safe to show, because they grant no access.
const PLAIN_PARAMETERS: [&str; 9] =
    ["digest", "mount", "from", "scope", "service", "client_id", "n", "last", "artifactType"];

/// Parts of the names of headers that may grant access. Some registries put a session's permission
/// into headers such as Upload-State.
const SECRET_HEADERS: [&str; 11] = [
    "authorization",
    "authentication-info",
    "cookie",
    "token",
    "secret",
    "signature",
    "-state",
    "password",
    "credential",
    "api-key",
    "jwt",
];

/// The credential that was sent to a server, in each form in which an answer may repeat it.
#[derive(Clone, Default)]
pub struct Secrets(Arc<Vec<Zeroizing<String>>>);

impl Secrets {
    /// The secrets for a password with its user name, or for a token.
    pub fn of(secret: &str, username: Option<&str>) -> Self {
        if secret.is_empty() {
            return Self::default();
        }
        let form: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        let json = serde_json::Value::from(secret).to_string();
        let mut forms = vec![
            secret.to_owned(),
            form.replace('+', "%20"),
            form,
            json.trim_matches('"').to_owned(),
        ];
        let pair = username.map(|username| Zeroizing::new(format!("{username}:{secret}")));
        for plain in pair.iter().map(|pair| pair.as_str()).chain([secret]) {
            let engines = [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD];
            forms.extend(engines.map(|engine| engine.encode(plain)));
        }
        // Replace the longest form first. Otherwise a shorter form could leave most of the secret
        // visible.
        forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
        forms.dedup();
        Self(Arc::new(forms.into_iter().map(Zeroizing::new).collect()))
    }

    /// The credential in an `Authorization` header, without the name of the scheme.
    pub fn sent(header: Option<&HeaderValue>) -> Self {
        let text = header.and_then(|value| value.to_str().ok()?.split_once(' '));
        text.map_or_else(Self::default, |(_, secret)| Self::of(secret, None))
    }

    /// Removes from a text these secrets, user names and passwords in URLs, and the values in query
    /// strings, except those that a [`SafeUrl`] shows.
    pub fn mask(&self, text: &str) -> String {
        let hide = |text: String, secret: &Zeroizing<String>| text.replace(secret.as_str(), "***");
        let text = self.0.iter().fold(text.to_owned(), hide);
        without_query_values(&without_logins(&text))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A URL that is safe to print. It has no user name and password, and it hides the values of all
/// query parameters except those of the distribution protocol, because the query of upload
/// locations and pre-signed storage URLs grants access.
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
        write!(f, "{}://{}", self.0.scheme(), host_and_port(&self.0))?;
        f.write_str(self.0.path())?;
        for (i, (name, value)) in self.0.query_pairs().enumerate() {
            f.write_str(if i == 0 { "?" } else { "&" })?;
            let value = if PLAIN_PARAMETERS.contains(&&*name) { &*value } else { "***" };
            // `query_pairs` decodes the text, so escape control characters before they reach a
            // terminal.
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

/// A URL's host, with its port if it is not the default port.
pub fn host_and_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"))
}

/// Headers as lines, each after `mark`: `>` for a header that was sent, `<` for one that was
/// received.
pub fn header_lines(mark: char, headers: &HeaderMap, secrets: &Secrets) -> Vec<String> {
    headers
        .iter()
        .map(|(name, value)| {
            let shown = match value.to_str() {
                _ if value.is_sensitive() || is_secret(name) => "***".to_owned(),
                Ok(text) if *name == LOCATION => secrets.mask(&safe_location(text)),
                Ok(text) => secrets.mask(text),
                Err(_) => "(not text)".to_owned(),
            };
            format!("{mark} {name}: {shown}")
        })
        .collect()
}

fn is_secret(name: &HeaderName) -> bool {
    SECRET_HEADERS.iter().any(|part| name.as_str().contains(part))
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

/// Removes `user:password@` from the URLs in a text.
fn without_logins(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("//") {
        let (before, after) = rest.split_at(at + 2);
        shown.push_str(before);
        let ends = |c: char| c.is_whitespace() || "/?#\"'<>\\".contains(c);
        let authority = &after[..after.find(ends).unwrap_or(after.len())];
        let login = authority.rfind('@').map_or(0, |at| at + 1);
        shown.push_str(if login > 0 { "***@" } else { "" });
        rest = &after[login..];
    }
    shown.push_str(rest);
    shown
}

/// Hides the values of query strings in a text, except those that a [`SafeUrl`] shows.
fn without_query_values(text: &str) -> String {
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
        headers.insert("x-api-key", "abc".parse().unwrap());
        headers.insert("link", "<https://me:abc@h/b>".parse().unwrap());
        headers.insert("www-authenticate", r#"Bearer realm="https://h/t?k=abc""#.parse().unwrap());
        let lines = header_lines('>', &headers, &Secrets::default()).join("\n");
        assert!(!lines.contains("abc"), "{lines}");
        assert!(lines.contains("> docker-upload-uuid: 1234"));
    }

    #[test]
    fn a_secret_is_masked_in_every_form_that_was_sent() {
        let secrets = Secrets::of("pass \"word\"&", Some("me"));
        for form in [
            "pass \"word\"&",
            "pass \\\"word\\\"&",
            "pass+%22word%22%26",
            "pass%20%22word%22%26",
            "cGFzcyAid29yZCIm",
            "bWU6cGFzcyAid29yZCIm",
        ] {
            assert_eq!(secrets.mask(&format!("<{form}>")), "<***>", "{form}");
        }
        let secrets = Secrets::of("hunter2", Some("me"));
        for form in ["bWU6aHVudGVyMg==", "bWU6aHVudGVyMg", "aHVudGVyMg==", "aHVudGVyMg"] {
            assert_eq!(secrets.mask(form), "***", "{form}");
        }
        assert_eq!(Secrets::of("", None).mask("text"), "text");
        let header = HeaderValue::from_static("Bearer eyJh");
        assert_eq!(Secrets::sent(Some(&header)).mask("got eyJh"), "got ***");
    }

    #[test]
    fn a_login_in_a_url_is_not_shown() {
        let mask = |text: &str| Secrets::default().mask(text);
        assert_eq!(mask("see http://me:pw@h/x, //a@b:1"), "see http://***@h/x, //***@b:1");
        assert_eq!(mask("http://p@w@h/"), "http://***@h/");
        assert_eq!(mask("http://h/@scope/x"), "http://h/@scope/x");
    }
}
