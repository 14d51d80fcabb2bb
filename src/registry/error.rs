//! Requests that failed for good: what was attempted, on what, what came back, what to do.

use std::collections::HashSet;
use std::fmt;

use reqwest::StatusCode;
use serde::Deserialize;

use super::auth::AuthError;
use super::display::{SafeUrl, without_query_values};
use crate::image::Digest;

/// A request that failed for good.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection: the host is unknown or down, or one side does not trust the other; or there
    /// is one, over which the host has never answered anything. What was attempted has no part in
    /// it.
    #[error("cannot reach {host}: {reason}{}", hint_line(.hint))]
    Unreachable {
        /// The host, with its port where it is not the usual one.
        host: String,
        /// What went wrong, innermost cause included.
        reason: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// No answer: the connection broke, or nothing moved on it.
    #[error("cannot {doing}: {reason}")]
    Transport {
        /// What was attempted, on what.
        doing: String,
        /// What went wrong, innermost cause included.
        reason: String,
    },
    /// The registry's answer was a refusal or a failure.
    #[error(transparent)]
    Status(Box<StatusError>),
    /// We are nobody to this registry, or the token server failed.
    #[error("cannot log in to {host}: {source}")]
    Auth {
        /// The registry, as the user wrote it.
        host: String,
        /// Why no authorization was to be had.
        source: Box<AuthError>,
    },
    /// An answer that the distribution specification does not allow.
    #[error("cannot {doing}: {problem}")]
    Protocol {
        /// What was attempted, on what.
        doing: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// The bytes to be sent could not be had.
    #[error("cannot {doing}: {reason}")]
    Content {
        /// What was attempted, on what.
        doing: String,
        /// Why there are no bytes.
        reason: String,
    },
    /// It was tried again and again, as long as the user allows, or as the registry does.
    #[error("{error}\nhint: {hint}")]
    GaveUp {
        /// The last failure.
        error: Box<Error>,
        /// How often it was tried.
        hint: String,
    },
    /// A manifest's PUT was never answered, and neither was the question what became of it.
    #[error("{0}\nit is not known whether the tag points to the new image now")]
    Unsettled(Box<Error>),
    /// A setting of ours is unusable: a CA file that is none, a key without its certificate.
    #[error("{0}")]
    Settings(String),
}

/// An answer that is a refusal or a failure.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}: {url} answered {status}{}{}", said_line(.said), hint_line(.hint))]
pub struct StatusError {
    /// What was attempted, on what.
    pub doing: String,
    /// Where.
    pub url: SafeUrl,
    /// The answer's status.
    pub status: StatusCode,
    /// What the registry wrote, its `errors[]` if it sent any.
    pub said: Said,
    /// What to do about it.
    pub hint: Option<String>,
}

/// What a registry wrote about an error (OCI distribution-spec 1.1, "Error Codes").
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The `errors[]` of the body.
    pub errors: Vec<ApiError>,
    /// The start of a body that was not of that form.
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
    /// Anything.
    pub detail: serde_json::Value,
}

impl Error {
    /// Whether the registry refused (exit code 4), rather than failed or was out of reach (5).
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Status(answer) => answer.status.is_client_error() && !is_transient(answer.status),
            Self::Auth { source, .. } => !source.is_transient(),
            Self::GaveUp { error, .. } => error.is_refusal(),
            Self::Unreachable { .. }
            | Self::Transport { .. }
            | Self::Unsettled(_)
            | Self::Protocol { .. }
            | Self::Content { .. }
            | Self::Settings(_) => false,
        }
    }

    /// What is wrong, without what was attempted: the same for all requests that fail together.
    pub(super) fn trouble(&self) -> String {
        match self {
            Self::Transport { reason, .. } => reason.clone(),
            Self::Status(answer) => {
                format!("{} {}", answer.url.host(), answer.status)
            }
            other => other.to_string(),
        }
    }

    /// The answer's status, where there was an answer.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status(answer) => Some(answer.status),
            Self::GaveUp { error, .. } | Self::Unsettled(error) => error.status(),
            _ => None,
        }
    }

    /// Whether the registry named this code in `errors[]`.
    pub fn has_code(&self, code: &str) -> bool {
        self.said().is_some_and(|said| said.has_code(code))
    }

    /// What the registry wrote.
    pub fn said(&self) -> Option<&Said> {
        match self {
            Self::Status(answer) => Some(&answer.said),
            Self::GaveUp { error, .. } | Self::Unsettled(error) => error.said(),
            _ => None,
        }
    }
}

