//! What the cache holds: its tables, and what is asked of them.
//!
//! `used` is in milliseconds since 1970; it is renewed once a day at most, so that an unchanged push
//! writes nothing.

use std::collections::HashMap;
use std::fs::File;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};
use serde::Serialize;

use super::file::Opened;
use super::{CachedImage, Write, row};
use crate::image::{Blob, DiffId, Digest};

/// The tables. `tally` counts rows and bytes, since SQLite itself would have to read the tables to
/// count them.
pub(super) const SCHEMA: &str = "
    CREATE TABLE layer (
        diff_id TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
        compression TEXT NOT NULL, sum TEXT NOT NULL, used INTEGER NOT NULL,
        recipe TEXT NOT NULL,
        PRIMARY KEY (diff_id, recipe, digest)
    ) WITHOUT ROWID;
    CREATE INDEX layer_used ON layer (used);

    CREATE TABLE blob_in (
        registry TEXT NOT NULL, digest TEXT NOT NULL, repository TEXT NOT NULL,
        used INTEGER NOT NULL,
        PRIMARY KEY (registry, digest, repository)
    ) WITHOUT ROWID;
    CREATE INDEX blob_in_used ON blob_in (used);

    CREATE TABLE image (
        key TEXT NOT NULL PRIMARY KEY, contents TEXT NOT NULL, configs BLOB NOT NULL,
        sum TEXT NOT NULL, used INTEGER NOT NULL
    );
    CREATE INDEX image_used ON image (used);

    CREATE TABLE tally (
        name TEXT NOT NULL PRIMARY KEY, rows INTEGER NOT NULL, bytes INTEGER NOT NULL
    ) WITHOUT ROWID;
    INSERT INTO tally VALUES ('layer', 0, 0), ('blob_in', 0, 0), ('image', 0, 0);
    CREATE TRIGGER layer_added AFTER INSERT ON layer
        BEGIN UPDATE tally SET rows = rows + 1 WHERE name = 'layer'; END;
    CREATE TRIGGER layer_gone AFTER DELETE ON layer
        BEGIN UPDATE tally SET rows = rows - 1 WHERE name = 'layer'; END;
    CREATE TRIGGER blob_in_added AFTER INSERT ON blob_in
        BEGIN UPDATE tally SET rows = rows + 1 WHERE name = 'blob_in'; END;
    CREATE TRIGGER blob_in_gone AFTER DELETE ON blob_in
        BEGIN UPDATE tally SET rows = rows - 1 WHERE name = 'blob_in'; END;
    CREATE TRIGGER image_added AFTER INSERT ON image
        BEGIN UPDATE tally SET rows = rows + 1, bytes = bytes + length(new.configs)
              WHERE name = 'image'; END;
    CREATE TRIGGER image_changed AFTER UPDATE OF configs ON image
        BEGIN UPDATE tally SET bytes = bytes + length(new.configs) - length(old.configs)
              WHERE name = 'image'; END;
    CREATE TRIGGER image_gone AFTER DELETE ON image
        BEGIN UPDATE tally SET rows = rows - 1, bytes = bytes - length(old.configs)
              WHERE name = 'image'; END;
";

/// How much is kept; beyond it, what was not used for longest is forgotten.
pub(super) struct Limits {
    /// Rows of `layer`.
    pub(super) layers: u64,
    /// Rows of `blob_in`.
    pub(super) blobs: u64,
    /// Rows of `image`.
    pub(super) images: u64,
    /// Bytes of all configs in `image`.
    pub(super) config_bytes: u64,
}

impl Default for Limits {
    /// Together some 150 MB on disk.
    fn default() -> Self {
        Self { layers: 100_000, blobs: 200_000, images: 500, config_bytes: 64 << 20 }
    }
}

/// Repositories kept for a blob in a registry.
const REPOSITORIES: u32 = 8;

/// The most that the configs of one file's images may take.
const MAX_IMAGE_BYTES: usize = 8 << 20;

/// How old `used` may get before it is renewed.
const RENEWAL: i64 = 24 * 60 * 60 * 1000;

/// How long forgetting may take in one run; the next goes on with it.
const FORGET_PATIENCE: Duration = Duration::from_millis(100);

