//! The tables about whole images: `image`, whose rows have a checksum, and `config`, whose rows are
//! checked by their digests.

use rusqlite::{OptionalExtension, Row};
use serde::{Deserialize, Serialize};

use super::CachedImage;
use super::row::{sum, text};
use super::store::{CacheStore, RENEWAL};
use crate::image::{Config, Digest};

/// The maximum total size of the configs of one file's images.
const MAX_BYTES: usize = 8 << 20;

/// One image in the JSON of `image.contents`; its config is the next `config_bytes` bytes of
/// `image.configs`.
#[derive(Serialize, Deserialize)]
struct ImageEntry {
    names: Vec<String>,
    config_bytes: usize,
    layers: Vec<usize>,
}

impl CacheStore {
    pub(super) fn image(&mut self, file: &str) -> rusqlite::Result<Option<Vec<CachedImage>>> {
        let found = self
            .connection
            .prepare_cached("SELECT contents, configs, sum, used FROM image WHERE file = ?1")?
            .query_row([file], |row| Ok((images(file, row), row.get(3).unwrap_or(0))))
            .optional()?;
        let Some((Some(images), used)) = found else {
            return Ok(None);
        };
        self.note_use(used, "UPDATE image SET used = ?1 WHERE file = ?2", file);
        Ok(Some(images))
    }

    pub(super) fn remember_image(
        &self,
        file: &str,
        images: &[CachedImage],
        now: i64,
    ) -> rusqlite::Result<()> {
        let bytes = images.iter().map(|image| image.config.bytes().len()).sum();
        if bytes > MAX_BYTES {
            return Ok(());
        }
        let mut configs = Vec::with_capacity(bytes);
        let mut entries = Vec::with_capacity(images.len());
        for image in images {
            configs.extend_from_slice(image.config.bytes());
            entries.push(ImageEntry {
                names: image.names.clone(),
                config_bytes: image.config.bytes().len(),
                layers: image.layers.clone(),
            });
        }
        // Text, numbers and lists of them can always be serialized.
        let contents = serde_json::to_string(&entries).expect("text and numbers are JSON");
        let sum = sum(&[file.as_bytes(), contents.as_bytes(), &configs]);
        self.connection
            .prepare_cached(
                "INSERT INTO image VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET
                     contents = excluded.contents, configs = excluded.configs,
                     sum = excluded.sum, used = excluded.used
                 WHERE contents <> excluded.contents OR configs <> excluded.configs
                     OR sum <> excluded.sum OR abs(excluded.used - used) > ?6",
            )?
            .execute((file, contents, configs, sum, now, RENEWAL))?;
        Ok(())
    }

    pub(super) fn config(&mut self, digest: &Digest) -> rusqlite::Result<Option<Config>> {
        let found = self
            .connection
            .prepare_cached("SELECT config, used FROM config WHERE digest = ?1")?
            .query_row([digest.as_str()], |row| Ok((config(digest, row), row.get(1).unwrap_or(0))))
            .optional()?;
        let Some((Some(config), used)) = found else {
            return Ok(None);
        };
        self.note_use(used, "UPDATE config SET used = ?1 WHERE digest = ?2", digest.as_str());
        Ok(Some(config))
    }

    pub(super) fn remember_config(&self, config: &Config, now: i64) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO config VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET config = excluded.config, used = excluded.used
                 WHERE config <> excluded.config OR abs(excluded.used - used) > ?4",
            )?
            .execute((config.digest().as_str(), &**config.bytes(), now, RENEWAL))?;
        Ok(())
    }
}

/// Reads contents, configs and checksum. `None` if the row was damaged.
fn images(file: &str, row: &Row<'_>) -> Option<Vec<CachedImage>> {
    let contents = text(row, 0)?;
    let mut configs = row.get_ref(1).ok()?.as_blob().ok()?;
    if text(row, 2)? != sum(&[file.as_bytes(), contents.as_bytes(), configs]) {
        return None;
    }
    let entries: Vec<ImageEntry> = serde_json::from_str(contents).ok()?;
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

/// Reads a config. `None` if its digest does not match.
fn config(digest: &Digest, row: &Row<'_>) -> Option<Config> {
    let bytes = row.get_ref(0).ok()?.as_blob().ok()?;
    Config::parse(bytes.to_vec()).ok().filter(|config| config.digest() == digest)
}