impl Said {
    /// Reads the body of an error answer. Takes anything, an HTML page included.
    pub fn parse(body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Body {
            errors: Vec<ApiError>,
        }
        if let Ok(Body { errors }) = serde_json::from_slice(body)
            && !errors.is_empty()
        {
            return Self { errors, text: None };
        }
        let text = String::from_utf8_lossy(body);
        let text = storage_error(&text).unwrap_or_else(|| strip_markup(&text));
        Self { errors: Vec::new(), text: (!text.is_empty()).then_some(text) }
    }

    /// The same without what grants access: `sent`, which the registry may have repeated, and the
    /// values in query strings.
    pub fn without_secrets(mut self, sent: Option<&str>) -> Self {
        let clean = |text: &str| {
            let text = match sent {
                Some(secret) if !secret.is_empty() => text.replace(secret, "***"),
                _ => text.to_owned(),
            };
            without_query_values(&text)
        };
        for error in &mut self.errors {
            error.code = clean(&error.code);
            error.message = clean(&error.message);
            let detail = error.detail.to_string();
            let cleaned = clean(&detail);
            if cleaned != detail {
                error.detail = serde_json::Value::String(cleaned);
            }
        }
        self.text = self.text.map(|text| clean(&text));
        self
    }

    /// The digests that `errors[]` names, in whatever form.
    pub fn digests(&self) -> HashSet<Digest> {
        let text = self.to_string();
        let starts = text.match_indices("sha256:").map(|(start, _)| start);
        starts.filter_map(|start| text.get(start..start + 71)?.parse().ok()).collect()
    }

    /// Whether `errors[]` has this code.
    pub fn has_code(&self, code: &str) -> bool {
        self.errors.iter().any(|error| error.code == code)
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().take(5).enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            f.write_str(&error.code)?;
            if !error.message.is_empty() {
                write!(f, ": {}", error.message)?;
            }
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

/// Whether the same request may well succeed later.
pub fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// Code and message of a storage service's XML. What else it holds is a map of the signature that
/// it did not like.
fn storage_error(text: &str) -> Option<String> {
    let inner = |tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag}>"))?;
        Some(strip_markup(rest.split_once("</")?.0))
    };
    let code = inner("Code").filter(|_| text.contains("<Error"))?;
    Some(inner("Message").map_or(code.clone(), |message| format!("{code}: {message}")))
}

/// The words of an HTML page or of plain text, on one line and not too many.
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
    let line = words.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(300).collect()
}

fn said_line(said: &Said) -> String {
    let text = said.to_string();
    if text.is_empty() { text } else { format!(": {text}") }
}

fn hint_line(hint: &Option<String>) -> String {
    hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_registry_wrote_is_shown() {
        let said = Said::parse(
            br#"{"errors":[{"code":"DENIED","message":"no access","detail":[{"Type":"repository"}]},
                {"code":"NAME_UNKNOWN"}]}"#,
        );
        assert!(said.has_code("DENIED"));
        assert_eq!(
            said.to_string(),
            r#"DENIED: no access ([{"Type":"repository"}]); NAME_UNKNOWN"#
        );
    }

    #[test]
    fn a_load_balancers_page_becomes_one_line() {
        let said = Said::parse(
            b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>nginx</body></html>",
        );
        assert_eq!(said.to_string(), "502 Bad Gateway nginx");
        assert_eq!(Said::parse(b"").to_string(), "");
        assert_eq!(Said::parse(b"{\"errors\":[]}").to_string(), "{\"errors\":[]}");
    }

    #[test]
    fn what_the_registry_repeats_of_our_secrets_is_not_shown() {
        let said = Said::parse(
            br#"{"errors":[{"code":"UNKNOWN","message":"token hunter2 at http://h/u?_state=abc",
                "detail":{"authorization":"hunter2","url":"/u?digest=sha256:1&X-Sig=abc"}}]}"#,
        );
        let shown = said.without_secrets(Some("hunter2")).to_string();
        assert!(!shown.contains("hunter2") && !shown.contains("abc"), "{shown}");
        assert!(shown.contains("http://h/u?_state=***"), "{shown}");
        assert!(shown.contains("digest=sha256:1"), "{shown}");
    }

    #[test]
    fn of_a_storage_error_only_code_and_message_are_shown() {
        let said = Said::parse(
            b"<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code>\
              <Message>The request signature differs</Message>\
              <SignatureProvided>abc</SignatureProvided></Error>",
        );
        assert_eq!(said.to_string(), "SignatureDoesNotMatch: The request signature differs");
    }
}
