//! The JSON file of a nix2container image (its `types/types.go`, version 1): read, and checked.
//!
//! Input: the file's bytes. Output: a [`Spec`]. A missing field is an error that names the field.
//! Unknown fields are ignored.

use std::fs;
use std::sync::Arc;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::config::{GoTime, HistoryJson, ImageConfig};
use super::error::Nix2containerError;
use super::fault::{LayerFault, excerpt};
use crate::image::{Bounded, Compression, DiffId, Digest, MAX_LAYERS};
use crate::json;

/// The longest path that a file can be opened by (Linux's `PATH_MAX`, without the zero byte).
const MAX_PATH: usize = 4095;

/// The version of the file that is understood.
const VERSION: u64 = 1;

/// A nix2container image.
#[derive(Deserialize)]
pub struct Spec {
    #[serde(rename = "image-config")]
    pub config: ImageConfig,
    #[serde(deserialize_with = "list")]
    pub layers: Vec<LayerSpec>,
    pub arch: String,
    #[serde(default)]
    pub created: Option<GoTime>,
}

/// A layer of it.
#[derive(Deserialize)]
pub struct LayerSpec {
    /// The digest of the blob.
    pub digest: Digest,
    /// The length of the blob in bytes; 0 if it is not known.
    pub size: u64,
    #[serde(rename = "diff_ids")]
    pub diff_id: DiffId,
    #[serde(rename = "mediatype")]
    pub media_type: String,
    /// The files and folders that it is made of.
    #[serde(default)]
    pub paths: Vec<StorePath>,
    /// The file that holds the layer; empty if there is none. It is used instead of `paths`.
    #[serde(rename = "layer-path", default)]
    pub layer_path: String,
    #[serde(rename = "History", default)]
    pub history: HistoryJson,
}

/// A file, or a folder with everything in it.
#[derive(Deserialize)]
pub struct StorePath {
    pub path: String,
    #[serde(default)]
    pub options: Option<PathOptions>,
}

/// What the layer changes in the files of the store.
#[derive(Deserialize)]
pub struct PathOptions {
    #[serde(default)]
    pub rewrite: Rewrite,
    #[serde(default, deserialize_with = "shared")]
    pub perms: Arc<[Perm]>,
}

/// Replaces matches of `regex` in a path by `repl`. An empty `regex` replaces nothing.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Rewrite {
    pub regex: String,
    pub repl: String,
}

/// The owner and permissions of files whose path matches `regex`.
#[derive(PartialEq, Eq, Deserialize)]
pub struct Perm {
    pub regex: Box<str>,
    /// Octal digits. If empty, the mode does not change.
    #[serde(default)]
    pub mode: Box<str>,
    #[serde(default)]
    pub uid: i64,
    #[serde(default)]
    pub gid: i64,
    /// If empty, the user is root.
    #[serde(default)]
    pub uname: Box<str>,
    /// If empty, the group is root.
    #[serde(default)]
    pub gname: Box<str>,
}

/// The fields that distinguish the file from other JSON.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Signs {
    version: Option<u64>,
    #[serde(rename = "image-config")]
    image_config: Option<IgnoredAny>,
    store_layers: Option<IgnoredAny>,
    #[serde(rename = "schemaVersion")]
    schema_version: Option<IgnoredAny>,
    rootfs: Option<IgnoredAny>,
}

impl Spec {
    /// Reads the file.
    pub fn parse(file: &Arc<str>, bytes: &[u8]) -> Result<Self, Nix2containerError> {
        let malformed = |source| Nix2containerError::Malformed { file: file.clone(), source };
        let is_not = |what| Nix2containerError::NotAnImage { file: file.clone(), what };
        if bytes.trim_ascii_start().starts_with(b"[") {
            json::from_slice::<IgnoredAny>(bytes).map_err(malformed)?;
            return Err(is_not("a JSON list, such as the layers.json of buildLayer"));
        }
        let signs: Signs = json::from_slice(bytes).map_err(malformed)?;
        if signs.image_config.is_none() {
            return Err(is_not(if signs.store_layers.is_some() {
                "the conf.json of streamLayeredImage, whose `result` is a script"
            } else if signs.schema_version.is_some() {
                "an image's manifest without the image"
            } else if signs.rootfs.is_some() {
                "an image's config without the image"
            } else {
                "a JSON file without `image-config`"
            }));
        }
        match signs.version {
            Some(VERSION) => {}
            found => {
                return Err(Nix2containerError::Version {
                    file: file.clone(),
                    found: found
                        .map_or("no version".to_owned(), |found| format!("version {found}")),
                });
            }
        }
        let spec: Self = json::from_slice(bytes).map_err(malformed)?;
        if spec.arch.is_empty() {
            return Err(is_not("a base image as pullImage leaves it, without `arch`"));
        }
        Ok(spec)
    }
}

impl LayerSpec {
    /// Fails if the layer cannot be as the file describes it.
    pub fn check(&self) -> Result<(), LayerFault> {
        let Some(compression) = Compression::of_media_type(&self.media_type) else {
            return Err(LayerFault::MediaType(excerpt(&self.media_type)));
        };
        if compression == Compression::None && self.digest != *self.diff_id.digest() {
            return Err(LayerFault::TwoDigests {
                digest: self.digest.clone(),
                diff_id: self.diff_id.clone(),
            });
        }
        if self.paths.is_empty() && self.layer_path.is_empty() {
            return Err(LayerFault::Nothing);
        }
        let paths = self.paths.iter().map(|path| &path.path);
        let named = paths.chain(Some(&self.layer_path).filter(|path| !path.is_empty()));
        let is_path = |path: &&String| {
            path.starts_with('/') && path.len() <= MAX_PATH && !path.contains('\0')
        };
        match named.into_iter().find(|path| !is_path(path)) {
            Some(path) => Err(LayerFault::NotAPath(excerpt(path))),
            None => Ok(()),
        }
    }

    /// Whether the bytes to read are compressed.
    pub fn is_stored_compressed(&self) -> bool {
        !self.layer_path.is_empty() && !self.is_plain()
    }

    /// Whether its blob is a plain tar, according to its media type.
    pub fn is_plain(&self) -> bool {
        Compression::of_media_type(&self.media_type) == Some(Compression::None)
    }

    /// The number of bytes to read, as far as it is known beforehand.
    pub fn stored_size(&self) -> u64 {
        let length = || fs::metadata(&self.layer_path).ok().filter(fs::Metadata::is_file);
        match self.layer_path.as_str() {
            "" => self.size,
            // A base image's layers have no size.
            _ => length().map_or(self.size, |metadata| metadata.len()),
        }
    }

    /// Its name in messages: the files that it is made of.
    pub fn name(&self) -> String {
        match self.paths.as_slice() {
            [first, rest @ ..] if self.layer_path.is_empty() => match rest.len() {
                0 => excerpt(&first.path),
                more => format!("{} and {more} more", excerpt(&first.path)),
            },
            _ => excerpt(&self.layer_path),
        }
    }
}

fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<LayerSpec>, D::Error> {
    Bounded::<LayerSpec, MAX_LAYERS>::deserialize(deserializer).map(|list| list.0)
}

fn shared<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[Perm]>, D::Error> {
    Vec::deserialize(deserializer).map(Into::into)
}
