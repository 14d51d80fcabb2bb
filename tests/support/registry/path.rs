//! Parses URL paths below `/v2/`. Repository names contain slashes, so a path is read from its end.

/// A resource of the distribution API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// `/v2/`
    Base,
    /// `/v2/<name>/manifests/<reference>`
    Manifest { name: String, reference: String },
    /// `/v2/<name>/blobs/<digest>`
    Blob { name: String, digest: String },
    /// `/v2/<name>/blobs/uploads/`
    Uploads { name: String },
    /// `/v2/<name>/blobs/uploads/<session>`
    Upload { name: String, session: String },
    /// `/v2/<name>/tags/list`
    Tags { name: String },
    /// `/v2/<name>/referrers/<digest>`
    Referrers { name: String, digest: String },
}

impl Resource {
    /// Reads a path; `None` where it names nothing the API has.
    pub fn parse(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("/v2")?;
        if rest.is_empty() || rest == "/" {
            return Some(Self::Base);
        }
        let rest = rest.strip_prefix('/')?;
        if let Some(name) =
            rest.strip_suffix("/blobs/uploads/").or_else(|| rest.strip_suffix("/blobs/uploads"))
        {
            return Some(Self::Uploads { name: name.to_owned() });
        }
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return Some(Self::Tags { name: name.to_owned() });
        }
        let (before, last) = rest.rsplit_once('/')?;
        let last = last.to_owned();
        let (name, kind) = before.rsplit_once('/')?;
        match kind {
            "manifests" => Some(Self::Manifest { name: name.to_owned(), reference: last }),
            "blobs" => Some(Self::Blob { name: name.to_owned(), digest: last }),
            "referrers" => Some(Self::Referrers { name: name.to_owned(), digest: last }),
            "uploads" => {
                Some(Self::Upload { name: name.strip_suffix("/blobs")?.to_owned(), session: last })
            }
            _ => None,
        }
    }

    /// The repository it belongs to.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Base => None,
            Self::Manifest { name, .. }
            | Self::Blob { name, .. }
            | Self::Uploads { name }
            | Self::Upload { name, .. }
            | Self::Tags { name }
            | Self::Referrers { name, .. } => Some(name),
        }
    }
}

/// Whether a repository name keeps to the grammar of the specification.
pub fn is_repository_name(name: &str) -> bool {
    name.len() <= 255
        && name.split('/').all(|part| {
            let bytes = part.as_bytes();
            let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            bytes.first().is_some_and(plain)
                && bytes.last().is_some_and(plain)
                && bytes.iter().all(|byte| plain(byte) || matches!(byte, b'.' | b'_' | b'-'))
        })
}

/// Whether a tag keeps to the grammar of the specification.
pub fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&tag.len())
        && word(tag.as_bytes()[0])
        && tag.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

/// Whether this is a sha256 digest, the one algorithm this registry keeps.
pub fn is_digest(digest: &str) -> bool {
    digest.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64
            && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}