/// An open cache file.
pub(super) struct Store {
    connection: Connection,
    /// Let go of after the connection: fields are dropped in this order.
    _lock: Option<File>,
    writable: bool,
    /// Rows that were used, with a stamp that is old.
    stale: Vec<Stale>,
}

enum Stale {
    Layer(DiffId),
    Image(String),
}

impl Store {
    pub(super) fn new(opened: Opened) -> Self {
        Self {
            connection: opened.connection,
            _lock: opened.lock,
            writable: opened.writable,
            stale: Vec::new(),
        }
    }

    pub(super) fn is_writable(&self) -> bool {
        self.writable
    }

    pub(super) fn stop_writing(&mut self) {
        self.writable = false;
    }

    pub(super) fn blobs_of(
        &mut self,
        recipe: &str,
        diff_ids: &[DiffId],
    ) -> rusqlite::Result<HashMap<DiffId, Vec<Blob>>> {
        let mut query = self.connection.prepare_cached(
            "SELECT diff_id, digest, size, compression, sum, used
             FROM json_each(?1) AS wanted CROSS JOIN layer
                 ON diff_id = wanted.value AND recipe = ?2
             ORDER BY used DESC, digest",
        )?;
        let now = now();
        let mut known: HashMap<DiffId, Vec<Blob>> = HashMap::new();
        let mut rows = query.query((json(diff_ids), recipe))?;
        while let Some(row) = rows.next()? {
            let Some((diff_id, blob)) = row::layer(row) else {
                continue;
            };
            if is_stale(row.get(5).unwrap_or(0), now) {
                self.stale.push(Stale::Layer(diff_id.clone()));
            }
            let blobs = known.entry(diff_id).or_default();
            // A layer may have been asked for twice.
            if !blobs.contains(&blob) {
                blobs.push(blob);
            }
        }
        Ok(known)
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
            if let Some((digest, repository)) = row::blob_in(row) {
                known.entry(digest).or_default().push(repository);
            }
        }
        Ok(known)
    }

    pub(super) fn image(&mut self, key: &str) -> rusqlite::Result<Option<Vec<CachedImage>>> {
        let mut query = self
            .connection
            .prepare_cached("SELECT contents, configs, sum, used FROM image WHERE key = ?1")?;
        let found = query
            .query_row([key], |row| Ok((row::images(key, row), row.get(3).unwrap_or(0))))
            .optional()?;
        let Some((Some(images), used)) = found else {
            return Ok(None);
        };
        if is_stale(used, now()) {
            self.stale.push(Stale::Image(key.to_owned()));
        }
        Ok(Some(images))
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
        let sum = row::layer_sum(diff_id, &blob.digest, size, &compression);
        self.connection
            .prepare_cached(
                "INSERT INTO layer VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?8)
                 ON CONFLICT DO UPDATE SET
                     size = excluded.size, compression = excluded.compression,
                     sum = excluded.sum, used = excluded.used
                 WHERE sum <> excluded.sum OR size <> excluded.size
                     OR compression <> excluded.compression OR abs(excluded.used - used) > ?7",
            )?
            .execute((
                diff_id.digest().as_str(),
                blob.digest.as_str(),
                size,
                compression,
                sum,
                now,
                RENEWAL,
                recipe,
            ))?;
        Ok(())
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
        // The new one stays even if a wrong clock makes it look old.
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

    pub(super) fn remember_image(
        &self,
        key: &str,
        images: &[CachedImage],
        now: i64,
    ) -> rusqlite::Result<()> {
        let bytes = images.iter().map(|image| image.config.bytes().len()).sum();
        if bytes > MAX_IMAGE_BYTES {
            return Ok(());
        }
        let mut configs = Vec::with_capacity(bytes);
        let mut entries = Vec::with_capacity(images.len());
        for image in images {
            configs.extend_from_slice(image.config.bytes());
            entries.push(row::Entry {
                names: image.names.clone(),
                config_bytes: image.config.bytes().len(),
                layers: image.layers.clone(),
            });
        }
        let contents = json(&entries);
        let sum = row::sum(&[key.as_bytes(), contents.as_bytes(), &configs]);
        self.connection
            .prepare_cached(
                "INSERT INTO image VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET
                     contents = excluded.contents, configs = excluded.configs,
                     sum = excluded.sum, used = excluded.used
                 WHERE contents <> excluded.contents OR configs <> excluded.configs
                     OR sum <> excluded.sum OR abs(excluded.used - used) > ?6",
            )?
            .execute((key, contents, configs, sum, now, RENEWAL))?;
        Ok(())
    }

    /// Does these writes, all or none.
    pub(super) fn write_all(&self, writes: Vec<Write>) -> rusqlite::Result<()> {
        let transaction = self.begin()?;
        for write in writes {
            write(self)?;
        }
        transaction.commit()
    }

    /// Renews the stamps of rows that were used.
    pub(super) fn touch(&mut self) -> rusqlite::Result<()> {
        let stale = std::mem::take(&mut self.stale);
        if stale.is_empty() {
            return Ok(());
        }
        let transaction = self.begin()?;
        let now = now();
        for row in stale {
            let (sql, key) = match row {
                Stale::Layer(diff_id) => {
                    ("UPDATE layer SET used = ?1 WHERE diff_id = ?2", diff_id.to_string())
                }
                Stale::Image(key) => ("UPDATE image SET used = ?1 WHERE key = ?2", key),
            };
            self.connection.prepare_cached(sql)?.execute((now, key))?;
        }
        transaction.commit()
    }

    /// Forgets what was not used for longest until the limits hold, a little at a time: being
    /// killed in the midst of it loses nothing of what was done.
    pub(super) fn forget_oldest(&mut self, limits: &Limits) -> rusqlite::Result<()> {
        let give_up = Instant::now() + FORGET_PATIENCE;
        for (table, max_rows, max_bytes, delete, at_once) in [
            (
                "layer",
                limits.layers,
                u64::MAX,
                "DELETE FROM layer WHERE (diff_id, recipe, digest) IN
                     (SELECT diff_id, recipe, digest FROM layer ORDER BY used LIMIT ?1)",
                500,
            ),
            (
                "blob_in",
                limits.blobs,
                u64::MAX,
                "DELETE FROM blob_in WHERE (registry, digest, repository) IN
                     (SELECT registry, digest, repository FROM blob_in ORDER BY used LIMIT ?1)",
                500,
            ),
            (
                "image",
                limits.images,
                limits.config_bytes,
                "DELETE FROM image WHERE key IN (SELECT key FROM image ORDER BY used LIMIT ?1)",
                1,
            ),
        ] {
            while Instant::now() < give_up {
                let (rows, bytes) = self.tally(table)?;
                if rows <= max_rows && bytes <= max_bytes {
                    break;
                }
                let excess = rows.saturating_sub(max_rows).clamp(1, at_once);
                if self.connection.execute(delete, [excess])? == 0 {
                    break;
                }
            }
        }
        let pages =
            |pragma| self.connection.pragma_query_value(None, pragma, |row| row.get::<_, u64>(0));
        // Free pages are used again; only where there are many is the file made shorter.
        let (free, all) = (pages("freelist_count")?, pages("page_count")?);
        if free > 256 && free > all / 4 {
            // One step a page.
            let mut vacuum = self.connection.prepare("PRAGMA incremental_vacuum(2048)")?;
            let mut freed = vacuum.query([])?;
            while freed.next()?.is_some() {}
        }
        Ok(())
    }

    fn tally(&self, table: &str) -> rusqlite::Result<(u64, u64)> {
        self.connection
            .prepare_cached("SELECT rows, bytes FROM tally WHERE name = ?1")?
            .query_row([table], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// Begins to write. At once, since a reader that turns into a writer is refused, without
    /// waiting, where another process has written meanwhile.
    fn begin(&self) -> rusqlite::Result<Transaction<'_>> {
        Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)
    }
}

fn json<T: Serialize + ?Sized>(value: &T) -> String {
    // Lists of strings and numbers: there is nothing in them that JSON cannot say.
    serde_json::to_string(value).expect("text and numbers are JSON")
}

fn is_stale(used: i64, now: i64) -> bool {
    now.abs_diff(used) > RENEWAL.unsigned_abs()
}

/// The stamp for what is used now.
pub(super) fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| since.as_millis().try_into().ok())
        .unwrap_or(0)
}
