//! Image manifests and indexes (OCI image-spec 1.1; Docker schema 2): read from a registry, and
//! written in a form that depends on nothing but what they list.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use oci_client::manifest::{OciDescriptor, OciImageIndex, OciImageManifest};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::{Blob, Compression, Config, Digest, Format};

/// A manifest or an index, made for an image or stored as such: the exact bytes to put, and their
/// digest.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// What a registry is told that it is.
    pub media_type: String,
    /// The JSON.
    pub bytes: Bytes,
    /// The digest of the JSON, by which the image is known from then on.
    pub digest: Digest,
}

/// What a manifest in a registry turned out to be.
#[derive(Debug)]
pub enum Listed {
    /// One image: the config's digest and size, and the layers' descriptors.
    Image(Box<OciImageManifest>),
    /// An index: one manifest a platform.
    Index(Vec<(Digest, Platform)>),
}

/// Why no manifest could be read or made.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A layer is compressed in a way that the format has no media type for.
    #[error(
        "layer {digest} is {compression}-compressed, which a {format} manifest cannot say; \
         use --format oci"
    )]
    Unsayable {
        /// The layer's blob.
        digest: Digest,
        /// Its compression.
        compression: Compression,
        /// The format asked for.
        format: Format,
    },
    /// Not JSON, or not a manifest.
    #[error("not an image manifest: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// What an image runs on, as its config or an index says.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`, `windows`, …
    #[serde(default)]
    pub os: String,
    /// Go's name for it: `amd64`, `arm64`, …
    #[serde(default)]
    pub architecture: String,
    /// `v7`, `v8`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Manifest {
    /// The manifest of an image with these layers, lowest first.
    pub fn of(config: &Config, layers: &[Blob], format: Format) -> Result<Self, ManifestError> {
        let layers = layers
            .iter()
            .map(|blob| {
                let media_type = blob.compression.media_type(format).ok_or_else(|| {
                    ManifestError::Unsayable {
                        digest: blob.digest.clone(),
                        compression: blob.compression,
                        format,
                    }
                })?;
                Ok(descriptor(media_type, &blob.digest, blob.size))
            })
            .collect::<Result<Vec<_>, ManifestError>>()?;
        let manifest = OciImageManifest {
            schema_version: 2,
            media_type: Some(format.manifest_media_type().to_owned()),
            config: descriptor(
                format.config_media_type(),
                config.digest(),
                config.bytes().len() as u64,
            ),
            layers,
            subject: None,
            artifact_type: None,
            annotations: None,
        };
        let bytes = Bytes::from(serde_json::to_vec(&manifest)?);
        Ok(Self::stored(format.manifest_media_type().to_owned(), bytes))
    }

    /// What is stored somewhere as a manifest or an index of this media type.
    pub fn stored(media_type: String, bytes: Bytes) -> Self {
        Self { media_type, digest: Digest::of(&bytes), bytes }
    }

    /// Docker's or OCI's; what is neither was made for registries that take what OCI describes.
    pub fn format(&self) -> Format {
        match self.media_type.starts_with("application/vnd.docker.") {
            true => Format::Docker,
            false => Format::Oci,
        }
    }
}

impl Listed {
    /// Reads what a registry answered to a manifest request.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        // `OciManifest` would find out too, but holds all fields in memory meanwhile, known or not.
        #[derive(Deserialize)]
        struct Shape {
            manifests: Option<IgnoredAny>,
            layers: Option<IgnoredAny>,
        }
        let shape: Shape = serde_json::from_slice(bytes)?;
        if shape.layers.is_some() || shape.manifests.is_none() {
            return Ok(Self::Image(serde_json::from_slice(bytes)?));
        }
        let index: OciImageIndex = serde_json::from_slice(bytes)?;
        Ok(Self::Index(
            index
                .manifests
                .into_iter()
                .filter_map(|entry| {
                    let platform = entry.platform?;
                    let platform = Platform {
                        os: platform.os.to_string(),
                        architecture: platform.architecture.to_string(),
                        variant: platform.variant,
                    };
                    Some((entry.digest.parse().ok()?, platform))
                })
                .collect(),
        ))
    }
}

impl Platform {
    /// Whether an image for `self` is what a machine of `other` would pick: the variant counts
    /// only where both name one.
    pub fn matches(&self, other: &Self) -> bool {
        self.os == other.os
            && self.architecture == other.architecture
            && (self.variant == other.variant || self.variant.is_none() || other.variant.is_none())
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

fn descriptor(media_type: &str, digest: &Digest, size: u64) -> OciDescriptor {
    OciDescriptor {
        media_type: media_type.to_owned(),
        digest: digest.to_string(),
        // A blob of 2^63 bytes fits on no disk.
        size: i64::try_from(size).unwrap_or(i64::MAX),
        urls: None,
        annotations: None::<BTreeMap<_, _>>,
        artifact_type: None,
    }
}
