//! Names that people type: references by Docker's rules, tags, durations; and what to say of wrong
//! ones.

use std::str::FromStr;
use std::time::Duration;

use oci_client::Reference;

use crate::image::{Digest, is_tag, parse_reference};

/// The example that messages about a wrong reference show.
const EXAMPLE: &str = "registry.fly.io/app:latest";

/// Why a text is no reference, tag, duration or platform. The rejected text itself is in the message that
/// clap puts around this one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

impl Invalid {
    /// What would be right.
    pub fn new(expected: &str) -> Self {
        Self(expected.to_owned())
    }
}

/// Where an image is pushed to: `host[:port]/repository[:tag][@digest]`.
///
/// A digest must be SHA-256: that is what manifests are checked against.
pub fn destination(text: &str) -> Result<Reference, Invalid> {
    let reference = reference(text)?;
    if let Some(digest) = reference.digest()
        && !is_sha256(digest)
    {
        return Err(Invalid("a digest is sha256: and 64 lowercase hexadecimal digits".into()));
    }
    Ok(reference)
}

/// An image in a registry, by Docker's rules: `name` is `docker.io/library/name:latest`.
pub fn reference(text: &str) -> Result<Reference, Invalid> {
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(Invalid(match rest.trim_end_matches('/') {
            "" => format!("expected a name such as {EXAMPLE}"),
            rest => format!("leave out the {scheme}:// and write {rest}"),
        }));
    }
    let (host, name) = match text.split_once('/') {
        Some((host, name)) if is_host(host) => (Some(host), name),
        _ => (None, text),
    };
    if let Some(host) = host {
        check_port(host)?;
    }
    if host.is_none() && (text == "localhost" || text.starts_with("localhost:")) {
        return Err(Invalid(format!("that is a registry without a repository; write {text}/app")));
    }
    parse_reference(text).ok_or_else(|| explain(text, host, name))
}

/// A tag alone (OCI distribution-spec 1.1, "Pulling manifests"): `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
pub fn tag(text: &str) -> Result<String, Invalid> {
    if is_tag(text) {
        return Ok(text.to_owned());
    }
    Err(Invalid(
        if text.contains('/') || text.contains(':') {
            "give the tag alone, without registry and repository, such as v2"
        } else {
            "a tag is at most 128 letters, digits, '.', '_' and '-', and begins with none of '.' \
             and '-'"
        }
        .into(),
    ))
}

/// The tags, each once, without the one that the destination has already.
pub fn others(mut tags: Vec<String>, destination: Option<&Reference>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    tags.retain(|tag| seen.insert(tag.clone()));
    if let Some(own) = destination.and_then(Reference::tag) {
        tags.retain(|tag| tag != own);
    }
    tags
}

/// A span of time: `90s`, `5m`, `1h 30m`, or `0`.
pub fn duration(text: &str) -> Result<Duration, Invalid> {
    humantime::parse_duration(text).map_err(|_| {
        Invalid("expected a number with its unit, such as 90s, 5m or 1h; 0 turns it off".into())
    })
}

/// A duration that is a limit, and so cannot be zero.
pub fn idle_timeout(text: &str) -> Result<Duration, Invalid> {
    match duration(text) {
        Ok(limit) if !limit.is_zero() => Ok(limit),
        _ => Err(Invalid("expected a number with its unit, such as 90s or 5m".into())),
    }
}

/// Whether a digest is one that manifests are checked against.
fn is_sha256(digest: &str) -> bool {
    digest.starts_with("sha256:") && Digest::from_str(digest).is_ok()
}

/// What Docker's rules take for a host and not for the first part of a repository.
fn is_host(text: &str) -> bool {
    text.contains(['.', ':']) || text == "localhost"
}

fn check_port(host: &str) -> Result<(), Invalid> {
    // In `[::1]` the last colon belongs to the address.
    let port = match host.rsplit_once(']') {
        Some((_, after)) => after.strip_prefix(':'),
        None => host.rsplit_once(':').map(|(_, port)| port),
    };
    match port {
        Some(port) if !port.parse::<u16>().is_ok_and(|port| port > 0) => {
            Err(Invalid(format!("{port:?} is no port: a port is a number from 1 to 65535")))
        }
        _ => Ok(()),
    }
}

fn has_uppercase(text: &str) -> bool {
    text.contains(|c: char| c.is_ascii_uppercase())
}

