//! The image config (OCI image-spec 1.1, "Image Configuration"): its unchanged bytes, and the few
//! fields that a push needs.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;

use super::bounded::Bounded;
use super::digest::{DiffId, Digest};
use super::manifest::Platform;
use crate::json;

/// The longest config that is read, from an archive or from a registry.
pub const MAX_CONFIG_BYTES: u64 = 8 << 20;

/// The most layers that an image may have, which is more than any runtime can stack.
pub const MAX_LAYERS: usize = 4096;

/// The most history entries that a config may have. Steps that made no layer have entries, too.
const MAX_HISTORY: usize = 16 * MAX_LAYERS;

/// An image config: its bytes, which are never serialised again, and the fields that were read from
/// them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Config(Arc<Parsed>);

#[derive(Debug)]
struct Parsed {
    bytes: Bytes,
    digest: Digest,
    diff_ids: Vec<DiffId>,
    history: Vec<History>,
    platform: Platform,
}

/// One entry of the config's history.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct History {
    /// Free text; Nix lists the layer's store paths here.
    pub comment: String,
    /// The command that made the layer.
    pub created_by: String,
    /// Whether this step made no layer.
    pub empty_layer: bool,
}

/// Why bytes are not an image config.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Longer than [`MAX_CONFIG_BYTES`].
    #[error("the image config is {0} bytes long, more than the {MAX_CONFIG_BYTES} that are read")]
    TooLong(u64),
    /// Not JSON, or a field that is needed is missing or of another type.
    #[error("the image config is not what OCI image-spec describes: {0}")]
    Malformed(#[from] json::Error),
}

#[derive(Deserialize)]
struct ConfigFields {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    variant: Option<String>,
    rootfs: RootFs,
    #[serde(default)]
    history: Option<Bounded<History, MAX_HISTORY>>,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Option<Bounded<DiffId, MAX_LAYERS>>,
}

impl Config {
    /// Reads a config from its JSON bytes.
    pub fn parse(bytes: impl Into<Bytes>) -> Result<Self, ConfigError> {
        let bytes = bytes.into();
        if bytes.len() as u64 > MAX_CONFIG_BYTES {
            return Err(ConfigError::TooLong(bytes.len() as u64));
        }
        let fields: ConfigFields = json::from_slice(&bytes)?;
        Ok(Self(Arc::new(Parsed {
            digest: Digest::of(&bytes),
            diff_ids: fields.rootfs.diff_ids.map_or(Vec::new(), |list| list.0),
            history: fields.history.map_or(Vec::new(), |list| list.0),
            platform: Platform {
                os: fields.os,
                architecture: fields.architecture,
                variant: fields.variant,
            },
            bytes,
        })))
    }

    /// The JSON, unchanged.
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// The digest of [`bytes`](Self::bytes), also called the image id.
    pub fn digest(&self) -> &Digest {
        &self.0.digest
    }

    /// The diff IDs of the layers, lowest first.
    pub fn diff_ids(&self) -> &[DiffId] {
        &self.0.diff_ids
    }

    /// The platform that the image runs on.
    pub fn platform(&self) -> &Platform {
        &self.0.platform
    }

    /// The history entry of each layer, in the order of [`diff_ids`](Self::diff_ids). Entries of
    /// steps that made no layer are left out. There are fewer entries than diff IDs if the history
    /// is incomplete.
    pub fn layer_history(&self) -> impl Iterator<Item = &History> {
        self.0.history.iter().filter(|entry| !entry.empty_layer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_of_steps_without_a_layer_is_left_out() {
        let config = Config::parse(
            r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},
                "history":[{"created_by":"ADD"},{"created_by":"ENV","empty_layer":true},
                           {"comment":null}]}"#,
        )
        .unwrap();
        let steps: Vec<_> = config.layer_history().map(|h| h.created_by.as_str()).collect();
        assert_eq!(steps, ["ADD", ""]);
        assert_eq!(config.platform().to_string(), "linux/amd64");
    }

    #[test]
    fn a_config_cannot_blow_up_in_memory() {
        let history = format!(r#"{{"rootfs":{{}},"history":[{}{{}}]}}"#, "{},".repeat(MAX_HISTORY));
        let error = Config::parse(history).unwrap_err().to_string();
        assert!(error.contains("more than 65536 elements"), "{error}");
        let id = format!(r#""{}","#, Digest::of(b"")).repeat(MAX_LAYERS);
        let list = |more| format!(r#"{{"rootfs":{{"diff_ids":[{}{more}]}}}}"#, &id[..id.len() - 1]);
        assert_eq!(Config::parse(list("")).unwrap().diff_ids().len(), MAX_LAYERS);
        let error = Config::parse(list(r#","sha256:""#)).unwrap_err().to_string();
        assert!(error.contains("digest"), "{error}");
        let one = format!(r#","{}""#, Digest::of(b""));
        let error = Config::parse(list(&one)).unwrap_err().to_string();
        assert!(error.contains("more than 4096 elements"), "{error}");
    }

    #[test]
    fn deeply_nested_json_is_an_error_not_a_crash() {
        let bomb = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(matches!(Config::parse(bomb), Err(ConfigError::Malformed(_))));
    }
}
