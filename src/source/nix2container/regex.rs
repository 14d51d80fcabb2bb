//! Regular expressions in Go's syntax (RE2, pkg.go.dev/regexp/syntax). The `regex` crate reads most of
//! it in the same way; the rest is translated.

use ::regex::bytes::{Captures, Regex, RegexBuilder};

/// The most memory that one expression may take, compiled and while it searches. Those that name
/// store paths take a few kilobytes.
const MAX_BYTES: usize = 256 << 10;

/// Compiles an expression. The error is one line of text.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    let compiled = RegexBuilder::new(&translated(pattern))
        .octal(true)
        .size_limit(MAX_BYTES)
        .dfa_size_limit(MAX_BYTES)
        .build();
    compiled.map_err(|error| match error {
        ::regex::Error::CompiledTooBig(_) => {
            format!("it takes more than {} KiB of memory", MAX_BYTES >> 10)
        }
        // The crate's error has several lines; the last one says what is wrong.
        error => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default().trim();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        }
    })
}

/// Replaces every match as Go's `ReplaceAll` does.
pub fn replace_all(regex: &Regex, text: &[u8], replacement: &str) -> Vec<u8> {
    let expanded = |captures: &Captures<'_>| expand(replacement, captures);
    regex.replace_all(text, expanded).into_owned()
}

/// The expression in the crate's syntax.
fn translated(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    let mut in_class = false;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        rest = match c {
            '\\' => escaped(after, in_class, &mut out),
            '[' if in_class => match after.strip_prefix(':').and_then(|name| name.find(":]")) {
                // A class by its name, such as `[:alpha:]`.
                Some(end) => {
                    let (class, after) = rest.split_at("[:".len() + end + ":]".len());
                    out.push_str(class);
                    after
                }
                // The crate allows a class within a class. In Go it is a bracket.
                None => {
                    out.push_str("\\[");
                    after
                }
            },
            '[' => {
                in_class = true;
                out.push('[');
                let mut after = after;
                if let Some(rest) = after.strip_prefix('^') {
                    out.push('^');
                    after = rest;
                }
                // A `]` that comes first does not end the class.
                if let Some(rest) = after.strip_prefix(']') {
                    out.push_str("\\]");
                    after = rest;
                }
                after
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
                after
            }
            // In the crate, two of these characters are an operator on classes.
            '&' | '~' if in_class => {
                out.extend(['\\', c]);
                after
            }
            '{' if !in_class && !is_repetition(after) => {
                out.push_str("\\{");
                after
            }
            _ => {
                out.push(c);
                after
            }
        };
    }
    out
}

/// Translates a backslash and the characters that belong to it. Returns the rest.
fn escaped<'a>(after: &'a str, in_class: bool, out: &mut String) -> &'a str {
    let Some(c) = after.chars().next() else {
        out.push('\\');
        return after;
    };
    let rest = &after[c.len_utf8()..];
    match c {
        'Q' if !in_class => {
            let (literal, rest) = rest.split_once("\\E").unwrap_or((rest, ""));
            out.push_str(&::regex::escape(literal));
            return rest;
        }
        // In Go these are ASCII only.
        'd' => out.push_str("[0-9]"),
        'D' => out.push_str("[^0-9]"),
        's' => out.push_str(r"[\t\n\f\r ]"),
        'S' => out.push_str(r"[^\t\n\f\r ]"),
        'w' => out.push_str("[0-9A-Za-z_]"),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        'b' if !in_class => out.push_str(r"(?-u:\b)"),
        'B' if !in_class => out.push_str(r"(?-u:\B)"),
        c if c.is_ascii_punctuation() || c == ' ' => {
            // Only in the crate, `\<` and `\>` have a meaning of their own.
            out.push_str(&::regex::escape(c.encode_utf8(&mut [0; 4])));
        }
        c => out.extend(['\\', c]),
    }
    // The braces in `\pN`, `\p{Greek}` and `\x{10FFFF}` are not a repetition.
    match (c, rest.strip_prefix('{').and_then(|braced| braced.find('}'))) {
        ('p' | 'P' | 'x', Some(end)) => {
            let (braced, rest) = rest.split_at("{".len() + end + "}".len());
            out.push_str(braced);
            rest
        }
        _ => rest,
    }
}

/// Whether a repetition follows the brace: `3}`, `3,}` or `3,5}`.
fn is_repetition(after: &str) -> bool {
    let Some((inside, _)) = after.split_once('}') else {
        return false;
    };
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match inside.split_once(',') {
        None => number(inside),
        Some((least, most)) => number(least) && (most.is_empty() || number(most)),
    }
}

/// Fills in `$1`, `${1}`, `$name` and `$$` in the replacement. Any other `$` is a plain character.
fn expand(replacement: &str, captures: &Captures<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(replacement.len());
    let mut rest = replacement;
    while let Some((before, after)) = rest.split_once('$') {
        out.extend(before.as_bytes());
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            out.push(b'$');
            rest = after;
            continue;
        }
        match group_name(rest) {
            Some((name, after)) => {
                out.extend(group(name, captures));
                rest = after;
            }
            None => out.push(b'$'),
        }
    }
    out.extend(rest.as_bytes());
    out
}

/// The longest name that follows a `$`, and the text after it.
fn group_name(text: &str) -> Option<(&str, &str)> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let braced = text.strip_prefix('{');
    let text = braced.unwrap_or(text);
    let (name, rest) = text.split_at(text.find(|c| !is_name(c)).unwrap_or(text.len()));
    let rest = if braced.is_some() { rest.strip_prefix('}')? } else { rest };
    (!name.is_empty()).then_some((name, rest))
}

/// The text that a group matched; empty if there is no such group. A number with a leading zero is
/// a name.
fn group<'a>(name: &str, captures: &'a Captures<'_>) -> &'a [u8] {
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit())
        && (name.len() == 1 || !name.starts_with('0'));
    let found = match name.parse() {
        Ok(number) if is_number => captures.get(number),
        _ => captures.name(name),
    };
    found.map_or(b"", |found| found.as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_expression_that_is_wrong_is_told_in_one_line() {
        for (regex, told) in [
            ("(a", "unclosed group"),
            ("*a", "repetition operator missing expression"),
            ("[a", "unclosed character class"),
            (r"\8", ""),
            (r"a{1000}{1000}", "it takes more than 256 KiB of memory"),
        ] {
            let error = compile(regex).unwrap_err();
            assert!(error.contains(told) && !error.contains('\n'), "{regex}: {error:?}");
        }
    }

    proptest! {
        #[test]
        fn no_expression_and_no_replacement_is_a_crash(
            regex in r"[\\a-e\[\]{}()^$.*+?|,:&~0-9pPxQEdbW<> -]{0,24}",
            replacement in "[$a-c0-3{}_]{0,12}",
            text in "[a-e0-9/]{0,12}",
        ) {
            if let Ok(regex) = compile(&regex) {
                replace_all(&regex, text.as_bytes(), &replacement);
            }
        }

        #[test]
        fn a_quoted_text_matches_itself(text in r"[ -~é]{1,20}") {
            prop_assume!(!text.contains("\\E"));
            let regex = compile(&format!(r"^\Q{text}\E$")).unwrap();
            prop_assert!(regex.is_match(text.as_bytes()));
        }
    }
}
