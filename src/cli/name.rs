//! Parses references by Docker's rules, and tags, and explains what is wrong with an invalid name.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use crate::image::Reference;

use crate::image::{Digest, is_host, is_tag, parse_reference, untagged};
use crate::ssh::Host;

/// The example that messages about a wrong reference show.
const EXAMPLE: &str = "registry.fly.io/app:latest";

/// How other programs call places that are not registries.
const LOCAL_TRANSPORTS: [&str; 6] =
    ["oci", "oci-archive", "dir", "docker-archive", "docker-daemon", "containers-storage"];

/// Why a value on the command line is invalid. Clap adds the value to the message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(String);

impl InvalidValue {
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// Parses a destination: `host[:port]/repository[:tag][@digest]`. The digest must be SHA-256,
/// because it is compared with the manifest's. `host/repository@` is a push without a tag.
pub fn destination(text: &str) -> Result<Reference, InvalidValue> {
    if let Some(repository) = text.strip_suffix('@').filter(|text| !has_tag(text)) {
        return reference(repository).map(untagged);
    }
    let reference = reference(text)?;
    if let Some(digest) = reference.digest()
        && !is_sha256(digest)
    {
        return Err(InvalidValue("a digest is sha256: and 64 lowercase hexadecimal digits".into()));
    }
    Ok(reference)
}

/// Where a push may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushTarget {
    /// The machine that gets the image. `None`: it goes to the registry in the name.
    pub host: Option<Host>,
    /// The image's name there.
    pub name: Reference,
}

/// Parses a destination without its scheme.
type ReadTarget = fn(&str) -> Result<PushTarget, InvalidValue>;

/// The schemes of destinations that are not registries.
const SCHEMES: [(&str, ReadTarget); 1] = [("ssh://", on_host)];

/// Parses the target of a push: a [`destination`] in a registry, or one with a scheme of
/// [`SCHEMES`].
pub fn target(text: &str) -> Result<PushTarget, InvalidValue> {
    let row = SCHEMES.iter().find_map(|(scheme, read)| Some((read, after(text, scheme)?)));
    match row {
        Some((read, rest)) => read(rest),
        None => destination(text).map(|name| PushTarget { host: None, name }),
    }
}

/// The text after a scheme. The scheme may be in upper case.
fn after<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let (begin, rest) = text.split_at_checked(scheme.len())?;
    begin.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// Parses `[user@]host[:port]/name[:tag]`.
fn on_host(text: &str) -> Result<PushTarget, InvalidValue> {
    let (host, name) = text.split_once('/').unwrap_or((text, ""));
    let host = Host::parse(host).map_err(|error| InvalidValue(error.to_string()))?;
    if name.is_empty() {
        return Err(InvalidValue(format!("the image's name is missing: {host}/NAME:TAG")));
    }
    let name = match destination(name) {
        Err(InvalidValue(said)) if said.contains(EXAMPLE) => {
            let what = format!("{name:?} is no name of an image; write ssh://HOST/NAME:TAG");
            return Err(InvalidValue(what));
        }
        name => name?,
    };
    match name.digest() {
        Some(_) => {
            Err(InvalidValue("an image on a host is named by a tag, not by a digest".into()))
        }
        None => Ok(PushTarget { host: Some(host), name }),
    }
}

/// Splits an optional target into its two parts.
pub fn unzip(target: Option<PushTarget>) -> (Option<Host>, Option<Reference>) {
    target.map_or((None, None), |target| (target.host, Some(target.name)))
}

