//! Requests that finally failed: what the request was for, what the server answered, and what to
//! do.

use reqwest::StatusCode;

use super::auth::AuthError;
use super::message::ErrorMessage;
use super::send::mask::SafeUrl;

/// A request that finally failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There was no connection: the host is unknown or down, one side does not trust the other, or
    /// the host has never answered. The message names no request, because any other request would
    /// fail too.
    #[error("cannot reach {host}: {reason}{}", hint_line(.hint))]
    Unreachable {
        /// The host, with its port if it is not the default port.
        host: String,
        /// What went wrong, innermost cause included.
        reason: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// There was no answer: the connection broke, or no bytes moved on it.
    #[error("cannot {doing}: {reason}")]
    Transport {
        /// What the request was for.
        doing: String,
        /// What went wrong, innermost cause included.
        reason: String,
    },
    /// The registry answered with a refusal or an error.
    #[error(transparent)]
    Status(Box<StatusError>),
    /// The server at this address is not a registry.
    #[error(
        "{host} does not look like a registry: {answered}\nhint: check the registry's name and \
         port; an image's name begins with the host that serves the registry's API"
    )]
    NotARegistry {
        /// The registry, as the user wrote it.
        host: String,
        /// The URL that answered, and the answer.
        answered: String,
    },
    /// Authentication failed: the credentials are missing or wrong, or the token server failed.
    #[error("cannot log in to {host}: {source}")]
    Auth {
        /// The registry, as the user wrote it.
        host: String,
        /// Why it failed.
        source: Box<AuthError>,
    },
    /// The answer violates the distribution specification.
    #[error("cannot {doing}: {problem}")]
    Protocol {
        /// What the request was for.
        doing: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// The bytes to be sent could not be read.
    #[error("cannot {doing}: {reason}")]
    Content {
        /// What the request was for.
        doing: String,
        /// Why the bytes could not be read.
        reason: String,
    },
    /// The request was redirected away from the registry and failed there.
    #[error(transparent)]
    Elsewhere(Box<Error>),
    /// It was retried for as long as the user allows, or the registry asks for a longer pause.
    #[error("{error}\nhint: {hint}")]
    GaveUp {
        /// The last failure.
        error: Box<Error>,
        /// What the user can do.
        hint: String,
    },
    /// The PUT of a manifest was not answered, and the registry could not be asked whether it was
    /// stored.
    #[error("{0}\nit is not known whether the tag points to the new image now")]
    OutcomeUnknown(Box<Error>),
    /// A setting is unusable: a CA file without certificates, a key without its certificate.
    #[error("{0}")]
    Settings(String),
}

/// An answer that is a refusal or an error.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}: {url} answered {status}{}{}", message_text(.message), hint_line(.hint))]
pub struct StatusError {
    /// What the request was for.
    pub doing: String,
    /// The URL that answered.
    pub url: SafeUrl,
    /// The answer's status.
    pub(crate) status: StatusCode,
    /// The registry's message: its `errors[]` if it sent any.
    pub message: ErrorMessage,
    /// What to do about it.
    pub hint: Option<String>,
}

impl StatusError {
    /// Whether the registry may not know the manifest's format or media types. Registries that are
    /// older than OCI's say only that such a manifest is invalid, and with several statuses.
    pub fn is_about_format(&self) -> bool {
        match self.status.as_u16() {
            415 => true,
            400 | 404 | 500 => {
                ["MANIFEST_INVALID", "UNSUPPORTED"].iter().any(|code| self.message.has_code(code))
            }
            _ => false,
        }
    }
}

impl Error {
    /// Whether the registry refused (exit code 4). If not, it failed or could not be reached (5).
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Status(answer) => {
                let status = answer.status;
                (status.is_client_error() && !is_transient(status))
                    || answer.message.is_final(status)
            }
            Self::NotARegistry { .. } => true,
            Self::Auth { source, .. } => source.is_refusal(),
            Self::GaveUp { error, .. } | Self::Elsewhere(error) => error.is_refusal(),
            Self::Unreachable { .. }
            | Self::Transport { .. }
            | Self::OutcomeUnknown(_)
            | Self::Protocol { .. }
            | Self::Content { .. }
            | Self::Settings(_) => false,
        }
    }

    /// Whether there was no connection to the registry.
    pub(super) fn is_unreachable(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::GaveUp { error, .. } => error.is_unreachable(),
            _ => false,
        }
    }

    /// Whether only this request failed: the registry answers, and has not rejected the login.
    pub fn is_of_one_request(&self) -> bool {
        match self {
            Self::Status(answer) => answer.status != StatusCode::UNAUTHORIZED,
            Self::Protocol { .. } | Self::Elsewhere(_) => true,
            Self::GaveUp { error, .. } => error.is_of_one_request(),
            _ => false,
        }
    }

    /// The cause without what the request was for. It is equal for requests that fail for the same
    /// reason.
    pub(super) fn cause(&self) -> String {
        match self {
            Self::Transport { reason, .. } => reason.clone(),
            Self::Elsewhere(error) => error.cause(),
            Self::Status(answer) => {
                format!("{} {}", answer.url.host(), answer.status)
            }
            other => other.to_string(),
        }
    }

    /// The first line of the message, without hints, for a note or a line about a retry.
    pub fn summary(&self) -> String {
        self.to_string().lines().next().unwrap_or_default().to_owned()
    }

    /// The status of the answer, if there was an answer.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status(answer) => Some(answer.status),
            Self::GaveUp { error, .. } | Self::OutcomeUnknown(error) | Self::Elsewhere(error) => {
                error.status()
            }
            _ => None,
        }
    }

    /// Whether the registry's `errors[]` contains this code.
    pub fn has_code(&self, code: &str) -> bool {
        self.said().is_some_and(|message| message.has_code(code))
    }

    /// The registry's message.
    pub fn said(&self) -> Option<&ErrorMessage> {
        match self {
            Self::Status(answer) => Some(&answer.message),
            Self::GaveUp { error, .. } | Self::OutcomeUnknown(error) | Self::Elsewhere(error) => {
                error.said()
            }
            _ => None,
        }
    }
}

/// Whether the same request may succeed later.
pub fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

fn message_text(message: &ErrorMessage) -> String {
    let text = message.to_string();
    if text.is_empty() { text } else { format!(": {text}") }
}

fn hint_line(hint: &Option<String>) -> String {
    hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default()
}
