//! Exit codes, and the mapping from errors to them.

use std::process::ExitCode;

use crate::Error;
use crate::image::ManifestError;
use crate::{pack, registry, source};

/// The exit codes; `--help` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Success.
    Pushed = 0,
    /// Any other failure, such as a full disk.
    Failed = 1,
    /// The command line is wrong, or does not fit the image.
    Usage = 2,
    /// The image cannot be read, or is not what it claims to be.
    Image = 3,
    /// The registry refused: wrong credentials, missing permission, or a missing repository.
    Refused = 4,
    /// The network or the registry failed, after retries.
    Network = 5,
    /// Stopped by a signal; shells report 128 + SIGINT for Ctrl-C.
    Interrupted = 130,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

impl Error {
    /// The exit code of a command that failed with this error.
    pub fn exit_code(&self) -> Code {
        match self {
            Self::Usage(_) | Self::Manifest(ManifestError::Unsayable { .. }) => Code::Usage,
            // The image is valid, but the user must choose one of several, or another one.
            Self::Source(source::Error::Choice(_)) => Code::Usage,
            Self::Source(source::Error::Image(_)) => Code::Image,
            Self::Source(source::Error::Machine(_)) => Code::Failed,
            Self::NotInRegistry { .. } => Code::Refused,
            Self::Registry(error) | Self::TagKept { source: error, .. } => match &**error {
                registry::Error::Settings(_) => Code::Usage,
                // The spooled bytes cannot be read again. This is a disk problem, not a network
                // problem.
                registry::Error::Content { .. } => Code::Failed,
                error if error.is_refusal() => Code::Refused,
                _ => Code::Network,
            },
            Self::Host(error) => match error {
                crate::ssh::Error::Connection { .. } => Code::Network,
                error if error.is_refusal() => Code::Refused,
                _ => Code::Failed,
            },
            Self::Pack {
                source:
                    pack::Error::Damaged { .. }
                    | pack::Error::WindowTooLarge { .. }
                    | pack::Error::Unsayable(_),
                ..
            } => Code::Image,
            Self::Pack { .. }
            | Self::Packer(_)
            | Self::Manifest(_)
            | Self::Failed(_)
            | Self::Credentials(_)
            | Self::GivenUp => Code::Failed,
            Self::ForeignLayer { .. } => Code::Refused,
            Self::SomeTags { source: error, .. } | Self::Unrepeatable(error) => error.exit_code(),
            Self::Interrupted { .. } => Code::Interrupted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Compression, Digest, Format};

    #[test]
    fn every_kind_of_failure_has_its_documented_code() {
        let malformed = crate::json::from_slice::<u8>(b"{").unwrap_err();
        let unsayable = ManifestError::Unsayable {
            digest: Digest::of(b""),
            compression: Compression::Zstd,
            format: Format::Docker,
        };
        let several = source::Error::Choice("several images".into());
        for (error, code) in [
            (several.into(), 2),
            (source::Error::Image("no such file".into()).into(), 3),
            (Error::Usage(String::new()), 2),
            (Error::Manifest(unsayable), 2),
            (Error::Manifest(ManifestError::Malformed(malformed)), 1),
            (Error::Failed(String::new()), 1),
            (registry::Error::Content { doing: String::new(), reason: String::new() }.into(), 1),
            (registry::Error::Settings(String::new()).into(), 2),
            (registry::Error::Protocol { doing: String::new(), problem: String::new() }.into(), 5),
            (Error::Interrupted { tagging: false }, 130),
        ] {
            assert_eq!(error.exit_code() as u8, code, "{error:?}");
        }
        assert_eq!(Code::Pushed as u8, 0);
        assert_eq!(Code::Image as u8, 3);
        assert_eq!(Code::Refused as u8, 4);
        assert_eq!(Code::Network as u8, 5);
    }
}