/// Parses the reference of an image by Docker's rules: `name` means
/// `docker.io/library/name:latest`.
pub fn reference(text: &str) -> Result<Reference, InvalidValue> {
    if let Some(masked) = mask_login(text) {
        let name = masked.rsplit_once('@').map_or("", |(_, name)| name);
        return Err(InvalidValue(format!(
            "a user name or a password does not belong here; write {name}, and log in with \
             --username and --password-stdin"
        )));
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(InvalidValue(match rest.trim_end_matches('/') {
            "" => format!("expected a name such as {EXAMPLE}"),
            _ if SCHEMES.iter().any(|(other, _)| after(text, other).is_some()) => {
                "an image on a machine cannot be read; give its file, or its name in a registry"
                    .to_owned()
            }
            rest => format!("leave out the {scheme}:// and write {rest}"),
        }));
    }
    if let Some((transport, rest)) = text.split_once(':')
        && LOCAL_TRANSPORTS.contains(&transport)
        && !is_tag(rest)
    {
        return Err(InvalidValue(format!(
            "{transport}: names a place on this machine; expected a name in a registry, such as \
             {EXAMPLE}"
        )));
    }
    let (host, name) = match text.split_once('/') {
        Some((host, name)) if is_host(host) => (Some(host), name),
        _ => (None, text),
    };
    if let Some(host) = host {
        check_port(host, text)?;
    }
    if let Some(host) = lone_host(text) {
        // In `registry.fly.io:latest`, the text after the colon is a tag, not a port.
        let (host, tag) = match host.rsplit_once(':') {
            Some((name, tag)) if is_tag(tag) && tag.parse::<u16>().is_err() => (name, tag),
            _ => (host, ""),
        };
        let colon = if tag.is_empty() { "" } else { ":" };
        let missing =
            format!("the repository is missing: {host}/NAME{colon}{tag}, such as {EXAMPLE}");
        return Err(InvalidValue(missing));
    }
    parse_reference(text).ok_or_else(|| explain(text, host, name))
}

/// Parses a registry without a repository: `host[:port]`. A scheme and a slash at the end, which
/// people copy from a browser, are removed.
pub fn registry(text: &str) -> Result<String, InvalidValue> {
    let name = text.split_once("://").map_or(text, |(_, rest)| rest).trim_end_matches('/');
    let is_host = parse_reference(&format!("{name}/a")).is_some_and(|it| it.registry() == name);
    match is_host && !name.contains('/') {
        true => Ok(name.to_owned()),
        false => Err(InvalidValue("give the registry alone, such as registry.fly.io".into())),
    }
}

/// Parses a tag (OCI distribution-spec 1.1, "Pulling manifests"):
/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
pub fn tag(text: &str) -> Result<String, InvalidValue> {
    if is_tag(text) {
        return Ok(text.to_owned());
    }
    Err(InvalidValue(
        if text.contains('/') || text.contains(':') {
            "give the tag alone, without registry and repository, such as v2"
        } else {
            "a tag is at most 128 letters, digits, '.', '_' and '-', and begins with none of '.' \
             and '-'"
        }
        .into(),
    ))
}

/// Parses a namespace of containerd.
pub fn namespace(text: &str) -> Result<String, InvalidValue> {
    match crate::ssh::is_namespace(text) {
        true => Ok(text.to_owned()),
        false => Err(InvalidValue("a namespace is letters, digits, '.', '_' and '-'".into())),
    }
}

/// The tags without duplicates and without the destination's own tag.
pub fn other_tags(mut tags: Vec<String>, destination: Option<&Reference>) -> Vec<String> {
    let mut seen = HashSet::new();
    let own = destination.and_then(Reference::tag);
    tags.retain(|tag| own != Some(tag) && seen.insert(tag.clone()));
    tags
}

/// Whether a name has a tag or a digest.
pub fn has_tag(text: &str) -> bool {
    text.rsplit('/').next().is_some_and(|last| last.contains([':', '@']))
}

/// Whether a name begins with a registry's host and not with a folder: `r.io/app`, not `./app`.
pub fn has_host(text: &str) -> bool {
    let host = text.split_once('/').map(|(host, _)| host);
    host.is_some_and(|host| is_host(host) && !host.starts_with('.'))
}

