//! What a push did, or would do: one value that the summary, `--dry-run`, `--json` and the tests
//! read.

use std::sync::Arc;

use serde::Serialize;

use crate::changes::Changes;
use crate::image::{Compression, DiffId, Digest, Format, IndexEntry, SharedTexts};

/// The outcome of the push of one image, or of an index.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `registry/repository:tag` of the first tag, or `registry/repository@digest` without one.
    pub reference: String,
    /// The name that always refers to this image: `registry/repository@sha256:…`.
    pub pinned: String,
    /// Every tag the manifest was put under.
    pub tags: Vec<String>,
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest's media type.
    pub media_type: String,
    /// The manifest's format; `None` for an index.
    pub format: Option<Format>,
    /// The platform that the config names; `None` for an index and for other artifacts.
    pub platform: Option<String>,
    /// Bytes of the manifest, the config and all layers as the registry stores them; a layer that
    /// occurs twice counts once.
    pub size: u64,
    /// The config's digest, also called the image id; `None` for an index.
    pub config: Option<Digest>,
    /// Whether the config had to be uploaded (with `dry_run`: would have to be).
    pub config_sent: bool,
    /// The layers, lowest first. For an index: the layers of all its images, each once.
    pub layers: Vec<LayerReport>,
    /// Further manifests, which were put under their digests: those that an index lists, and those
    /// that refer to another manifest of the push. Empty for a single image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<ManifestReport>,
    /// How this image differs from the image that the tag pointed to before, or else from `latest`.
    /// `None` if there is no difference, if there was no such image, or if it could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes: Option<Changes>,
    /// Bytes of blobs and manifests that were sent, including bytes that were sent again. With
    /// `dry_run`: the bytes that would be sent.
    pub bytes_sent: u64,
    /// Bytes of the blobs that did not have to be sent, each counted once.
    pub bytes_reused: u64,
    /// Wall-clock time of the whole push, in seconds.
    pub seconds: f64,
    /// Whether this is only what a push would do.
    pub dry_run: bool,
    /// How new layers are compressed; reused layers may be compressed in another way. `None` if
    /// blobs are pushed as they are stored.
    pub compression: Option<Compression>,
}

impl ManifestReport {
    /// The report of an image that an index lists.
    pub(crate) fn of(entry: &IndexEntry) -> Self {
        Self {
            digest: entry.digest.clone(),
            media_type: entry.media_type.clone(),
            platform: Some(entry.platform.to_string()),
            artifact_type: None,
            subject: None,
        }
    }
}

/// A manifest of an index, or a referrer.
#[derive(Clone, Debug, Serialize)]
pub struct ManifestReport {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// The platform, if this is an image.
    pub platform: Option<String>,
    /// The type of the artifact, if the manifest names one. `None` for an image.
    pub artifact_type: Option<String>,
    /// The manifest that it refers to.
    pub subject: Option<Digest>,
}

/// The result for one layer.
#[derive(Clone, Debug, Serialize)]
pub struct LayerReport {
    /// A readable name: the Nix package (`glibc-2.38`), or the short diff ID.
    pub name: Arc<str>,
    /// The digest of the uncompressed tar; `None` if the blob is not a layer of an image.
    pub diff_id: Option<DiffId>,
    /// The blob's digest.
    pub digest: Digest,
    /// The blob's length in bytes.
    pub size: u64,
    /// The blob's media type in this image's manifest.
    pub media_type: Arc<str>,
    /// How the blob is compressed.
    pub compression: Compression,
    /// What happened to it, and why.
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl LayerReport {
    /// Replaces texts by shared ones, so that texts that many reports contain are stored only once.
    pub(crate) fn share(&mut self, texts: &SharedTexts) {
        self.name = texts.share(&self.name);
        self.media_type = texts.share(&self.media_type);
        self.digest = self.digest.shared(texts);
        self.diff_id = self.diff_id.take().map(|diff_id| diff_id.digest().shared(texts).into());
    }
}

/// What happened to a layer's blob, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Outcome {
    /// The destination repository already had the blob. Nothing was sent.
    Reused {
        /// How this was found out.
        #[serde(flatten)]
        why: Known,
    },
    /// The blob was mounted from another repository of the registry. Nothing was sent.
    Mounted {
        /// The other repository.
        from: Arc<str>,
    },
    /// The blob was uploaded.
    Uploaded,
    /// The blob would be uploaded (`--dry-run`).
    WouldUpload,
    /// The blob would be mounted (`--dry-run`).
    WouldMount {
        /// The other repository.
        from: Arc<str>,
    },
}

/// How it was known that the registry has a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "why", content = "where", rename_all = "kebab-case")]
pub enum Known {
    /// An image that was pushed earlier lists it. This is the reference of that image.
    PreviousImage(Arc<str>),
    /// The local cache remembered its digest.
    Cache,
    /// The registry answered a HEAD request for its digest.
    AnsweredHead,
    /// An earlier layer of this push has the same content.
    SameAsLayer,
    /// The machine that receives the image over SSH already has it.
    OnHost,
    /// The layer has `urls`: clients download it from there, and the image does not contain it.
    Elsewhere,
}

impl Outcome {
    /// Whether the push relies on the registry's claim that it has the blob.
    pub(crate) fn is_relied_on(&self) -> bool {
        match self {
            Self::Reused { why } => {
                !matches!(why, Known::SameAsLayer | Known::OnHost | Known::Elsewhere)
            }
            Self::Mounted { .. } => true,
            Self::Uploaded | Self::WouldUpload | Self::WouldMount { .. } => false,
        }
    }
}

impl Report {
    /// How many distinct blobs of layers were sent, or would be.
    pub fn layers_uploaded(&self) -> usize {
        self.layers
            .iter()
            .filter(|l| matches!(l.outcome, Outcome::Uploaded | Outcome::WouldUpload))
            .count()
    }

    /// How many reused layers have this compression, if new layers have another one; else 0.
    pub fn layers_kept_as(&self, compression: Compression) -> usize {
        let is_new =
            |l: &LayerReport| matches!(l.outcome, Outcome::Uploaded | Outcome::WouldUpload);
        let kept = |l: &&LayerReport| !is_new(l) && l.compression == compression;
        match self.compression {
            Some(new) if new != compression => self.layers.iter().filter(kept).count(),
            _ => 0,
        }
    }

    /// How many layers were mounted from other repositories.
    pub fn layers_mounted(&self) -> usize {
        let is_mounted = |l: &&LayerReport| {
            matches!(l.outcome, Outcome::Mounted { .. } | Outcome::WouldMount { .. })
        };
        self.layers.iter().filter(is_mounted).count()
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reused { why: Known::PreviousImage(from) } => {
                write!(f, "already there (in previous image {from})")
            }
            Self::Reused { why: Known::Cache } => f.write_str("already there (in cache)"),
            Self::Reused { why: Known::AnsweredHead } => {
                f.write_str("already there (answered HEAD)")
            }
            Self::Reused { why: Known::SameAsLayer } => {
                f.write_str("already there (same as another layer)")
            }
            Self::Reused { why: Known::OnHost } => f.write_str("already there (the host has it)"),
            Self::Reused { why: Known::Elsewhere } => {
                f.write_str("not sent (a foreign layer: clients fetch it from its own URL)")
            }
            Self::Mounted { from } => write!(f, "mounted from {from}"),
            Self::Uploaded => f.write_str("uploaded"),
            Self::WouldUpload => f.write_str("would be uploaded"),
            Self::WouldMount { from } => write!(f, "would be mounted from {from}"),
        }
    }
}
