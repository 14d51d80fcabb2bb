//! Formats errors: what went wrong, why, and what to do.

use std::error::Error;

use super::text::{Paint, escape};

/// The label of the error that ends the program.
pub const ERROR: &str = "error:";

/// The beginning of a line in an error's message that says what to do.
const HINT: &str = "hint: ";

/// Formats an error and its causes as lines: the label and the error, `caused by: …` for each cause
/// with new information, and the hints at the end.
///
/// A message may have several lines. Lines that begin with `hint: ` are moved to the end; other
/// lines are indented below the first one.
pub fn lines(label: &str, error: &dyn Error, paint: Paint) -> Vec<String> {
    let mut lines = Vec::new();
    let mut hints: Vec<String> = Vec::new();
    let mut said = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        next = error.source();
        let message = error.to_string();
        // Many errors already contain the message of their cause.
        if !lines.is_empty() && said.contains(message.trim()) {
            continue;
        }
        let mut label = Some(paint.bad(if lines.is_empty() { label } else { "caused by:" }));
        for line in message.lines().filter(|line| !line.trim().is_empty()) {
            if let Some(hint) = line.trim_start().strip_prefix(HINT) {
                let hint = format!("{} {}", paint.helpful(HINT.trim_end()), escape(hint));
                if !hints.contains(&hint) {
                    hints.push(hint);
                }
                continue;
            }
            lines.push(match label.take() {
                Some(label) => format!("{label} {}", escape(line)),
                None => format!("  {}", escape(line.trim_start())),
            });
        }
        said += &message;
        said.push('\n');
    }
    lines.append(&mut hints);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Message(&'static str, Option<Box<Message>>);

    impl std::fmt::Display for Message {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Message {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as _)
        }
    }

    fn chain(messages: &[&'static str]) -> Vec<String> {
        let error = messages
            .iter()
            .rev()
            .fold(None, |cause, message| Some(Box::new(Message(message, cause))));
        lines(ERROR, &error.unwrap(), Paint { colours: false })
    }

    #[test]
    fn causes_follow_without_repetition_and_hints_come_last() {
        assert_eq!(
            chain(&[
                "PUT r.io/app: 403 denied\nhint: fly apps create app",
                "denied",
                "the socket\u{7} closed",
                "the socket\u{7} closed",
            ]),
            [
                "error: PUT r.io/app: 403 denied",
                "caused by: the socket\\u{7} closed",
                "hint: fly apps create app",
            ]
        );
    }

    #[test]
    fn a_list_stays_with_what_it_belongs_to() {
        assert_eq!(
            chain(&["several names:\n  a:1\n  b:2\nhint: name one"]),
            ["error: several names:", "  a:1", "  b:2", "hint: name one"]
        );
    }
}
