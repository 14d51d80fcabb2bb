//! The errors of finding a credential or getting a token. Each message says what to do.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;

use crate::json;

/// The search for a credential failed. The error contains no secret.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file cannot be read, or is missing although the user named it.
    #[error("cannot read the credentials in {}{named_by}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// ` (named by --auth-file)` or nothing.
        named_by: String,
        /// Why.
        source: Arc<io::Error>,
    },
    /// A file is too long to be a credentials file.
    #[error(
        "the credentials file {} is longer than {} MiB and was not read; is it the right file?",
        path.display(), limit / (1024 * 1024)
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// In bytes.
        limit: u64,
    },
    /// A file has invalid content. The invalid text is not shown, because it may be a password.
    #[error(
        "cannot read the credentials in {}: {source}; correct it, or remove it and log in again",
        path.display()
    )]
    Json {
        /// The file.
        path: PathBuf,
        /// Which field, and what was expected.
        source: json::Error,
    },
    /// A file could not be changed. It is as it was before.
    #[error("cannot change the credentials file {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// There is no place to store a login.
    #[error(
        "there is no place to keep a login: neither DOCKER_CONFIG nor HOME is set; name a file with \
         --auth-file"
    )]
    NoFile,
    /// The entry for the registry cannot be used.
    #[error(
        "the entry {key:?} in the credentials in {} cannot be used: {problem}; log in again",
        path.display()
    )]
    Entry {
        /// The file.
        path: PathBuf,
        /// The entry's key.
        key: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The name of a credential program in a file is not a valid name.
    #[error(
        "the credentials file {} names a credential program {name:?}, which is not run: \
         a name may hold only letters, digits, '-', '_' and '.'", config.display()
    )]
    ProgramName {
        /// The name in the file.
        name: String,
        /// The file.
        config: PathBuf,
    },
    /// The credential program for a registry is not installed.
    #[error(
        "the credentials for {registry} are kept by {program}, says {}, but there is no such \
         program in PATH; install it, or give --username with --password-stdin", config.display()
    )]
    ProgramMissing {
        /// `docker-credential-…`.
        program: String,
        /// The file that names it.
        config: PathBuf,
        /// The registry.
        registry: String,
    },
    /// A credential program cannot be run.
    #[error("cannot run the credential program {} ({program}): {source}", file.display())]
    ProgramStart {
        /// `docker-credential-…`.
        program: String,
        /// Where it was found.
        file: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// A credential program did not answer in time.
    #[error(
        "the credential program {program} did not answer within {} seconds when asked to {verb} the \
         login for {server}; run `echo {server} | {program} get` to see what it waits for, or give \
         --username with --password-stdin", limit.as_secs_f32()
    )]
    ProgramTimeout {
        /// `docker-credential-…`.
        program: String,
        /// `get`, `store` or `erase`.
        verb: &'static str,
        /// The server whose login was requested.
        server: String,
        /// How long the program was allowed to run.
        limit: Duration,
    },
    /// A credential program failed.
    #[error(
        "the credential program {program} failed to {verb} the login for {server} ({status}): {said}"
    )]
    ProgramFailed {
        /// `docker-credential-…`.
        program: String,
        /// `get`, `store` or `erase`.
        verb: &'static str,
        /// The server whose login was requested.
        server: String,
        /// Its exit status.
        status: String,
        /// What it printed.
        said: String,
    },
    /// A credential program's answer cannot be read. The answer is not shown, because it may
    /// contain a password.
    #[error(
        "the credential program {program} answered for {server}, but not with JSON that has a \
         Username and a Secret{}{said}", if said.is_empty() { "" } else { "; it said: " }
    )]
    ProgramAnswer {
        /// `docker-credential-…`.
        program: String,
        /// The server whose login was requested.
        server: String,
        /// What it wrote to stderr.
        said: String,
    },
}

