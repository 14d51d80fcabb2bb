//! Formats text for the user: sizes, times, colours, and escaped text from elsewhere.

use std::borrow::Cow;
use std::fmt::Write;

use console::{Style, truncate_str};

use super::progress::ToSend;
use crate::source::is_harmful;

/// Escapes text from an image or a registry. Characters that move the cursor, change colours, or
/// hide or reorder text are shown as `\u{1b}`. All text from elsewhere must pass through here
/// before it is printed.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_harmful(c) {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "\\u{{{:x}}}", c as u32);
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// A number of bytes in decimal units with two or three digits: `512 B`, `1.2 MB`, `418 MB`.
pub fn size(bytes: u64) -> String {
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "";
    for next in ["kB", "MB", "GB", "TB", "PB", "EB"] {
        value /= 1000.0;
        unit = next;
        // A value that would be rounded to 1000 is shown as 1.0 of the next unit.
        if value < 999.5 {
            break;
        }
    }
    if value < 99.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// `440 MB`, or `440+ MB` if more may follow.
pub fn to_send(bytes: ToSend) -> String {
    match bytes {
        ToSend::Exactly(bytes) => size(bytes),
        ToSend::AtLeast(bytes) => size(bytes).replace(' ', "+ "),
    }
}

/// A duration; a longer one is shown less precisely: `0.9 s`, `2 min 05 s`, `1 h 02 min`.
pub fn time(seconds: f64) -> String {
    if seconds < 0.1 {
        return format!("{seconds:.2} s");
    }
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    whole_time(seconds)
}

/// Like [`time`], but without tenths of a second: `12 s`.
pub fn whole_time(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds:02} s"),
        (hours, minutes, _) => format!("{hours} h {minutes:02} min"),
    }
}

/// `1 layer`, `2 layers`.
pub fn layers(count: usize) -> String {
    counted(count, "layer")
}

/// `1 image`, `2 images`.
pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Shortens or pads `text`, which must be escaped already, to this many columns.
pub fn fit(text: &str, columns: usize) -> String {
    console::pad_str(&truncate_str(text, columns, "…"), columns, console::Alignment::Left, None)
        .into_owned()
}

/// Adds colours to text, if they are enabled.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    pub colours: bool,
}

impl Paint {
    /// The style of errors.
    pub fn bad(self, text: &str) -> String {
        self.apply(Style::new().red().bold(), text)
    }

    /// The style of warnings.
    pub fn doubtful(self, text: &str) -> String {
        self.apply(Style::new().yellow().bold(), text)
    }

    /// The style of hints.
    pub fn helpful(self, text: &str) -> String {
        self.apply(Style::new().cyan().bold(), text)
    }

    /// The style of successes.
    pub fn good(self, text: &str) -> String {
        self.apply(Style::new().green(), text)
    }

    /// The style of details.
    pub fn faint(self, text: &str) -> String {
        self.apply(Style::new().dim(), text)
    }

    fn apply(self, style: Style, text: &str) -> String {
        style.force_styling(self.colours).apply_to(text).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_or_three_digits_and_decimal_units() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (1_249_000, "1.2 MB"),
            (12_345_678, "12.3 MB"),
            (99_949_999, "99.9 MB"),
            (99_950_000, "100 MB"),
            (418_400_000, "418 MB"),
            (999_499_999, "999 MB"),
            (999_500_000, "1.0 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn times_are_as_precise_as_they_are_short() {
        for (seconds, text) in [
            (0.043, "0.04 s"),
            (0.92, "0.9 s"),
            (59.94, "59.9 s"),
            (59.96, "1 min 00 s"),
            (125.0, "2 min 05 s"),
            (3720.0, "1 h 02 min"),
        ] {
            assert_eq!(time(seconds), text);
        }
        assert_eq!(whole_time(12.4), "12 s");
    }

    #[test]
    fn nothing_in_a_name_reaches_the_terminal_as_a_command() {
        assert_eq!(escape("a\u{1b}[2Jb\r\n\t"), "a\\u{1b}[2Jb\\u{d}\\u{a}\\u{9}");
        assert_eq!(escape("x\u{202e}y\u{2066}z\u{200b}"), "x\\u{202e}y\\u{2066}z\\u{200b}");
        assert_eq!(escape("\u{9b}31m\u{7f}"), "\\u{9b}31m\\u{7f}");
        assert!(matches!(escape("glibc-2.38 ü 日本 \\u"), Cow::Borrowed(_)));
    }

    #[test]
    fn names_fill_their_columns_whatever_they_are_made_of() {
        assert_eq!(fit("glibc", 8), "glibc   ");
        assert_eq!(fit("glibc-2.38-180", 8), "glibc-2…");
        assert_eq!(console::measure_text_width(&fit("日本語日本語", 8)), 8);
    }

    #[test]
    fn without_colours_there_are_no_escape_codes() {
        assert_eq!(Paint { colours: false }.bad("x"), "x");
        assert!(Paint { colours: true }.bad("x").starts_with('\u{1b}'));
    }
}
