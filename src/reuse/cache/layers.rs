//! The tables about layers and their blobs: `layer`, `made` and `blob_in`.
//!
//! Rows of `layer` and `made` decide what a manifest contains. So each has a checksum, and a row
//! that a failing disk has changed is ignored. Rows of `blob_in` only suggest repositories to ask.

use std::collections::HashMap;

use rusqlite::Row;
use serde::Serialize;

use super::row::{sum, text};
use super::store::{CacheStore, RENEWAL};
use crate::image::{Blob, Compression, DiffId, Digest, LayerKey};

/// How many repositories are kept for each blob of a registry.
const REPOSITORIES: u32 = 8;

impl CacheStore {
    pub(super) fn blobs_of(
        &mut self,
        recipe: &str,
        diff_ids: &[DiffId],
    ) -> rusqlite::Result<HashMap<DiffId, Vec<Blob>>> {
        let mut used = Vec::new();
        let mut known: HashMap<DiffId, Vec<Blob>> = HashMap::new();
        let mut query = self.connection.prepare_cached(
            "SELECT diff_id, digest, size, compression, sum, used
             FROM json_each(?1) AS wanted CROSS JOIN layer
                 ON diff_id = wanted.value AND recipe = ?2
             ORDER BY used DESC, digest",
        )?;
        let mut rows = query.query((json(diff_ids), recipe))?;
        while let Some(row) = rows.next()? {
            let Some((diff_id, blob)) = layer(row) else {
                continue;
            };
            used.push((row.get(5).unwrap_or(0), diff_id.to_string()));
            let blobs = known.entry(diff_id).or_default();
            // The caller may have asked for a layer twice.
            if !blobs.contains(&blob) {
                blobs.push(blob);
            }
        }
        drop(rows);
        drop(query);
        for (stamp, diff_id) in used {
            self.note_use(stamp, "UPDATE layer SET used = ?1 WHERE diff_id = ?2", &diff_id);
        }
        Ok(known)
    }

    pub(super) fn remember_layer(
        &self,
        recipe: &str,
        diff_id: &DiffId,
        blob: &Blob,
        now: i64,
    ) -> rusqlite::Result<()> {
        let Ok(size) = i64::try_from(blob.size) else {
            return Ok(());
        };
        let compression = blob.compression.to_string();
        let (diff_id, digest) = (diff_id.digest().as_str(), blob.digest.as_str());
        let sum = layer_sum(diff_id, digest, size, &compression);
        self.connection
            .prepare_cached(
                "INSERT INTO layer VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT DO UPDATE SET
                     size = excluded.size, compression = excluded.compression,
                     sum = excluded.sum, used = excluded.used
                 WHERE sum <> excluded.sum OR size <> excluded.size
                     OR compression <> excluded.compression OR abs(excluded.used - used) > ?8",
            )?
            .execute((diff_id, recipe, digest, size, compression, sum, now, RENEWAL))?;
        Ok(())
    }

    pub(super) fn made(
        &mut self,
        keys: &[LayerKey],
    ) -> rusqlite::Result<HashMap<LayerKey, DiffId>> {
        let mut used = Vec::new();
        let mut known: HashMap<LayerKey, Option<DiffId>> = HashMap::new();
        let mut query = self.connection.prepare_cached(
            "SELECT DISTINCT layer_key, diff_id, sum, used
             FROM json_each(?1) AS wanted CROSS JOIN made ON layer_key = wanted.value",
        )?;
        let keys: Vec<&Digest> = keys.iter().map(|key| &key.0).collect();
        let mut rows = query.query([json(&keys)])?;
        while let Some(row) = rows.next()? {
            let Some((key, diff_id)) = made(row) else {
                continue;
            };
            used.push((row.get(3).unwrap_or(0), key.to_string()));
            // Two diff IDs for one key: at least one is wrong, so use neither.
            known.entry(LayerKey(key)).and_modify(|known| *known = None).or_insert(Some(diff_id));
        }
        drop(rows);
        drop(query);
        for (stamp, key) in used {
            self.note_use(stamp, "UPDATE made SET used = ?1 WHERE layer_key = ?2", &key);
        }
        Ok(known.into_iter().filter_map(|(key, diff_id)| Some((key, diff_id?))).collect())
    }