/// What is wrong with a text that is no reference; `name` is what follows the host.
fn explain(text: &str, host: Option<&str>, name: &str) -> Invalid {
    let repository = name.split([':', '@']).next().unwrap_or(name);
    if has_uppercase(repository) {
        let rest = &name[repository.len()..];
        let lower = format!(
            "{}{}{rest}",
            host.map(|host| format!("{host}/")).unwrap_or_default(),
            repository.to_ascii_lowercase()
        );
        if parse_reference(&lower).is_some() {
            return Invalid(format!("a repository is lowercase; write {lower}"));
        }
    }
    if let Some((_, digest)) = text.split_once('@')
        && !is_sha256(digest)
    {
        return Invalid("a digest is sha256: and 64 lowercase hexadecimal digits".into());
    }
    if let Some((_, tag_text)) = name.split('@').next().unwrap_or(name).split_once(':')
        && !repository.is_empty()
        && let Err(error) = tag(tag_text)
    {
        return error;
    }
    Invalid(format!("expected host[:port]/repository[:tag], such as {EXAMPLE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        destination(text).unwrap_err().to_string()
    }

    #[test]
    fn short_names_are_dockers() {
        for (text, whole) in [
            ("name", "docker.io/library/name:latest"),
            ("me/name:v1", "docker.io/me/name:v1"),
            ("registry.fly.io/app", "registry.fly.io/app:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c"),
        ] {
            assert_eq!(destination(text).unwrap().whole(), whole);
        }
    }

    #[test]
    fn a_host_may_be_an_ipv6_address() {
        let parsed = destination("[::1]:5000/team/app:v1").unwrap();
        assert_eq!(parsed.registry(), "[::1]:5000");
        assert_eq!(parsed.repository(), "team/app");
        assert_eq!(parsed.tag(), Some("v1"));
        assert_eq!(destination("[::1]/app").unwrap().tag(), Some("latest"));
        for wrong in ["[::1/app", "[zz]/app", "[::1]5000/app", "[::1]:5000/", "[::1]"] {
            assert!(destination(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_digest_is_sha256() {
        let hex = "0".repeat(64);
        let parsed = destination(&format!("r.io/app@sha256:{hex}")).unwrap();
        assert_eq!(parsed.tag(), None);
        let both = destination(&format!("r.io/app:v1@sha256:{hex}")).unwrap();
        assert_eq!(both.tag(), Some("v1"));
        for wrong in [
            format!("r.io/app@sha512:{hex}{hex}"),
            format!("r.io/app@sha256:{}", "F".repeat(64)),
            "r.io/app@sha256:12".into(),
        ] {
            assert!(message(&wrong).starts_with("a digest is sha256:"), "{wrong}");
        }
        assert!(reference(&format!("r.io/app@sha512:{hex}{hex}")).is_ok());
    }

    #[test]
    fn wrong_names_are_explained() {
        for (text, said) in [
            ("https://registry.fly.io/app", "leave out the https:// and write registry.fly.io/app"),
            ("docker://r.io/app:1", "leave out the docker:// and write r.io/app:1"),
            ("r.io/Team/App:V1", "a repository is lowercase; write r.io/team/app:V1"),
            ("Foo/bar", "a repository is lowercase; write foo/bar"),
            ("r.io/app:-x", "a tag is at most"),
            ("r.io:99999/app", "\"99999\" is no port"),
            ("r.io:/app", "\"\" is no port"),
            ("localhost:5000", "write localhost:5000/app"),
            ("", "such as registry.fly.io/app:latest"),
            ("r.io/", "such as registry.fly.io/app:latest"),
            ("r.io/a b", "such as registry.fly.io/app:latest"),
            ("https://", "such as registry.fly.io/app:latest"),
        ] {
            assert!(message(text).contains(said), "{text}: {}", message(text));
        }
    }

    #[test]
    fn tags_follow_the_specification() {
        for right in ["v1", "1.2.3-rc_4", "_x", "A", &"x".repeat(128)] {
            assert_eq!(tag(right).as_deref(), Ok(right));
        }
        for wrong in ["", ".x", "-x", "a b", "ä", &"x".repeat(129)] {
            assert!(tag(wrong).unwrap_err().to_string().contains("at most 128"));
        }
        let whole = tag("r.io/app:v1").unwrap_err().to_string();
        assert!(whole.starts_with("give the tag alone"));
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        for wrong in ["", "5", "-1s", "soon"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    mod any_text {
        use proptest::prelude::*;

        proptest! {
            #[test]
            fn is_a_reference_or_an_error_but_no_panic(text in "\\PC{0,40}|[a-zA-Z0-9:/@.\\[\\]-]{0,40}") {
                if let Ok(parsed) = super::super::destination(&text) {
                    prop_assert!(!parsed.repository().is_empty());
                    prop_assert!(parsed.tag().is_some() || parsed.digest().is_some());
                }
            }
        }
    }
}
