//! Why the image of a stream script cannot be read.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::image::ConfigError;
use crate::source::error::Error;

/// The image of a stream script, or of another program, that cannot be read. Names are safe to
/// print.
#[derive(Debug, thiserror::Error)]
pub enum NixStreamError {
    /// A script or program that may not be executed, and that is not one of Nix's wrappers.
    #[error(
        "{file} is {what}, but may not be executed, and is not what Nix's streamLayeredImage makes; \
         if it writes an image, make it executable: `chmod +x {file}`"
    )]
    NotExecutable { file: Arc<str>, what: &'static str },
    /// An executable that would have to be run.
    #[error(
        "{file} is a program that would have to be run to have its image, which --no-exec forbids \
         ({why}); leave --no-exec out, or run it and pipe its output into `pushimg - DEST`"
    )]
    MayNotRun { file: Arc<str>, why: String },
    /// An executable that cannot be run.
    #[error(
        "{file} cannot be run: {source}; was it built for this machine, and is there the interpreter \
         that its first line names?"
    )]
    CannotRun { file: Arc<str>, source: io::Error },
    /// An executable that failed while it wrote its image.
    #[error("{file} was run to have its image, and failed ({status}){said}")]
    ProgramFailed { file: Arc<str>, status: String, said: LastLines },
    /// An executable that does not write an image.
    #[error(
        "{file} was run to have its image, but wrote {what} to its standard output where a docker \
         archive should come; give what Nix's streamLayeredImage makes, or an archive"
    )]
    NoArchiveWritten { file: Arc<str>, what: &'static str },
    /// The conf of a streamed image cannot be used.
    #[error("{file}: {conf} does not say what the image is made of: {what}; build the image again")]
    BadConf { file: Arc<str>, conf: Arc<str>, what: String },
    /// A file that a streamed image is made of is missing.
    #[error(
        "{file} needs {path}, which is not there (did the Nix store collect its garbage?); fetch or \
         build it with `nix-store --realise {path}`, or build the image again"
    )]
    NotInStore { file: Arc<str>, path: Arc<str> },
    /// The prebuilt layer's checksum file is not a SHA-256 digest.
    #[error("{path} does not hold the SHA-256 digest of a layer; build the image again")]
    BadChecksum { path: Arc<str> },
    /// A base image that cannot be built upon.
    #[error("{base}, on which the image is built, cannot be read: {what}; build it again")]
    BadBase { base: Arc<str>, what: String },
    /// A base image whose layers have names that only Python knows how to print.
    #[error(
        "{file}: its base image has layers with unusual names; run it and pipe its output into \
         `pushimg - DEST`"
    )]
    UnusualBase { file: Arc<str> },
    /// A device, a pipe or a socket, which cannot be part of a layer.
    #[error("{path} is neither a file nor a folder nor a symlink; build what holds it without it")]
    NotStorable { path: Arc<str> },
    /// More files in one layer than the limit.
    #[error(
        "a layer holds more than {limit} files; build the image with more layers (`maxLayers`), or \
         run it and pipe its output into `pushimg - DEST`"
    )]
    TooManyFiles { limit: usize },
    /// The config that was made for the image cannot be used.
    #[error("{file}: config to be made: {source}; build the image again")]
    BadConfig { file: Arc<str>, source: ConfigError },
}

impl From<NixStreamError> for Error {
    fn from(error: NixStreamError) -> Self {
        Self::image(error)
    }
}

/// The last lines that a program wrote to stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastLines(pub Vec<String>);

impl fmt::Display for LastLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str(" without a word on its standard error; run it by itself");
        }
        f.write_str("; the last that it said:")?;
        self.0.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}
