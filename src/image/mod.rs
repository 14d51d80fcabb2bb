//! The image model: digests, compressions and media types, configs and manifests.

mod bounded;
mod config;
mod digest;
mod layer;
mod manifest;
mod media;
mod reference;
mod shared;

pub(crate) use bounded::Bounded;
pub use config::{Config, ConfigError, History, MAX_CONFIG_BYTES, MAX_LAYERS};
pub use digest::{DiffId, Digest, Hasher, InvalidDigest};
pub use layer::{Blob, LayerId, LayerKey};
pub use manifest::{
    DIFF_ID_ANNOTATION, IndexEntry, KEY_ANNOTATION, Listed, Manifest, ManifestError, ManifestLayer,
    Platform,
};
pub use media::{Compression, Format, is_foreign};
pub use reference::{
    InvalidReference, Reference, distinct_names, is_host, is_same_name, is_tag, is_untagged,
    parse_reference, short_repository, untagged,
};
pub(crate) use shared::SharedTexts;