/// The login at the registry or its token server failed. The error contains no secret.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AuthError {
    /// The search for a credential failed.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The registry asks for a user and a password, but we have none that may be sent to it.
    #[error("{host} wants a user and password, but was asked {origin}; {advice}")]
    NoCredentials {
        /// The registry, as the user wrote it.
        host: String,
        /// As whom the request was sent.
        origin: String,
        /// What to do.
        advice: String,
    },
    /// The registry refused the credential itself.
    #[error("{host} refused the login; it was asked {origin}; {advice}")]
    Refused {
        /// The registry, as the user wrote it.
        host: String,
        /// As whom the request was sent.
        origin: String,
        /// What to do.
        advice: String,
    },
    /// The credential contains characters that a header cannot contain.
    #[error("cannot ask {host} {origin}: the token holds spaces or control characters; {advice}")]
    Unsendable {
        /// The registry, as the user wrote it.
        host: String,
        /// As whom the request was sent.
        origin: String,
        /// What to do.
        advice: String,
    },
    /// A 401 without a challenge that this program can answer.
    #[error(
        "{host} answered 401 Unauthorized, {}; is it a registry, and is a proxy between?",
        no_challenge(.offered)
    )]
    NoChallenge {
        /// The registry, as the user wrote it.
        host: String,
        /// The challenges, if there were any.
        offered: String,
    },
    /// The registry names a token server to which credentials would be sent unencrypted.
    #[error(
        "{host} names {server} as its token server, to which a password would be sent \
         unencrypted; nothing was sent to it. The registry's configuration must name an https address"
    )]
    InsecureRealm {
        /// The registry, as the user wrote it.
        host: String,
        /// The token server.
        server: String,
    },
    /// The token server gives no token for these scopes. If they were extended for a mount, the
    /// push can continue with the smaller set.
    #[error(transparent)]
    Denied(Box<Denied>),
    /// The token server failed, could not be reached, or sent something other than a token.
    #[error(
        "no token for {host} ({scopes}) from the token server {server}: {said}{}",
        hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default()
    )]
    TokenServer {
        /// The registry, as the user wrote it.
        host: String,
        /// The token server.
        server: String,
        /// The scopes that were requested.
        scopes: String,
        /// The status of the answer; `None` if there was no answer.
        status: Option<StatusCode>,
        /// The answer in words.
        said: String,
        /// What to do about it.
        hint: Option<String>,
        /// Whether the same request may succeed later.
        transient: bool,
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
    },
}

/// A token server refused a token.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "the token server {server} refused a token for {host} ({scopes}): {said}; it was asked {origin}; \
     {advice}"
)]
pub struct Denied {
    /// The registry, as the user wrote it.
    pub host: String,
    /// The token server.
    pub server: String,
    /// The scopes that were requested.
    pub scopes: String,
    /// 400, 401 or 403.
    pub status: StatusCode,
    /// Status and message.
    pub said: String,
    /// As whom the request was sent.
    pub origin: String,
    /// What to do.
    pub advice: String,
}

impl AuthError {
    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::TokenServer { transient: true, .. })
    }

    /// Whether it is a refusal. If not, the token server cannot be reached, or fails temporarily.
    pub fn is_refusal(&self) -> bool {
        !self.is_transient() && !matches!(self, Self::TokenServer { status: None, .. })
    }

    /// The token server that failed.
    pub(in crate::registry) fn token_server(&self) -> Option<&str> {
        match self {
            Self::TokenServer { server, .. } => Some(server),
            _ => None,
        }
    }

    /// How long the token server asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TokenServer { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

fn no_challenge(offered: &str) -> String {
    match offered {
        "" => "without a WWW-Authenticate header that says how to log in".to_owned(),
        offered => format!(
            "and asks in a way that pushimg does not understand (it can do Basic, and Bearer with a \
             URL as its realm): WWW-Authenticate: {offered}"
        ),
    }
}

/// Makes text from elsewhere fit for a message: one line, no control characters, limited length.
pub(super) fn excerpt(text: &str) -> String {
    const MAX: usize = 300;
    let words =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let mut out = String::new();
    for word in words {
        if !out.is_empty() {
            out.push(' ');
        }
        for c in word.chars() {
            if out.len() >= MAX {
                out.push('…');
                return out;
            }
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_text_is_made_one_short_line() {
        assert_eq!(excerpt(" a\r\n\tb\x1b[31m  c\0 "), "a b [31m c");
        assert_eq!(excerpt(""), "");
        assert!(excerpt(&"é ".repeat(10_000)).len() < 320);
    }
}
