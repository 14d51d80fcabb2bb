//! Why an image cannot be read without running its program.

use crate::source::error::Error;

/// Why an image cannot be read.
pub enum Refusal {
    /// Some part of it is unknown, so its program must be run.
    Unknown(String),
    /// It is broken, and running it would not help.
    Broken(Error),
}

impl Refusal {
    pub fn unknown(why: impl Into<String>) -> Self {
        Self::Unknown(why.into())
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}
