//! What can be wrong with a layer of a nix2container image.

use crate::image::{DiffId, Digest};

/// Why a layer cannot be made as the image's file describes it.
#[derive(Debug, thiserror::Error)]
pub enum LayerFault {
    /// The media type is not that of a tar, plain or compressed in a known way.
    #[error("its media type {0:?} is not one of a layer that can be pushed")]
    MediaType(String),
    /// The digest and the diff ID of a plain tar must be the same, but are not.
    #[error(
        "it is a plain tar, whose digest {digest} should be its diff ID, but that is {diff_id}"
    )]
    TwoDigests { digest: Digest, diff_id: DiffId },
    /// The file does not say what the layer is made of.
    #[error("it has neither `paths` nor a `layer-path`")]
    Nothing,
    /// A relative path, which would depend on the current folder, or a path that no file can have.
    #[error("its path {0:?} is not an absolute one of at most 4095 bytes")]
    NotAPath(String),
    /// An invalid regular expression.
    #[error("its regular expression {regex:?} is wrong: {what}")]
    Regex { regex: String, what: String },
    /// More regular expressions than the limit.
    #[error("its `perms` have more than {0} different regular expressions")]
    TooManyRegexes(usize),
    /// A mode that is not octal, or too large for a tar.
    #[error("its mode {0:?} is not one such as \"0755\"")]
    Mode(String),
    /// The name of a user or a group that a tar cannot hold.
    #[error("its user or group {0:?} holds a zero byte")]
    Owner(String),
    /// A rewrite whose result cannot be a file's name.
    #[error(
        "its rewrites make a name of {path:?} that is longer than 4095 bytes or has a zero byte"
    )]
    Rewritten { path: String },
    /// Two different files that would get the same name.
    #[error("{one:?} and {other:?} are both to become {name:?}, and differ in {what}")]
    Twice { name: String, one: String, other: String, what: &'static str },
    /// A device, a socket or a pipe.
    #[error("{0:?} is neither a file nor a directory nor a symlink")]
    Kind(String),
    /// More files in one folder than are held in memory.
    #[error("its files take more than {0} MiB of memory to be put in order")]
    TooManyFiles(usize),
}

/// The beginning of a text, short enough for a message.
pub fn excerpt(text: &str) -> String {
    const MOST: usize = 200;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
