//! Where a credential may be sent: scheme, host and port of a URL.
//!
//! URLs with the same realm count as the same server. A URL that differs in one of the three parts,
//! such as a redirect to a storage host or an upload location on another port, gets no credential.

use std::fmt;

use url::{Host, Url};

/// Scheme, host and port of a URL, with the scheme's default port filled in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Realm {
    scheme: String,
    host: Option<Host<String>>,
    port: Option<u16>,
}

impl Realm {
    /// The realm of a URL.
    pub fn of(url: &Url) -> Self {
        Self {
            scheme: url.scheme().to_owned(),
            host: url.host().map(|host| host.to_owned()),
            port: url.port_or_known_default(),
        }
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        self.scheme == "https"
    }

    /// Whether it is this machine: `localhost`, `127.0.0.0/8` or `::1`.
    pub fn is_loopback(&self) -> bool {
        self.host.as_ref().is_some_and(is_loopback_host)
    }

    /// Whether both are on the same host; the ports may differ.
    pub fn is_same_host(&self, other: &Self) -> bool {
        self.host.is_some() && self.host == other.host
    }
}

/// Whether a host is this machine.
pub(in crate::registry) fn is_loopback_host<S: AsRef<str>>(host: &Host<S>) -> bool {
    match host {
        Host::Domain(name) => name.as_ref().eq_ignore_ascii_case("localhost"),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.to_canonical().is_loopback(),
    }
}

impl fmt::Display for Realm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        if let Some(host) = &self.host {
            write!(f, "{host}")?;
        }
        match (self.scheme.as_str(), self.port) {
            ("https", Some(443)) | ("http", Some(80)) | (_, None) => Ok(()),
            (_, Some(port)) => write!(f, ":{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn realm(url: &str) -> Realm {
        Realm::of(&Url::parse(url).unwrap())
    }

    #[test]
    fn a_default_port_is_the_same_realm_as_none() {
        assert_eq!(realm("https://Registry.example/v2/"), realm("https://registry.example:443/x"));
        assert_eq!(realm("http://registry.example"), realm("http://registry.example:80/?q"));
    }

    #[test]
    fn another_scheme_host_or_port_is_another_realm() {
        let here = realm("https://registry.example/v2/");
        for other in [
            "http://registry.example/v2/",
            "http://registry.example:443/v2/",
            "https://registry.example:8443/v2/",
            "https://cdn.registry.example/v2/",
            "https://registry.example.evil.test/v2/",
        ] {
            assert_ne!(here, realm(other), "{other}");
        }
    }

    #[test]
    fn user_names_in_a_url_are_no_part_of_its_realm() {
        assert_eq!(realm("https://registry.example@evil.test/"), realm("https://evil.test/"));
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for here in [
            "http://localhost:5000",
            "http://127.0.0.1",
            "http://127.9.9.9:1",
            "http://[::1]:5000",
            "http://[::ffff:127.0.0.1]",
        ] {
            assert!(realm(here).is_loopback(), "{here}");
        }
        for elsewhere in [
            "http://localhost.evil.test",
            "http://128.0.0.1",
            "http://127.0.0.1.evil.test",
            "http://[::2]",
        ] {
            assert!(!realm(elsewhere).is_loopback(), "{elsewhere}");
        }
    }

    #[test]
    fn it_is_shown_without_a_port_that_goes_without_saying() {
        assert_eq!(realm("https://a.example:443/x").to_string(), "https://a.example");
        assert_eq!(realm("http://[::1]:5000/x").to_string(), "http://[::1]:5000");
    }
}
