//! The `Range` header of a request for a blob (RFC 9110, section 14.2): one range of bytes.

/// The part of a blob that was requested.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// The whole blob. It is also used for anything but a single range, because a server may ignore
    /// the header.
    Whole,
    /// The bytes from the first position up to, but not including, the second.
    Part(u64, u64),
    /// A part outside the blob.
    Beyond,
}

impl Asked {
    /// Reads the header's value, for a blob of `size` bytes.
    pub fn parse(header: &str, size: u64) -> Self {
        let Some((unit, set)) = header.split_once('=') else { return Self::Whole };
        let set = set.trim();
        if !unit.trim().eq_ignore_ascii_case("bytes") || set.contains(',') {
            return Self::Whole;
        }
        let Some((first, last)) = set.split_once('-') else { return Self::Whole };
        match (number(first), number(last)) {
            (Some(None), Some(Some(suffix))) => match suffix.min(size) {
                0 => Self::Beyond,
                suffix => Self::Part(size - suffix, size),
            },
            (Some(Some(first)), Some(last)) => {
                let end = last.map_or(size, |last| last.saturating_add(1).min(size));
                match last.is_some_and(|last| last < first) {
                    true => Self::Whole,
                    false if first >= size => Self::Beyond,
                    false => Self::Part(first, end),
                }
            }
            _ => Self::Whole,
        }
    }
}

/// A number of digits; `Some(None)` for an empty text. A number that does not fit in 64 bits
/// becomes the greatest one.
fn number(text: &str) -> Option<Option<u64>> {
    let text = text.trim();
    match text {
        "" => Some(None),
        _ if text.bytes().all(|b| b.is_ascii_digit()) => {
            Some(Some(text.parse().unwrap_or(u64::MAX)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_of_bytes_is_understood_and_all_else_is_the_whole_blob() {
        use Asked::{Beyond, Part, Whole};
        for (header, asked) in [
            ("bytes=0-0", Part(0, 1)),
            ("bytes=2-", Part(2, 10)),
            ("Bytes= 2 - 4 ", Part(2, 5)),
            ("bytes=2-400", Part(2, 10)),
            ("bytes=-3", Part(7, 10)),
            ("bytes=-300", Part(0, 10)),
            ("bytes=9-18446744073709551615", Part(9, 10)),
            ("bytes=0-99999999999999999999999", Part(0, 10)),
            ("bytes=10-", Beyond),
            ("bytes=99999999999999999999999-", Beyond),
            ("bytes=-0", Beyond),
            ("bytes=4-2", Whole),
            ("bytes=0-1,3-4", Whole),
            ("bytes=-", Whole),
            ("bytes=+1-2", Whole),
            ("lines=0-1", Whole),
            ("bytes", Whole),
            ("", Whole),
        ] {
            assert_eq!(Asked::parse(header, 10), asked, "{header}");
        }
        assert_eq!(Asked::parse("bytes=0-", 0), Beyond);
    }
}
