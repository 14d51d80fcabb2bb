//! Names of images by Docker's rules.
//!
//! They are parsed without the regular expressions of `oci-client`. Compiling those takes 40 ms,
//! which is longer than a push of an unchanged image.

use std::fmt;
use std::net::Ipv6Addr;

use super::digest::Digest;

/// The name of an image: a registry, a repository there, and a tag or a digest or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// An image by its digest.
    pub fn with_digest(registry: &str, repository: &str, digest: Digest) -> Self {
        let (registry, repository) = (registry.to_owned(), repository.to_owned());
        Self { registry, repository, tag: None, digest: Some(digest) }
    }

    /// The registry's host, and its port if the name has one.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository's name at the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag. A reference without tag and digest means the repository.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_ref().map(Digest::as_str)
    }

    /// The name written out: `registry/repository:tag@digest`.
    pub fn whole(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// A text that is not the name of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of an image, such as registry.example/app:v1")]
pub struct InvalidReference;

impl std::str::FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        parse_reference(text).ok_or(InvalidReference)
    }
}

/// The longest name that registries take.
const MAX_NAME: usize = 255;

/// Parses `[host[:port]/]repository[:tag][@digest]`. A name alone means
/// `docker.io/library/name:latest`.
///
/// The part before the first slash is a host if it contains a dot or a colon, or is `localhost`. A
/// host may be an IPv6 address in brackets. The digest is SHA-256 or SHA-512.
pub fn parse_reference(text: &str) -> Option<Reference> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse::<Digest>().ok()?)),
        None => (text, None),
    };
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return None;
    }
    let (host, repository) = match name.split_once('/') {
        Some((host, path)) if is_host(host) => {
            let host = if host == "index.docker.io" { "docker.io" } else { host };
            (host, path.to_owned())
        }
        _ => ("docker.io", name.to_owned()),
    };
    let repository = match repository {
        short if host == "docker.io" && !short.contains('/') => format!("library/{short}"),
        long => long,
    };
    let fits = is_domain(host) && repository.len() <= MAX_NAME;
    if !fits || !repository.split('/').all(is_path_component) {
        return None;
    }
    let latest = || digest.is_none().then(|| "latest".to_owned());
    Some(Reference {
        registry: host.to_owned(),
        repository,
        tag: tag.map(str::to_owned).or_else(latest),
        digest,
    })
}

/// Whether two names of an image are forms of one reference, as `app` and
/// `docker.io/library/app:latest` are.
pub fn is_same_name(one: &str, other: &str) -> bool {
    one == other || parse_reference(one).is_some_and(|one| Some(one) == parse_reference(other))
}

/// The names, without each name that is another form of an earlier one.
pub fn distinct_names(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut distinct: Vec<String> = Vec::new();
    for name in names {
        if !distinct.iter().any(|before| is_same_name(before, &name)) {
            distinct.push(name);
        }
    }
    distinct
}

/// The reference without tag and digest, for a push without a tag. Then only the digest identifies
/// the image.
pub fn untagged(reference: Reference) -> Reference {
    Reference { tag: None, digest: None, ..reference }
}

/// Whether it has neither a tag nor a digest.
pub fn is_untagged(reference: &Reference) -> bool {
    reference.tag.is_none() && reference.digest.is_none()
}

/// Whether text is a tag (OCI distribution-spec 1.1, "Pulling manifests").
pub fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

/// The short name of a repository of Docker Hub: `app` for `docker.io/library/app`.
pub fn short_repository(reference: &Reference) -> Option<&str> {
    let repository = reference.repository();
    let is_hub = reference.registry() == "docker.io";
    is_hub.then(|| repository.strip_prefix("library/").unwrap_or(repository))
}

/// Whether Docker's rules take the first part of a name for a host, not for a part of the
/// repository.
pub fn is_host(text: &str) -> bool {
    text.contains(['.', ':']) || text == "localhost"
}

fn is_domain(host: &str) -> bool {
    let digits = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    if let Some((address, after)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address.parse::<Ipv6Addr>().is_ok()
            && (after.is_empty() || after.strip_prefix(':').is_some_and(digits));
    }
    let (name, port) = match host.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    port.is_none_or(digits) && name.split('.').all(label)
}

/// Whether the text consists of lower-case words, separated by `.`, `_`, `__` or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let word = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends_in_words = bytes.first().is_some_and(word) && bytes.last().is_some_and(word);
    ends_in_words
        && bytes.split(word).filter(|separator| !separator.is_empty()).all(|separator| {
            matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_names_are_docker_hubs() {
        for (text, whole) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("me/app:v1", "docker.io/me/app:v1"),
            ("docker.io/alpine", "docker.io/library/alpine:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/a/b__c/d-e.f:V_1", "localhost:5000/a/b__c/d-e.f:V_1"),
            ("registry.fly.io/app:latest", "registry.fly.io/app:latest"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("[2001:db8::1]/app:v1", "[2001:db8::1]/app:v1"),
        ] {
            assert_eq!(parse_reference(text).unwrap().whole(), whole);
        }
    }

    #[test]
    fn what_is_no_reference_is_none() {
        for text in [
            "",
            ":",
            "@",
            "/",
            "a/",
            "/a",
            "A",
            "a:",
            "a@",
            "a@sha256:12",
            "a b",
            "a..b",
            "-a",
            "a___b",
            "r.io/",
            "r.io//a",
            "r.io:x/a",
            "-r.io/a",
            "a:b:c",
            "[::1/a",
            "[x]/a",
            "[::1]5/a",
            "http://r.io/a",
        ] {
            assert!(parse_reference(text).is_none(), "{text}");
        }
    }

    fn agrees(text: &str) -> Result<(), TestCaseError> {
        let ours = parse_reference(text).map(|ours| ours.whole());
        let theirs = oci_client::Reference::try_from(text).ok().map(|theirs| theirs.whole());
        // oci-client takes `Foo` in `Foo/bar` for a host, and accepts SHA-384 digests.
        let known = text.contains(char::is_uppercase) || text.contains("sha384");
        if ours.is_some() || !known {
            prop_assert_eq!(ours, theirs, "{}", text);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn every_text_is_read_as_oci_client_reads_it(
            text in "([a-z0-9.:-]{0,8}/)?[a-z0-9._/-]{0,12}(:[a-zA-Z0-9._-]{0,6})?(@sha256:[a-f0-9]{64})?"
        ) {
            agrees(&text)?;
        }

        #[test]
        fn so_is_any_other_text(text in "[aA0._:/@ -]{0,10}") {
            agrees(&text)?;
        }
    }
}
