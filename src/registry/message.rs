//! The registry's text about an error (OCI distribution-spec 1.1, "Error Codes").

use std::collections::HashSet;
use std::fmt;

use reqwest::StatusCode;
use serde::Deserialize;

use crate::image::Digest;
use crate::json;

/// Codes for which a retry is useless, even if the status is that of a server error.
const FINAL_CODES: [&str; 14] = [
    "BLOB_UNKNOWN",
    "DENIED",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "MANIFEST_UNVERIFIED",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "TAG_INVALID",
    "TAG_IMMUTABLE",
    "UNAUTHORIZED",
    "UNSUPPORTED",
];

/// The text of an error answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorMessage {
    /// The `errors[]` of the body.
    pub errors: Vec<ApiError>,
    /// The beginning of a body that has another form.
    pub text: Option<String>,
}

/// One element of `errors[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ApiError {
    /// `BLOB_UNKNOWN`, `DENIED`, …
    pub code: String,
    /// For people; may be empty.
    pub message: String,
    /// Any JSON value.
    pub detail: serde_json::Value,
}

impl ErrorMessage {
    /// Reads the body of an error answer. It accepts any body, such as an HTML page. A body that is
    /// not text is ignored.
    pub fn parse(body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct ErrorsJson {
            errors: Vec<ApiError>,
        }
        if let Ok(ErrorsJson { errors }) = json::from_slice(body)
            && !errors.is_empty()
        {
            return Self { errors, text: None };
        }
        let text = String::from_utf8_lossy(body);
        if text.contains(|c: char| c.is_control() && !c.is_whitespace()) {
            return Self::default();
        }
        let text = storage_error(&text).unwrap_or_else(|| strip_markup(&text));
        Self { errors: Vec::new(), text: (!text.is_empty()).then_some(text) }
    }

    /// The same message with all texts passed through `mask`, which hides secrets.
    #[must_use]
    pub fn masked(mut self, mask: impl Fn(&str) -> String) -> Self {
        for error in &mut self.errors {
            error.code = mask(&error.code);
            error.message = mask(&error.message);
            let detail = error.detail.to_string();
            let masked = mask(&detail);
            if masked != detail {
                error.detail = serde_json::Value::String(masked);
            }
        }
        self.text = self.text.map(|text| shorten(&mask(&text)));
        self
    }

    /// The digests in the message, wherever they occur.
    pub fn digests(&self) -> HashSet<Digest> {
        let text = self.to_string();
        let starts = text.match_indices("sha256:").map(|(start, _)| start);
        starts.filter_map(|start| text.get(start..start + 71)?.parse().ok()).collect()
    }

    /// Whether `errors[]` has this code. Some registries write codes in lower case.
    pub fn has_code(&self, code: &str) -> bool {
        self.errors.iter().any(|error| error.code.eq_ignore_ascii_case(code))
    }

    /// Whether a code says that the login is missing, or that it does not allow this.
    pub fn is_about_access(&self) -> bool {
        self.has_code("UNAUTHORIZED") || self.has_code("DENIED")
    }

    /// Whether it is about the login itself. For example, Amazon ECR answers an expired login with
    /// `DENIED: Your authorization token has expired`.
    pub fn is_about_login(&self) -> bool {
        let text = self.to_string().to_ascii_lowercase();
        ["expired", "credential", "password", "authenticat"].iter().any(|word| text.contains(word))
    }

    /// Whether it is about a quota or a policy, not about the user.
    pub fn is_about_limits(&self) -> bool {
        let text = self.to_string().to_ascii_lowercase();
        ["quota", "exceed", "limit", "policy", "immutable"].iter().any(|word| text.contains(word))
    }

    /// Whether a code says that the request can never succeed, although the status is that of a
    /// server error.
    pub fn is_final(&self, status: StatusCode) -> bool {
        status.is_server_error() && FINAL_CODES.iter().any(|code| self.has_code(code))
    }
}

impl fmt::Display for ErrorMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().take(5).enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            let said = [error.code.as_str(), error.message.as_str()];
            let said: Vec<&str> = said.into_iter().filter(|text| !text.is_empty()).collect();
            f.write_str(&said.join(": "))?;
            match &error.detail {
                serde_json::Value::Null => {}
                serde_json::Value::String(text) if text.is_empty() => {}
                serde_json::Value::Object(fields) if fields.is_empty() => {}
                detail => {
                    let detail: String = detail.to_string().chars().take(300).collect();
                    write!(f, " ({detail})")?;
                }
            }
        }
        if let Some(text) = &self.text {
            f.write_str(text)?;
        }
        Ok(())
    }
}