    pub(super) fn remember_made(
        &self,
        key: &LayerKey,
        diff_id: &DiffId,
        now: i64,
    ) -> rusqlite::Result<()> {
        let (key, diff_id) = (key.0.as_str(), diff_id.digest().as_str());
        let sum = sum(&[key.as_bytes(), diff_id.as_bytes()]);
        self.connection
            .prepare_cached(
                "INSERT INTO made VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET sum = excluded.sum, used = excluded.used
                 WHERE sum <> excluded.sum OR abs(excluded.used - used) > ?5",
            )?
            .execute((key, diff_id, sum, now, RENEWAL))?;
        Ok(())
    }

    pub(super) fn repositories_of(
        &mut self,
        registry: &str,
        digests: &[Digest],
    ) -> rusqlite::Result<HashMap<Digest, Vec<String>>> {
        let mut query = self.connection.prepare_cached(
            "SELECT DISTINCT digest, repository, used
             FROM json_each(?1) AS wanted
             CROSS JOIN blob_in ON registry = ?2 AND digest = wanted.value
             ORDER BY used DESC, repository",
        )?;
        let mut known: HashMap<Digest, Vec<String>> = HashMap::new();
        let mut rows = query.query((json(digests), registry))?;
        while let Some(row) = rows.next()? {
            if let Some((digest, repository)) = blob_in(row) {
                known.entry(digest).or_default().push(repository);
            }
        }
        Ok(known)
    }

    pub(super) fn remember_blobs(
        &self,
        registry: &str,
        repository: &str,
        digests: &[Digest],
        now: i64,
    ) -> rusqlite::Result<()> {
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO blob_in VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET used = excluded.used WHERE abs(excluded.used - used) > ?5",
        )?;
        // Keep the new row even if a wrong clock makes it look old.
        let mut trim = self.connection.prepare_cached(
            "DELETE FROM blob_in WHERE registry = ?1 AND digest = ?2 AND repository IN (
                 SELECT repository FROM blob_in WHERE registry = ?1 AND digest = ?2
                 ORDER BY repository = ?3 DESC, used DESC LIMIT -1 OFFSET ?4)",
        )?;
        for digest in digests {
            let digest = digest.as_str();
            if insert.execute((registry, digest, repository, now, RENEWAL))? > 0 {
                trim.execute((registry, digest, repository, REPOSITORIES))?;
            }
        }
        Ok(())
    }

    pub(super) fn forget_blob(
        &self,
        registry: &str,
        repository: &str,
        digest: &Digest,
    ) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached(
                "DELETE FROM blob_in WHERE registry = ?1 AND digest = ?2 AND repository = ?3",
            )?
            .execute((registry, digest.as_str(), repository))?;
        Ok(())
    }
}

/// Reads diff ID, digest, size, compression and checksum. `None` if the row was damaged.
fn layer(row: &Row<'_>) -> Option<(DiffId, Blob)> {
    let (diff_id, digest) = (text(row, 0)?, text(row, 1)?);
    let size: i64 = row.get(2).ok()?;
    let compression = text(row, 3)?;
    if text(row, 4)? != layer_sum(diff_id, digest, size, compression) {
        return None;
    }
    let blob = Blob {
        digest: digest.parse().ok()?,
        size: size.try_into().ok()?,
        compression: [Compression::None, Compression::Gzip, Compression::Zstd]
            .into_iter()
            .find(|known| known.to_string() == compression)?,
    };
    Some((diff_id.parse().ok()?, blob))
}

fn layer_sum(diff_id: &str, digest: &str, size: i64, compression: &str) -> String {
    let parts =
        [diff_id.as_bytes(), digest.as_bytes(), &size.to_le_bytes(), compression.as_bytes()];
    sum(&parts)
}

/// Reads layer key, diff ID and checksum. `None` if the row was damaged.
fn made(row: &Row<'_>) -> Option<(Digest, DiffId)> {
    let (key, diff_id) = (text(row, 0)?, text(row, 1)?);
    let is_sound = text(row, 2)? == sum(&[key.as_bytes(), diff_id.as_bytes()]);
    is_sound.then(|| Some((key.parse().ok()?, diff_id.parse().ok()?)))?
}

/// Reads digest and repository. `None` if they are not valid.
fn blob_in(row: &Row<'_>) -> Option<(Digest, String)> {
    let digest = text(row, 0)?.parse().ok()?;
    let repository = text(row, 1)?;
    // Less strict than OCI distribution-spec 1.1, "Pulling manifests": it is only checked that the
    // name is a plain path.
    let sound = repository.len() <= 255
        && repository.split('/').all(|part| {
            part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && part.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
        });
    sound.then(|| (digest, repository.to_owned()))
}

fn json<T: Serialize + ?Sized>(value: &T) -> String {
    // A list of texts can always be serialized.
    serde_json::to_string(value).expect("a list of text is JSON")
}
