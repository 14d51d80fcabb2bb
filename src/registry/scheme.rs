//! Which scheme a registry uses: HTTPS, except with `--plain-http`, and except for loopback
//! addresses, where plain HTTP is tried first.

use std::sync::atomic::{AtomicU8, Ordering};

use reqwest::StatusCode;
use url::Host;

use super::auth::is_loopback_host;

/// The scheme of a registry. For a loopback address, the first request finds it out.
#[derive(Debug)]
pub struct Scheme(AtomicU8);

/// The states of a [`Scheme`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// HTTPS.
    Tls,
    /// Plain HTTP.
    Plain,
    /// Not known yet; plain HTTP is tried first.
    Unknown,
}

impl Scheme {
    /// What follows from the host's name and the user's options.
    pub fn of(host: &str, plain_http: bool) -> Self {
        let speaks = if plain_http {
            Speaks::Plain
        } else if is_loopback(host) {
            Speaks::Unknown
        } else {
            Speaks::Tls
        };
        Self(AtomicU8::new(speaks as u8))
    }

    /// What is known now.
    pub fn get(&self) -> Speaks {
        match self.0.load(Ordering::Acquire) {
            0 => Speaks::Tls,
            1 => Speaks::Plain,
            _ => Speaks::Unknown,
        }
    }

    /// Records what an answer has shown.
    pub fn settle(&self, speaks: Speaks) {
        self.0.store(speaks as u8, Ordering::Release);
    }
}

/// Whether `host[:port]` is this machine.
pub fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    Host::parse(name).is_ok_and(|host| is_loopback_host(&host))
}

/// Whether an answer to plain HTTP may come from a TLS server: Go, nginx and Apache answer 400, and
/// a HEAD request gets no further text.
pub fn may_want_tls(status: StatusCode) -> bool {
    status == StatusCode::BAD_REQUEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_by_name_or_address() {
        for host in ["localhost", "LOCALHOST:5000", "127.0.0.1:5000", "127.8.9.1", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example.com", "10.0.0.1:5000", "registry.fly.io", "[::2]:80"] {
            assert!(!is_loopback(host), "{host}");
        }
        assert!(may_want_tls(StatusCode::BAD_REQUEST) && !may_want_tls(StatusCode::NOT_FOUND));
        assert_eq!(Scheme::of("ghcr.io", false).get(), Speaks::Tls);
        assert_eq!(Scheme::of("ghcr.io", true).get(), Speaks::Plain);
        assert_eq!(Scheme::of("localhost:1", false).get(), Speaks::Unknown);
    }
}