/// Replaces the login in a text by `***`: `user:password@host/name`, with or without a scheme.
/// `None` if there is no login.
pub fn mask_login(text: &str) -> Option<String> {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    // The last `@` may be the one before a digest.
    let end = match rest.rsplit_once('@') {
        Some((name, digest)) if looks_like_digest(digest) => name.len(),
        _ => rest.len(),
    };
    let (login, name) = rest[..end].rsplit_once('@')?;
    let is_login = name.contains(['/', '.', ':']) || !login.contains('/');
    let name = &rest[login.len() + 1..];
    (is_login && !name.is_empty()).then(|| format!("***@{name}"))
}

/// Whether the text is `sha256:1234` or a similar digest, even a misspelt one. It is not a host
/// with a port, because that is followed by a repository.
fn looks_like_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, hex)| {
        algorithm.starts_with("sha") && hex.bytes().all(|b| b.is_ascii_alphanumeric())
    })
}

/// The registry, if the text names one but no repository: `registry.fly.io`, `localhost:5000`,
/// `r.io/`. A single name without a dot is an image of Docker Hub.
fn lone_host(text: &str) -> Option<&str> {
    let (host, name) = text.split_once('/').unwrap_or((text, ""));
    let word = host.split([':', '@']).next()?;
    let is_address = host.starts_with('[') && host.contains(']');
    let is_host = is_address || word.contains('.') || word == "localhost";
    (name.is_empty() && is_host && !host.contains('@')).then_some(host)
}

/// Whether a digest has the kind with which manifests are checked.
fn is_sha256(digest: &str) -> bool {
    digest.starts_with("sha256:") && Digest::from_str(digest).is_ok()
}

