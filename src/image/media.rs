//! Compressions, manifest formats, and the media types that follow from them.

use std::fmt;

use oci_client::manifest as media;
use serde::{Deserialize, Serialize};

/// How a layer's tar is compressed in its blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not compressed: the blob's digest is the diff ID.
    None,
    /// gzip (RFC 1952), which every registry and runtime reads.
    Gzip,
    /// Zstandard (RFC 8878): smaller and faster, in OCI manifests only.
    Zstd,
}

/// The kind of manifest that an image gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Docker image manifest version 2, schema 2, as `docker push` makes it.
    Docker,
    /// OCI image manifest (image-spec 1.1).
    Oci,
}

impl Compression {
    /// The highest level of its compressor, libdeflate or zstd; the lowest is 1. `None` if nothing
    /// is compressed.
    ///
    /// Level 0 is not used: libdeflate does not compress at that level, and zstd takes it for its
    /// default level.
    pub(crate) fn highest_level(self) -> Option<i32> {
        match self {
            Self::None => None,
            Self::Gzip => Some(12),
            Self::Zstd => Some(22),
        }
    }

    /// The compression that a Docker or OCI media type of a layer means.
    ///
    /// `None` for unknown types, for encrypted layers, whose bytes cannot be used, and for foreign
    /// or non-distributable layers, whose bytes the registry may not have.
    pub fn of_media_type(media_type: &str) -> Option<Self> {
        match media_type {
            media::IMAGE_LAYER_MEDIA_TYPE | media::IMAGE_DOCKER_LAYER_TAR_MEDIA_TYPE => {
                Some(Self::None)
            }
            media::IMAGE_LAYER_GZIP_MEDIA_TYPE | media::IMAGE_DOCKER_LAYER_GZIP_MEDIA_TYPE => {
                Some(Self::Gzip)
            }
            LAYER_ZSTD | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The media type of a layer with this compression; `None` if the format has none.
    pub fn media_type(self, format: Format) -> Option<&'static str> {
        match (format, self) {
            (Format::Oci, Self::None) => Some(media::IMAGE_LAYER_MEDIA_TYPE),
            (Format::Oci, Self::Gzip) => Some(media::IMAGE_LAYER_GZIP_MEDIA_TYPE),
            (Format::Oci, Self::Zstd) => Some(LAYER_ZSTD),
            (Format::Docker, Self::None) => Some(media::IMAGE_DOCKER_LAYER_TAR_MEDIA_TYPE),
            (Format::Docker, Self::Gzip) => Some(media::IMAGE_DOCKER_LAYER_GZIP_MEDIA_TYPE),
            (Format::Docker, Self::Zstd) => None,
        }
    }
}

impl Format {
    /// The media type of the manifest.
    pub fn manifest_media_type(self) -> &'static str {
        match self {
            Self::Docker => media::IMAGE_MANIFEST_MEDIA_TYPE,
            Self::Oci => media::OCI_IMAGE_MEDIA_TYPE,
        }
    }

    /// The media type of the image config.
    pub fn config_media_type(self) -> &'static str {
        match self {
            Self::Docker => media::IMAGE_DOCKER_CONFIG_MEDIA_TYPE,
            Self::Oci => media::IMAGE_CONFIG_MEDIA_TYPE,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "docker",
            Self::Oci => "oci",
        })
    }
}

/// The one layer media type that `oci-client` has no constant for.
const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// Whether this is the media type of a non-distributable layer (OCI image-spec 1.1,
/// "Non-Distributable Layers"; Docker's foreign layers).
pub fn is_foreign(media_type: &str) -> bool {
    ["foreign", "nondistributable"].iter().any(|word| media_type.contains(word))
}