/// Code and message in the XML of a storage service. The rest describes the signature that it
/// rejected.
fn storage_error(text: &str) -> Option<String> {
    let inner = |tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag}>"))?;
        Some(strip_markup(rest.split_once("</")?.0))
    };
    let code = inner("Code").filter(|_| text.contains("<Error"))?;
    Some(inner("Message").map_or(code.clone(), |message| format!("{code}: {message}")))
}

/// The words of an HTML page or of plain text, on one line.
fn strip_markup(text: &str) -> String {
    let mut words = String::new();
    let mut in_tag = false;
    for c in text.chars().take(4096) {
        match c {
            '<' => in_tag = true,
            '>' => {
                in_tag = false;
                words.push(' ');
            }
            _ if in_tag => {}
            c => words.push(c),
        }
    }
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Shortens a text for a message. Call it only after masking, because a part of a secret would not
/// be recognised.
fn shorten(text: &str) -> String {
    text.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::super::send::mask::Secrets;
    use super::*;

    #[test]
    fn what_the_registry_wrote_is_shown() {
        let message = ErrorMessage::parse(
            br#"{"errors":[{"code":"DENIED","message":"no access","detail":[{"Type":"repository"}]},
                {"code":"NAME_UNKNOWN"}]}"#,
        );
        assert!(message.has_code("DENIED"));
        assert_eq!(
            message.to_string(),
            r#"DENIED: no access ([{"Type":"repository"}]); NAME_UNKNOWN"#
        );
    }

    #[test]
    fn a_load_balancers_page_becomes_one_line() {
        let message = ErrorMessage::parse(
            b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>nginx</body></html>",
        );
        assert_eq!(message.to_string(), "502 Bad Gateway nginx");
        assert_eq!(ErrorMessage::parse(b"").to_string(), "");
        let message = ErrorMessage::parse(br#"{"Errors":[{"message":"no","code":null}]}"#);
        assert_eq!(message.to_string(), "no");
        assert_eq!(ErrorMessage::parse(b"{\"errors\":[]}").to_string(), "{\"errors\":[]}");
    }

    #[test]
    fn what_the_registry_repeats_of_our_secrets_is_not_shown() {
        let message = ErrorMessage::parse(
            br#"{"errors":[{"code":"UNKNOWN","message":"token hunter2 at http://h/u?_state=abc",
                "detail":{"authorization":"hunter2","url":"/u?digest=sha256:1&X-Sig=abc"}}]}"#,
        );
        let secrets = Secrets::of("hunter2", None);
        let shown = message.masked(|text| secrets.mask(text)).to_string();
        assert!(!shown.contains("hunter2") && !shown.contains("abc"), "{shown}");
        assert!(shown.contains("http://h/u?_state=***"), "{shown}");
        assert!(shown.contains("digest=sha256:1"), "{shown}");
        let cut = format!("{} hunter2", "x".repeat(295));
        let shown = ErrorMessage::parse(cut.as_bytes()).masked(|text| secrets.mask(text));
        assert!(!shown.to_string().contains("hu"), "{shown}");
    }

    #[test]
    fn of_a_storage_error_only_code_and_message_are_shown() {
        let message = ErrorMessage::parse(
            b"<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code>\
              <Message>The request signature differs</Message>\
              <SignatureProvided>abc</SignatureProvided></Error>",
        );
        assert_eq!(message.to_string(), "SignatureDoesNotMatch: The request signature differs");
    }

    #[test]
    fn a_code_is_final_whatever_the_status_says() {
        let parse = |code: &str| {
            ErrorMessage::parse(format!(r#"{{"errors":[{{"code":"{code}"}}]}}"#).as_bytes())
        };
        let failed = StatusCode::INTERNAL_SERVER_ERROR;
        for code in ["MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID", "NAME_INVALID"] {
            assert!(parse(code).is_final(failed), "{code}");
            assert!(!parse(code).is_final(StatusCode::TOO_MANY_REQUESTS), "{code}");
        }
        for code in ["UNKNOWN", "TOOMANYREQUESTS", "BLOB_UPLOAD_UNKNOWN", ""] {
            assert!(!parse(code).is_final(failed), "{code}");
        }
    }
}
