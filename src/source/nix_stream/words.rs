//! Splits a shell command into words. It supports the quotes that Nix's wrappers use.
//!
//! Input: a command. Output: its words, each as it is written, and its value if that can be known
//! without a shell.

/// A word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// As it is written.
    pub raw: String,
    /// Its value; `None` if that depends on variables, files or commands.
    pub text: Option<String>,
}

/// The words of a command without its newline; `None` if a quote is not closed.
pub fn words(command: &str) -> Option<Vec<Word>> {
    let mut words = Vec::new();
    let mut rest = command.chars().peekable();
    loop {
        while rest.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        if rest.peek().is_none() {
            return Some(words);
        }
        let (mut raw, mut text, mut is_plain) = (String::new(), String::new(), true);
        while let Some(c) = rest.next_if(|c| !c.is_ascii_whitespace()) {
            raw.push(c);
            match c {
                '\'' => loop {
                    let c = rest.next()?;
                    raw.push(c);
                    if c == '\'' {
                        break;
                    }
                    text.push(c);
                },
                '"' => loop {
                    let c = rest.next()?;
                    raw.push(c);
                    match c {
                        '"' => break,
                        '\\' => {
                            let c = rest.next()?;
                            raw.push(c);
                            if !matches!(c, '"' | '\\' | '$' | '`') {
                                text.push('\\');
                            }
                            text.push(c);
                        }
                        '$' | '`' => is_plain = false,
                        _ => text.push(c),
                    }
                },
                '\\' => {
                    let c = rest.next()?;
                    raw.push(c);
                    text.push(c);
                }
                'a'..='z'
                | 'A'..='Z'
                | '0'..='9'
                | '/'
                | '.'
                | '-'
                | '_'
                | '+'
                | '='
                | ':'
                | ','
                | '@'
                | '%' => text.push(c),
                // Any other character may have a special meaning in a shell.
                _ => is_plain = false,
            }
        }
        words.push(Word { raw, text: is_plain.then_some(text) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_a_shell() {
        let texts = |command| -> Option<Vec<Option<String>>> {
            Some(words(command)?.into_iter().map(|word| word.text).collect())
        };
        let plain = |texts: &[&str]| {
            Some(texts.iter().map(|text| Some((*text).to_owned())).collect::<Vec<_>>())
        };
        assert_eq!(texts("  "), plain(&[]));
        assert_eq!(texts("exec /a/b-1.2_c+d  e"), plain(&["exec", "/a/b-1.2_c+d", "e"]));
        assert_eq!(texts(r#""a b" 'c "d' e"f"'g' """#), plain(&["a b", "c \"d", "efg", ""]));
        assert_eq!(texts(r#"'a'\''b' "a\"b\\c\d" \ x"#), plain(&["a'b", r#"a"b\c\d"#, " x"]));
        for open in ["'a", "\"a", "\"a\\", "a\\"] {
            assert_eq!(words(open), None, "{open}");
        }
        for unclear in ["$a", "\"$a\"", "`a`", "a*", "~", "{a,b}", "a;", "&", "#a", "(a)", "é"] {
            let words = words(unclear).unwrap();
            assert_eq!(words, [Word { raw: unclear.to_owned(), text: None }]);
        }
        assert_eq!(words("x \"$@\"").unwrap()[1].raw, "\"$@\"");
    }
}
