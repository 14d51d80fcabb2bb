//! Image manifests and indexes (OCI image-spec 1.1; Docker schema 2): read from a registry, and
//! written. The same content always gives the same bytes.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use oci_client::manifest::{self, OciDescriptor, OciImageIndex, OciImageManifest};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::config::Config;
use super::digest::Digest;
use super::layer::{Blob, LayerKey};
use super::media::{Compression, Format};
use crate::json;

/// A manifest or an index: the exact bytes to put, and their digest.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Its media type.
    pub media_type: String,
    /// The JSON.
    pub bytes: Bytes,
    /// The digest of the JSON. It identifies the image in the registry.
    pub digest: Digest,
}

/// The annotation of a layer's descriptor that gives the layer's diff ID. containerd and BuildKit
/// use it, too.
pub const DIFF_ID_ANNOTATION: &str = "containerd.io/uncompressed";

/// The annotation of a layer's descriptor that contains the layer's [`LayerKey`].
pub const KEY_ANNOTATION: &str = "io.github.pushimg.layer-key";

/// An image as an index lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IndexEntry {
    /// The manifest's media type.
    #[serde(rename = "mediaType")]
    pub media_type: String,
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest's length in bytes.
    pub size: u64,
    /// The platform that the image runs on.
    pub platform: Platform,
}

impl IndexEntry {
    /// The entry for a manifest.
    pub fn of(manifest: &Manifest, platform: &Platform) -> Self {
        Self {
            media_type: manifest.media_type.clone(),
            digest: manifest.digest.clone(),
            size: manifest.bytes.len() as u64,
            platform: platform.clone(),
        }
    }
}

#[derive(Serialize)]
struct IndexJson<'a> {
    #[serde(rename = "schemaVersion")]
    schema_version: u8,
    #[serde(rename = "mediaType")]
    media_type: &'a str,
    manifests: Vec<IndexEntry>,
}

/// A layer as a manifest lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestLayer {
    /// Its blob.
    pub blob: Blob,
    /// The key of the files that it was made of, if known. Only OCI manifests can contain it.
    pub key: Option<LayerKey>,
}

/// A manifest from a registry: the manifest of one image, or an index.
#[derive(Debug)]
pub enum Listed {
    /// One image: the config's digest and size, and the layers' descriptors.
    Image(Box<OciImageManifest>),
    /// An index: one manifest for each platform.
    Index(Vec<(Digest, Platform)>),
}

/// Why a manifest could not be read or made.
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
    Malformed(#[from] json::Error),
}

/// The platform that an image runs on, according to its config or to an index.
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
    /// The manifest of an image with these layers, lowest first, as many as the config has diff
    /// IDs. An OCI manifest contains the diff IDs, so that the next push need not read the config.
    pub fn of(
        config: &Config,
        layers: &[ManifestLayer],
        format: Format,
    ) -> Result<Self, ManifestError> {
        let layers = layers
            .iter()
            .zip(config.diff_ids())
            .map(|(ManifestLayer { blob, key }, diff_id)| {
                let media_type = blob.compression.media_type(format).ok_or_else(|| {
                    ManifestError::Unsayable {
                        digest: blob.digest.clone(),
                        compression: blob.compression,
                        format,
                    }
                })?;
                let mut layer = descriptor(media_type, &blob.digest, blob.size);
                if format == Format::Oci {
                    let diff_id = (DIFF_ID_ANNOTATION.to_owned(), diff_id.to_string());
                    let key =
                        key.as_ref().map(|key| (KEY_ANNOTATION.to_owned(), key.0.to_string()));
                    layer.annotations = Some([diff_id].into_iter().chain(key).collect());
                }
                Ok(layer)
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
        let bytes = written(&manifest);
        Ok(Self::stored(format.manifest_media_type(), bytes))
    }

    /// A manifest that exists already.
    pub fn stored(media_type: &str, bytes: Bytes) -> Self {
        Self { media_type: media_type.to_owned(), digest: Digest::of(&bytes), bytes }
    }

    /// An index of these manifests (OCI image-spec 1.1, "Image Index"), sorted by platform. It is a
    /// Docker manifest list if all of them are Docker manifests.
    pub fn index(mut entries: Vec<IndexEntry>) -> Result<Self, ManifestError> {
        entries.sort_by(|a, b| a.platform.cmp(&b.platform));
        let docker = Format::Docker.manifest_media_type();
        let media_type = match entries.iter().all(|entry| entry.media_type == docker) {
            true => manifest::IMAGE_MANIFEST_LIST_MEDIA_TYPE,
            false => manifest::OCI_IMAGE_INDEX_MEDIA_TYPE,
        };
        let index = IndexJson { schema_version: 2, media_type, manifests: entries };
        Ok(Self::stored(media_type, written(&index)))
    }

    /// Whether this is a Docker or an OCI image manifest; `None` for an index and for any other
    /// media type.
    pub fn format(&self) -> Option<Format> {
        [Format::Docker, Format::Oci]
            .into_iter()
            .find(|format| format.manifest_media_type() == self.media_type)
    }
}

impl Listed {
    /// Reads what a registry answered to a manifest request.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        // `OciManifest` could tell them apart, too, but it keeps all fields in memory, unknown ones
        // included.
        #[derive(Deserialize)]
        struct Shape {
            manifests: Option<IgnoredAny>,
            layers: Option<IgnoredAny>,
        }
        let shape: Shape = json::from_slice(bytes)?;
        if shape.layers.is_some() || shape.manifests.is_none() {
            return Ok(Self::Image(json::from_slice(bytes)?));
        }
        let index: OciImageIndex = json::from_slice(bytes)?;
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
    /// Whether this is the platform of attestations. They are stored like images, but cannot be
    /// run.
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown"
    }

    /// Whether the two platforms are the same. Variants are compared only if both platforms have
    /// one.
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

fn written(document: &impl Serialize) -> Bytes {
    // Fails only for a map whose keys are not text, or if a type's `Serialize` fails. Neither
    // occurs here.
    serde_json::to_vec(document).expect("text, numbers, lists and maps are JSON").into()
}

fn descriptor(media_type: &str, digest: &Digest, size: u64) -> OciDescriptor {
    OciDescriptor {
        media_type: media_type.to_owned(),
        digest: digest.to_string(),
        // Never too large: no disk holds a blob of 2^63 bytes.
        size: i64::try_from(size).unwrap_or(i64::MAX),
        urls: None,
        annotations: None::<BTreeMap<_, _>>,
        artifact_type: None,
    }
}
