//! Names of images by Docker's rules, read without the regular expressions of `oci-client`, which
//! take 40 ms to compile: longer than a push of which nothing changed.

use std::net::Ipv6Addr;

use oci_client::Reference;

use super::digest::Digest;

/// The longest name that registries take.
const MAX_NAME: usize = 255;

/// Reads `[host[:port]/]repository[:tag][@digest]`. `name` is `docker.io/library/name:latest`.
///
/// A host is what has a dot or a colon in it, or `localhost`; it may be an IPv6 address in brackets. The digest is SHA-256 or SHA-512.
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
    let (host, digest) = (host.to_owned(), digest.map(|digest| digest.to_string()));
    Some(match (tag.map(str::to_owned), digest) {
        (Some(tag), Some(digest)) => Reference::with_tag_and_digest(host, repository, tag, digest),
        (None, Some(digest)) => Reference::with_digest(host, repository, digest),
        (tag, None) => {
            Reference::with_tag(host, repository, tag.unwrap_or_else(|| "latest".to_owned()))
        }
    })
}

/// Whether two names of an image are forms of one reference, as `app` and
/// `docker.io/library/app:latest` are.
pub fn is_same_name(one: &str, other: &str) -> bool {
    one == other || parse_reference(one).is_some_and(|one| Some(one) == parse_reference(other))
}

/// The names without those that are another form of one before.
pub fn distinct_names(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut distinct: Vec<String> = Vec::new();
    for name in names {
        if !distinct.iter().any(|before| is_same_name(before, &name)) {
            distinct.push(name);
        }
    }
    distinct
}

/// The reference's repository, for a push without a tag: only its digest names the image then.
///
/// `oci-client` has no reference without both, so this one has an empty tag.
pub fn untagged(reference: Reference) -> Reference {
    let (host, repository) = (reference.registry().to_owned(), reference.repository().to_owned());
    Reference::with_tag(host, repository, String::new())
}

/// Whether it was made by [`untagged`].
pub fn is_untagged(reference: &Reference) -> bool {
    reference.tag() == Some("")
}

/// Whether text is a tag (OCI distribution-spec 1.1, "Pulling manifests").
pub fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

/// What Docker's rules take for a host, and not for the first part of a repository.
fn is_host(text: &str) -> bool {
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

/// Lower-case words, with `.`, `_`, `__` or any number of `-` between them.
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
        let (ours, theirs) = (parse_reference(text), Reference::try_from(text).ok());
        // Theirs takes the `Foo` of `Foo/bar` for a host, and digests that nobody uses.
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
