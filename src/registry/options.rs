//! Options for talking to registries.

use std::time::Duration;

use super::auth;
use super::connect::TlsOptions;
use super::upload::sessions::Sessions;

/// How long a failing request is retried by default.
pub const DEFAULT_RETRY_FOR: Duration = Duration::from_secs(120);

/// Options for talking to registries.
#[derive(Clone, Debug)]
pub struct Options {
    /// Use plain HTTP for every host. Default: plain HTTP is only tried for loopback addresses.
    pub plain_http: bool,
    /// Where credentials come from. Default: no credentials.
    pub credentials: auth::Sources,
    /// How long a failing request is retried before the push fails. Default: [`DEFAULT_RETRY_FOR`];
    /// zero means no retries.
    pub retry_for: Duration,
    /// How long a connection may be idle, with no bytes in either direction. It does not limit the
    /// total time of an upload. The answer to a blob's last byte may take five times as long,
    /// because registries hash and store gigabytes then. Default: one minute.
    pub idle_timeout: Duration,
    /// Which servers to trust in TLS.
    pub tls: TlsOptions,
    /// The upload sessions that are open, so that they can be cancelled.
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
