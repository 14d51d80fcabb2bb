//! Errors about JSON, as text for users.

use std::fmt;

/// How much of a key an error shows.
const SHOWN: usize = 60;

/// Bytes that are not JSON, or not the JSON that was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not JSON.
    #[error("it is not JSON: {what} at line {line}, column {column}")]
    Syntax {
        /// What is wrong there.
        what: &'static str,
        /// The line, from 1.
        line: usize,
        /// The column in bytes.
        column: usize,
    },
    /// It is JSON, but a value is missing or is not the expected one.
    #[error("{} {fault}", ValueName(.path))]
    Value {
        /// The path of the value: names of fields with `.` between them, `[2]` for the third of a
        /// list.
        path: String,
        /// What is wrong with it, beginning with a verb.
        fault: String,
    },
}

/// Shows a value's path as the subject of the message's sentence.
struct ValueName<'a>(&'a str);

impl fmt::Display for ValueName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => f.write_str("it"),
            path => write!(f, "`{path}`"),
        }
    }
}

impl Error {
    pub(super) fn new(fault: String) -> Self {
        Self::Value { path: String::new(), fault }
    }

    pub(super) fn syntax(error: &serde_json::Error) -> Self {
        let what = match error.is_eof() {
            true => "it ends too early",
            false => "there is something unexpected",
        };
        Self::Syntax { what, line: error.line(), column: error.column() }
    }

    /// The error for a value that serde_json rejects although its syntax is right.
    pub(super) fn unread(error: impl fmt::Display) -> Self {
        Self::new(format!("cannot be read: {error}"))
    }

    pub(super) fn within_field(self, name: &str) -> Self {
        self.within(name.to_owned())
    }

    pub(super) fn within_list(self, index: usize) -> Self {
        self.within(format!("[{index}]"))
    }

    pub(super) fn within_key(self, key: &str) -> Self {
        self.within(format!("[{:?}]", key.chars().take(SHOWN).collect::<String>()))
    }

    fn within(self, outer: String) -> Self {
        match self {
            Self::Value { path, fault } => {
                let point = if path.is_empty() || path.starts_with('[') { "" } else { "." };
                Self::Value { path: format!("{outer}{point}{path}"), fault }
            }
            syntax @ Self::Syntax { .. } => syntax,
        }
    }
}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(format!("is wrong: {message}"))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new("is missing".to_owned()).within_field(field)
    }
}
