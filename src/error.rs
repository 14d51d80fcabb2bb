//! Why a push failed. The variants separate the causes that have different exit codes.

use std::sync::Arc;

use crate::{image, pack, registry, source, ssh};

/// A failed push.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The options contradict each other or the image.
    #[error("{0}")]
    Usage(String),
    /// The image cannot be read, or is not what it claims to be.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// A layer could not be packed.
    #[error("{image}: layer {entry:?}: {source}")]
    Pack {
        /// The image's file.
        image: String,
        /// The layer's name in the source.
        entry: String,
        /// Why.
        source: pack::Error,
    },
    /// Layers cannot be packed at all.
    #[error(transparent)]
    Packer(#[from] pack::Error),
    /// The manifest could not be made from the layers.
    #[error(transparent)]
    Manifest(#[from] image::ManifestError),
    /// The registry has no such image.
    #[error("the registry has no image {reference}\nhint: check the name and the tag")]
    NotInRegistry {
        /// The image that was asked for.
        reference: String,
    },
    /// The registry refused, or could not be reached.
    #[error(transparent)]
    Registry(Arc<registry::Error>),
    /// The image could not be sent to a machine over SSH.
    #[error(transparent)]
    Host(#[from] ssh::Error),
    /// A login could not be saved or removed.
    #[error(transparent)]
    Credentials(#[from] registry::auth::CredentialError),
    /// Some tags were set and others were not.
    #[error("{source}\nthe image is already there as {}", .put.join(", "))]
    SomeTags {
        /// The tags that point to the image now.
        put: Vec<String>,
        /// Why another tag could not be set.
        source: Box<Error>,
    },
    /// The registry refused to move a tag that points to another manifest.
    #[error("{source}\nthe tag {tag} still points to {digest}")]
    TagKept {
        /// The tag.
        tag: String,
        /// What it points to.
        digest: image::Digest,
        /// Why it was not moved.
        source: Arc<registry::Error>,
    },
    /// The registry rejects an image with a foreign (non-distributable) layer.
    #[error(
        "{source}\nlayer {digest} is a foreign (non-distributable) layer; this registry does not \
         take images with foreign layers\nhint: push to a registry that takes them, or build the \
         image without them"
    )]
    ForeignLayer {
        /// The layer's blob.
        digest: image::Digest,
        /// What the registry said.
        source: Box<Error>,
    },
    /// Another failure, which the text describes.
    #[error("{0}")]
    Failed(String),
    /// The push relied on wrong information and would have to read the image again. This is not
    /// possible, because the image came from a pipe.
    #[error("{0}\nhint: a pipe can be read only once; save the image to a file and push the file")]
    Unrepeatable(Box<Error>),
    /// The push was given up because another image of the same run failed.
    #[error("not pushed, as another image failed (--fail-fast)")]
    GivenUp,
    /// The user stopped the push.
    #[error("interrupted; {}", interrupted(*.tagging))]
    Interrupted {
        /// Whether the manifest was already being put.
        tagging: bool,
    },
}

fn interrupted(tagging: bool) -> &'static str {
    if tagging {
        "it was in its last step, so the tag may point to the new image or the old one"
    } else {
        "no tag was changed"
    }
}

impl Error {
    /// The message without its hints.
    pub(crate) fn headline(&self) -> String {
        self.to_string().lines().next().unwrap_or_default().to_owned()
    }

    /// The error of the registry or the network, if that caused the failure.
    pub(crate) fn registry(&self) -> Option<&registry::Error> {
        match self {
            Self::Registry(source) | Self::TagKept { source, .. } => Some(source),
            Self::SomeTags { source, .. }
            | Self::ForeignLayer { source, .. }
            | Self::Unrepeatable(source) => source.registry(),
            _ => None,
        }
    }
}

impl From<registry::Error> for Error {
    fn from(error: registry::Error) -> Self {
        Self::Registry(Arc::new(error))
    }
}

impl From<Arc<registry::Error>> for Error {
    fn from(error: Arc<registry::Error>) -> Self {
        Self::Registry(error)
    }
}

impl From<registry::auth::store::LoginError> for Error {
    fn from(error: registry::auth::store::LoginError) -> Self {
        match error {
            registry::auth::store::LoginError::Check(error) => error.into(),
            registry::auth::store::LoginError::Keep(error) => error.into(),
        }
    }
}
