//! The fuzz target for what people type.

use oci_client::Reference;

use super::name;
use crate::image::parse_reference;

/// References, tags and durations. References are what `oci-client` takes them for.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (ours, theirs) = (parse_reference(text), Reference::try_from(text).ok());
    // Theirs takes the `Foo` of `Foo/bar` and the `a.b_c` of `a.b_c/d` for hosts, any letter for
    // one of a tag, and digests that nobody uses; ours takes addresses in brackets.
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
    let _ = name::duration(text);
}
