//! Rows as they are read back: what is not exactly what was written is no row.
//!
//! `layer` and `image` rows decide what a manifest will say, so each carries a checksum: a row that
//! a failing disk changed is not believed. `blob_in` rows only propose something to a registry.

use rusqlite::Row;
use serde::{Deserialize, Serialize};

use super::CachedImage;
use crate::image::{Blob, Compression, Config, DiffId, Digest, Hasher};

/// One image in the JSON of `image.contents`; its config is the next so many bytes of
/// `image.configs`.
#[derive(Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) names: Vec<String>,
    pub(super) config_bytes: usize,
    pub(super) layers: Vec<usize>,
}

/// Reads diff ID, digest, size, compression and checksum; `None` where they are not what was
/// written.
pub(super) fn layer(row: &Row<'_>) -> Option<(DiffId, Blob)> {
    let diff_id: DiffId = text(row, 0)?.parse().ok()?;
    let digest: Digest = text(row, 1)?.parse().ok()?;
    let size: i64 = row.get(2).ok()?;
    let compression = text(row, 3)?;
    if text(row, 4)? != layer_sum(&diff_id, &digest, size, compression) {
        return None;
    }
    let blob = Blob {
        digest,
        size: size.try_into().ok()?,
        compression: [Compression::None, Compression::Gzip, Compression::Zstd]
            .into_iter()
            .find(|known| known.to_string() == compression)?,
    };
    Some((diff_id, blob))
}

/// Reads digest and repository; `None` where they are none.
pub(super) fn blob_in(row: &Row<'_>) -> Option<(Digest, String)> {
    let digest = text(row, 0)?.parse().ok()?;
    let repository = text(row, 1)?;
    // OCI distribution-spec 1.1, "Pulling manifests", somewhat looser: what matters is that it
    // cannot be more than a path.
    let sound = repository.len() <= 255
        && repository.split('/').all(|part| {
            part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && part.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
        });
    sound.then(|| (digest, repository.to_owned()))
}

/// Reads contents, configs and checksum; `None` where they are not what was written.
pub(super) fn images(key: &str, row: &Row<'_>) -> Option<Vec<CachedImage>> {
    let contents = text(row, 0)?;
    let mut configs = row.get_ref(1).ok()?.as_blob().ok()?;
    if text(row, 2)? != sum(&[key.as_bytes(), contents.as_bytes(), configs]) {
        return None;
    }
    let entries: Vec<Entry> = serde_json::from_str(contents).ok()?;
    entries
        .into_iter()
        .map(|entry| {
            let (config, rest) = configs.split_at_checked(entry.config_bytes)?;
            configs = rest;
            Some(CachedImage {
                names: entry.names,
                config: Config::parse(config.to_vec()).ok()?,
                layers: entry.layers,
            })
        })
        .collect()
}

fn text<'row>(row: &'row Row<'_>, column: usize) -> Option<&'row str> {
    row.get_ref(column).ok()?.as_str().ok()
}

pub(super) fn layer_sum(diff_id: &DiffId, digest: &Digest, size: i64, compression: &str) -> String {
    sum(&[
        diff_id.digest().as_str().as_bytes(),
        digest.as_str().as_bytes(),
        &size.to_le_bytes(),
        compression.as_bytes(),
    ])
}

/// A checksum of these parts in this order, good against a disk's mistakes.
pub(super) fn sum(parts: &[&[u8]]) -> String {
    let mut hasher = Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finish().hex()[..16].to_owned()
}
