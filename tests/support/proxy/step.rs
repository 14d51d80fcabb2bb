//! The steps of a push, as they look on the wire.

use super::super::registry::path::Resource;

/// Which of the proxy's listeners a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// The registry's address.
    Registry,
    /// The token server's.
    Token,
    /// A second address of the same registry, which is another realm: no credential of the first
    /// may arrive there.
    Foreign,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    Ping,
    ManifestHead,
    ManifestGet,
    ManifestPut,
    BlobHead,
    /// A blob GET; in a push it is the previous image's config.
    ConfigGet,
    /// Opens an upload session.
    UploadPost,
    /// The POST that carries `mount=`.
    MountPost,
    UploadPatch,
    UploadPut,
    /// Asks a session how many bytes it has.
    UploadStatus,
    UploadDelete,
    TokenGet,
    TokenPost,
    Other,
}

impl Step {
    /// Every step a fault may strike at.
    pub const ALL: [Self; 14] = [
        Self::Ping,
        Self::ManifestHead,
        Self::ManifestGet,
        Self::ManifestPut,
        Self::BlobHead,
        Self::ConfigGet,
        Self::UploadPost,
        Self::MountPost,
        Self::UploadPatch,
        Self::UploadPut,
        Self::UploadStatus,
        Self::UploadDelete,
        Self::TokenGet,
        Self::TokenPost,
    ];

    /// Tells a request's step from its method and path with query.
    pub fn of(origin: Origin, method: &str, target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if origin == Origin::Token || path == "/token" {
            return match method {
                "GET" => Self::TokenGet,
                "POST" => Self::TokenPost,
                _ => Self::Other,
            };
        }
        let Some(resource) = Resource::parse(path) else {
            return Self::Other;
        };
        match (resource, method) {
            (Resource::Base, _) => Self::Ping,
            (Resource::Manifest { .. }, "HEAD") => Self::ManifestHead,
            (Resource::Manifest { .. }, "GET") => Self::ManifestGet,
            (Resource::Manifest { .. }, "PUT") => Self::ManifestPut,
            (Resource::Blob { .. }, "HEAD") => Self::BlobHead,
            (Resource::Blob { .. }, "GET") => Self::ConfigGet,
            (Resource::Uploads { .. }, "POST") if query.contains("mount=") => Self::MountPost,
            (Resource::Uploads { .. }, "POST") => Self::UploadPost,
            (Resource::Upload { .. }, "PATCH") => Self::UploadPatch,
            (Resource::Upload { .. }, "PUT") => Self::UploadPut,
            (Resource::Upload { .. }, "GET" | "HEAD") => Self::UploadStatus,
            (Resource::Upload { .. }, "DELETE") => Self::UploadDelete,
            _ => Self::Other,
        }
    }

    /// Whether requests of this step carry a body.
    pub fn has_body(self) -> bool {
        matches!(self, Self::ManifestPut | Self::UploadPatch | Self::UploadPut | Self::TokenPost)
    }
}
