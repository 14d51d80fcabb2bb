//! An open cache file: its transactions, the stamps of its rows, and the deletion of old ones.
//! What is read from and written to its tables is in [`super::layers`] and [`super::images`].

use std::fs::File;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::Write;
use super::file::OpenDatabase;
use super::schema::{CacheTable, Limits};

/// How old `used` may become before it is renewed.
pub(super) const RENEWAL: i64 = 24 * 60 * 60 * 1000;

/// How long one run may spend on deletion. The next run continues.
const DELETION_TIME: Duration = Duration::from_millis(100);

/// An open cache file.
pub(super) struct CacheStore {
    pub(super) connection: Connection,
    /// Dropped after the connection, because fields are dropped in this order.
    _lock: Option<File>,
    writable: bool,
    /// Rows that were used and have an old `used` value: the statement that renews it, and the key.
    stale: Vec<(&'static str, String)>,
}

impl CacheStore {
    pub(super) fn new(opened: OpenDatabase) -> Self {
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

    /// Executes all of these writes in one transaction.
    pub(super) fn write_all(&self, writes: Vec<Write>) -> rusqlite::Result<()> {
        let transaction = self.begin()?;
        for write in writes {
            write(self)?;
        }
        transaction.commit()
    }

    /// Records that a row was used. `used` is its stored time. `renew` is the statement that sets
    /// the time to `?1` for the key `?2`.
    pub(super) fn note_use(&mut self, used: i64, renew: &'static str, key: &str) {
        if now().abs_diff(used) > RENEWAL.unsigned_abs() {
            self.stale.push((renew, key.to_owned()));
        }
    }

    /// Updates `used` of the rows that were used.
    pub(super) fn renew(&mut self) -> rusqlite::Result<()> {
        let stale = std::mem::take(&mut self.stale);
        if stale.is_empty() {
            return Ok(());
        }
        let transaction = self.begin()?;
        for (renew, key) in stale {
            self.connection.prepare_cached(renew)?.execute((now(), key))?;
        }
        transaction.commit()
    }

    /// Deletes the least recently used rows until the limits are met, a few at a time, so that
    /// finished deletions are kept if the program is killed.
    pub(super) fn delete_oldest(&mut self, limits: &Limits) -> rusqlite::Result<()> {
        let give_up = Instant::now() + DELETION_TIME;
        for (CacheTable { name, key, .. }, most_rows, most_bytes, at_once) in limits.of_tables() {
            let delete = format!(
                "DELETE FROM {name} WHERE ({key}) IN
                     (SELECT {key} FROM {name} ORDER BY used LIMIT ?1)"
            );
            while Instant::now() < give_up {
                let (rows, bytes) = self.tally(name)?;
                if rows <= most_rows && bytes <= most_bytes {
                    break;
                }
                let excess = rows.saturating_sub(most_rows).clamp(1, at_once);
                if self.connection.execute(&delete, [excess])? == 0 {
                    break;
                }
            }
        }
        let pages =
            |pragma| self.connection.pragma_query_value(None, pragma, |row| row.get::<_, u64>(0));
        // SQLite reuses free pages. The file is only made shorter if it has many.
        let (free, all) = (pages("freelist_count")?, pages("page_count")?);
        if free > 256 && free > all / 4 {
            // One step frees one page.
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

    /// Begins a write transaction immediately. If a read transaction became a write transaction
    /// after another process has written, SQLite would refuse without waiting.
    fn begin(&self) -> rusqlite::Result<Transaction<'_>> {
        Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)
    }
}

/// The value of `used` for a row that is used now.
pub(super) fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| since.as_millis().try_into().ok())
        .unwrap_or(0)
}
