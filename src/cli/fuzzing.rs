//! The fuzz target for what people type.

use super::name;

/// References, tags and durations.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
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
