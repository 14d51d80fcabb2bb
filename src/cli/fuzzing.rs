//! Fuzz targets for command line values, and for the lists of images of `--file`.

use std::path::Path;

use super::{command, duration, name, platform};
use crate::image::parse_reference;

/// A list of images: it is rejected with a message, or all its names are valid.
pub fn image_list(data: &[u8]) {
    match command::parse_list(data, Path::new("")) {
        Err(wrong) => assert!(!wrong.is_empty()),
        Ok(items) => {
            assert!(!items.is_empty());
            for tag in items.iter().flat_map(|item| &item.tags) {
                assert!(name::tag(tag).is_ok());
            }
        }
    }
}

/// References, tags, durations and platforms. References must be parsed as `oci-client` does.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let ours = parse_reference(text).map(|ours| ours.whole());
    let theirs = oci_client::Reference::try_from(text).ok().map(|theirs| theirs.whole());
    // oci-client accepts some names that we reject: `Foo` in `Foo/bar` and `a.b_c` in `a.b_c/d` as
    // hosts, non-ASCII letters in tags, and rare kinds of digests. We accept addresses in brackets,
    // which oci-client rejects.
    let host_has_underscore = text.split_once('/').is_some_and(|(host, _)| host.contains('_'));
    let is_known = theirs.is_some()
        && ours.is_none()
        && (text.contains(char::is_uppercase)
            || !text.is_ascii()
            || text.contains("sha384")
            || host_has_underscore);
    if ours != theirs && !is_known {
        assert!(theirs.is_none() && text.starts_with('['), "{ours:?} {theirs:?}");
    }
    if let Ok(parsed) = name::destination(text) {
        assert!(!parsed.repository().is_empty());
        assert!(parsed.tag().is_some() || parsed.digest().is_some());
        let again = name::destination(&parsed.whole()).expect("it was one");
        assert_eq!(again.whole(), parsed.whole());
    }
    let _ = name::reference(text);
    if let Ok(tag) = name::tag(text) {
        assert!((1..=128).contains(&tag.len()));
    }
    let _ = duration::duration(text);
    if let Ok(parsed) = platform::parse(text) {
        assert_eq!(platform::parse(&parsed.to_string()), Ok(parsed));
    }
}
