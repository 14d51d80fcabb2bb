//! Why an image is run, or not taken at all, in place of being read.

use crate::source::error::Error;

/// Why an image is not read.
pub enum Refusal {
    /// Some part of it is not known: it has to be run.
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
