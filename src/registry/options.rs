//! How registries are talked to.

use std::time::Duration;

use super::auth;
use super::connect::TlsOptions;
use super::upload::sessions::Sessions;

/// How long a request may fail before the push does, unless the user says otherwise.
pub const DEFAULT_RETRY_FOR: Duration = Duration::from_secs(120);

/// How to talk to registries.
#[derive(Clone, Debug)]
pub struct Options {
    /// Plain HTTP for every host. Default: only loopback addresses are tried so.
    pub plain_http: bool,
    /// Where credentials come from. Default: what the environment offers.
    pub credentials: auth::Sources,
    /// How long a request may fail before the push does. Default: [`DEFAULT_RETRY_FOR`]; zero: no
    /// retry.
    pub retry_for: Duration,
    /// How long nothing may move on a connection, in either direction; never a limit on a whole
    /// upload. The answer to a blob's last byte may take five times as long: registries hash and
    /// store gigabytes then. Default: one minute.
    pub idle_timeout: Duration,
    /// Trust at the TLS level.
    pub tls: TlsOptions,
    /// The upload sessions that are open at any moment, so that they can be cancelled.
    pub sessions: Sessions,
    /// Whether events carry headers (`-vv`). Default: no.
    pub show_headers: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            plain_http: false,
            credentials: auth::Sources::default(),
            retry_for: DEFAULT_RETRY_FOR,
            idle_timeout: Duration::from_secs(60),
            tls: TlsOptions::default(),
            sessions: Sessions::default(),
            show_headers: false,
        }
    }
}
