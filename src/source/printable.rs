//! Text from outside, made safe to print.

use std::path::Path;
use std::sync::Arc;

/// The text, with escapes for characters that could control a terminal or hide other text.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_harmful(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// A path as messages show it.
pub fn printable_path(path: &Path) -> Arc<str> {
    printable(&path.to_string_lossy()).into()
}

/// Whether this is a control character (Unicode's Cc), or one that is invisible or changes the
/// direction (most of Cf, the line and paragraph separators).
pub fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}
