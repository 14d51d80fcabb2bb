//! Why an image cannot be read. The variants correspond to exit codes.
//!
//! Each kind of source has an error enum of its own, in its own folder. Here they are only wrapped,
//! so that this file depends on none of them. Each message names the file, what is wrong with it,
//! and what to do.

use std::error::Error as StdError;
use std::io;

use super::file::FileError;

/// An image that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image is sound, but the user must choose one of several, or has chosen one that the
    /// source does not have.
    #[error(transparent)]
    Choice(Box<dyn StdError + Send + Sync>),
    /// The image cannot be read, or is not what it claims to be.
    #[error(transparent)]
    Image(Box<dyn StdError + Send + Sync>),
    /// This machine lacks something, such as room on a disk.
    #[error(transparent)]
    Machine(Box<dyn StdError + Send + Sync>),
}

impl Error {
    /// Wraps the error of one kind of source.
    pub(crate) fn image(cause: impl StdError + Send + Sync + 'static) -> Self {
        Self::Image(Box::new(cause))
    }

    /// The error behind a failed read of a layer's content.
    ///
    /// Such a read fails with an [`io::Error`] that contains an [`Error`]. If it contains none,
    /// `entry` names the layer in the message.
    pub fn from_read(error: io::Error, entry: &str) -> Self {
        match error.downcast::<Self>() {
            Ok(ours) => ours,
            Err(source) => FileError::Read { file: entry.into(), at: 0, source }.into(),
        }
    }
}

impl From<FileError> for Error {
    fn from(error: FileError) -> Self {
        Self::image(error)
    }
}