fn check_port(host: &str, text: &str) -> Result<(), InvalidValue> {
    // In `[::1]` the last colon belongs to the address.
    let (name, port) = match host.rsplit_once(']') {
        Some((name, after)) => (name, after.strip_prefix(':')),
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    match port {
        Some(port) if !port.parse::<u16>().is_ok_and(|port| port > 0) => {
            let begins_like_tag = port.starts_with(|c: char| c.is_ascii_alphabetic());
            if begins_like_tag && !name.contains('.') && name != "localhost" {
                return Err(slash_in_tag(text));
            }
            Err(InvalidValue(format!("{port:?} is no port: a port is a number from 1 to 65535")))
        }
        // Otherwise one registry could have two names.
        Some(port) if port.starts_with('0') => {
            let port = port.trim_start_matches('0');
            Err(InvalidValue(format!("a port has no leading zeros: write {name}:{port}/...")))
        }
        _ => Ok(()),
    }
}

/// The error for `app:feature/x`.
fn slash_in_tag(text: &str) -> InvalidValue {
    let fixed =
        text.rfind(':').map(|at| format!("{}{}", &text[..at], text[at..].replace('/', "-")));
    InvalidValue(format!("a tag has no '/'; write {}", fixed.as_deref().unwrap_or(text)))
}

fn has_uppercase(text: &str) -> bool {
    text.contains(|c: char| c.is_ascii_uppercase())
}

/// Explains why a text is not a valid reference. `name` is the part after the host.
fn explain(text: &str, host: Option<&str>, name: &str) -> InvalidValue {
    let repository = name.split([':', '@']).next().unwrap_or(name);
    if has_uppercase(repository) {
        let rest = &name[repository.len()..];
        let lower = format!(
            "{}{}{rest}",
            host.map(|host| format!("{host}/")).unwrap_or_default(),
            repository.to_ascii_lowercase()
        );
        if parse_reference(&lower).is_some() {
            return InvalidValue(format!("a repository is lowercase; write {lower}"));
        }
    }
    if let Some((_, digest)) = text.split_once('@')
        && !is_sha256(digest)
    {
        return InvalidValue("a digest is sha256: and 64 lowercase hexadecimal digits".into());
    }
    if let Some((_, tag_text)) = name.split('@').next().unwrap_or(name).split_once(':')
        && !repository.is_empty()
        && let Err(error) = tag(tag_text)
    {
        return match tag_text {
            "" => InvalidValue(format!("the tag is missing after ':'; write {text}latest")),
            _ if tag_text.contains('/') => slash_in_tag(text),
            _ if tag_text.contains(':') => InvalidValue(format!(
                "a name has one tag: write {}",
                text.rsplit_once(':').map_or(text, |(one, _)| one)
            )),
            _ => error,
        };
    }
    InvalidValue(format!("expected host[:port]/repository[:tag], such as {EXAMPLE}"))
}

/// Parses `[HOST:]PORT`, where the host is an address or `localhost`.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    if let Ok(port) = text.parse() {
        return Ok(SocketAddr::new(loopback, port));
    }
    if let Some(Ok(port)) = text.strip_prefix("localhost:").map(str::parse) {
        return Ok(SocketAddr::new(loopback, port));
    }
    text.parse().map_err(|_| {
        "it is not ADDRESS:PORT, such as 127.0.0.1:5000, or 0.0.0.0:5000 for everybody".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::is_untagged;

    fn message(text: &str) -> String {
        destination(text).unwrap_err().to_string()
    }

    #[test]
    fn without_an_address_only_this_machine_is_served() {
        for (text, address) in [
            ("5000", "127.0.0.1:5000"),
            ("localhost:0", "127.0.0.1:0"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:5000", "[::1]:5000"),
        ] {
            assert_eq!(listen_address(text).unwrap().to_string(), address, "{text}");
        }
        for text in ["", ":5000", "example.com:5000", "70000", "127.0.0.1"] {
            assert!(listen_address(text).is_err(), "{text}");
        }
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
    fn a_machine_is_a_destination_like_a_registry() {
        let at = |text: &str| {
            let PushTarget { host, name } = target(text).unwrap();
            (host.map(|host| host.to_string()), name.whole())
        };
        let machine = |text: &str| Some(text.to_owned());
        for (text, host, name) in [
            ("ssh://web1/app", machine("ssh://web1"), "docker.io/library/app:latest"),
            ("ssh://me@web1:22/r.io/a/b:v1", machine("ssh://me@web1:22"), "r.io/a/b:v1"),
            ("ssh://[::1]:2222/app:v1", machine("ssh://[::1]:2222"), "docker.io/library/app:v1"),
            ("r.io/app:v1", None, "r.io/app:v1"),
        ] {
            assert_eq!(at(text), (host, name.to_owned()), "{text}");
        }
        let digest = format!("ssh://web1/app@sha256:{}", "0".repeat(64));
        for (text, said) in [
            ("ssh://web1", "the image's name is missing: ssh://web1/NAME:TAG"),
            ("ssh://web1/", "the image's name is missing: ssh://web1/NAME:TAG"),
            ("ssh:///app", "is no host"),
            ("ssh://-oProxyCommand=x/app", "is no host"),
            ("ssh://web1:x/app", "is no port"),
            ("ssh://web1/App", "a repository is lowercase"),
            (&digest, "by a tag, not by a digest"),
        ] {
            let message = target(text).unwrap_err().to_string();
            assert!(message.contains(said), "{text}: {message}");
        }
        let secret = target("ssh://me:s3cret@web1/app").unwrap_err().to_string();
        assert!(!secret.contains("s3"), "{secret}");
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
            "localhost:5000/app@sha256:zz".into(),
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
            ("oci:/tmp/app", "oci: names a place on this machine"),
            ("docker-daemon:app:v1", "docker-daemon: names a place on this machine"),
            ("r.io:99999/app", "\"99999\" is no port"),
            ("r.io:/app", "\"\" is no port"),
            ("localhost:5000", "the repository is missing: localhost:5000/NAME"),
            ("localhost", "the repository is missing: localhost/NAME"),
            ("example.com:5000", "the repository is missing: example.com:5000/NAME"),
            ("registry.fly.io", "the repository is missing: registry.fly.io/NAME"),
            ("registry.fly.io:latest", "the repository is missing: registry.fly.io/NAME:latest"),
            ("ghcr.io/a:b:c", "a name has one tag: write ghcr.io/a:b"),
            ("registry.fly.io/", "the repository is missing: registry.fly.io/NAME"),
            ("[::1]:5000", "the repository is missing: [::1]:5000/NAME"),
            ("app:feature/x", "a tag has no '/'; write app:feature-x"),
            ("r.io/app:feature/x/y", "a tag has no '/'; write r.io/app:feature-x-y"),
            ("app:", "the tag is missing after ':'; write app:latest"),
            ("r.io/app:", "the tag is missing after ':'; write r.io/app:latest"),
            ("r.io/app@latest", "a digest is sha256: and 64"),
            ("", "such as registry.fly.io/app:latest"),
            ("r.io/", "such as registry.fly.io/app:latest"),
            ("r.io/a b", "such as registry.fly.io/app:latest"),
            ("https://", "such as registry.fly.io/app:latest"),
        ] {
            assert!(message(text).contains(said), "{text}: {}", message(text));
        }
    }

    #[test]
    fn a_destination_may_have_no_tag() {
        let parsed = destination("r.io:5000/team/app@").unwrap();
        assert!(is_untagged(&parsed));
        assert_eq!((parsed.registry(), parsed.repository()), ("r.io:5000", "team/app"));
        assert!(message("r.io/app:v1@").starts_with("a digest is sha256:"));
        assert!(message("r.io@").contains("the repository is missing: r.io/NAME"));
    }

    #[test]
    fn a_login_in_a_name_is_never_repeated() {
        for (text, masked) in [
            ("user:s3cret@r.io/app:v1", "***@r.io/app:v1"),
            ("https://user:s3cret@r.io/app", "***@r.io/app"),
            ("user:s3/cr@et@r.io:5000/app", "***@r.io:5000/app"),
            ("s3cret@r.io/app", "***@r.io/app"),
            ("user:s3cret@localhost", "***@localhost"),
            ("user:s3cret@r.io/app@sha256:12", "***@r.io/app@sha256:12"),
        ] {
            assert_eq!(mask_login(text).as_deref(), Some(masked), "{text}");
            let said = message(text);
            assert!(!said.contains("s3"), "{said}");
            assert!(said.contains("--username and --password-stdin"), "{said}");
        }
        let digest = format!("r.io/app:v1@sha256:{}", "0".repeat(64));
        for plain in ["r.io/app:v1", "app@sha256:12", &digest, "r.io/app@latest"] {
            assert_eq!(mask_login(plain), None, "{plain}");
        }
    }

    #[test]
    fn a_registry_is_a_host() {
        for (text, host) in [
            ("registry.fly.io", "registry.fly.io"),
            ("https://r.io:5000/", "r.io:5000"),
            ("localhost", "localhost"),
            ("docker.io", "docker.io"),
            ("[::1]:5000", "[::1]:5000"),
        ] {
            assert_eq!(registry(text).as_deref(), Ok(host));
        }
        for wrong in ["", "app", "r.io/app", "user:pw@r.io", "r io", "r.io:port"] {
            assert!(registry(wrong).is_err(), "{wrong}");
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

    mod any_text {
        use proptest::prelude::*;

        proptest! {
            #[test]
            fn is_a_reference_or_an_error_but_no_panic(text in "\\PC{0,40}|[a-zA-Z0-9:/@.\\[\\]-]{0,40}") {
                if let Ok(parsed) = super::super::destination(&text) {
                    prop_assert!(!parsed.repository().is_empty());
                    prop_assert!(parsed.tag().is_some() || parsed.digest().is_some() || super::is_untagged(&parsed));
                }
            }
        }
    }
}
