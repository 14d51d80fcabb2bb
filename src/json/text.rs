//! Replaces bytes and escapes in JSON that are not characters.

use std::borrow::Cow;

/// The length of an escape such as `\ud83d`.
const ESCAPE: usize = 6;

/// The text of `bytes`. U+FFFD replaces each byte that is not UTF-8, and each `\u` escape of a
/// surrogate that is not part of a pair.
pub fn repaired(bytes: &[u8]) -> Cow<'_, str> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(utf8(bytes)),
    };
    match has_surrogates(&text) {
        true => Cow::Owned(without_lone_surrogates(&text)),
        false => text,
    }
}

fn utf8(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

fn has_surrogates(text: &str) -> bool {
    text.contains("\\ud") || text.contains("\\uD")
}

fn without_lone_surrogates(text: &str) -> String {
    let mut repaired = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        repaired.push_str(before);
        let pair = surrogate(escape).zip(escape.get(ESCAPE..).and_then(surrogate));
        let length = match (surrogate(escape), pair) {
            (None, _) => 1 + escape[1..].chars().next().map_or(0, char::len_utf8),
            (Some(_), Some((0xd800..0xdc00, 0xdc00..))) => 2 * ESCAPE,
            (Some(_), _) => {
                repaired.push_str("\\ufffd");
                rest = &escape[ESCAPE..];
                continue;
            }
        };
        repaired.push_str(&escape[..length]);
        rest = &escape[length..];
    }
    repaired + rest
}

/// The surrogate, if the text begins with the escape of one.
fn surrogate(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let unit = is_hex.then(|| u16::from_str_radix(digits, 16).ok())??;
    (0xd800..0xe000).contains(&unit).then_some(unit)
}
