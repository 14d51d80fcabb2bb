//! An open cache file: its transactions, the stamps of its rows, and the deletion of old ones.
//! What is read from and written to its tables is in [`super::layers`] and [`super::images`].

use std::fs::File;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::Write;
use super::file::OpenDatabase;
use super::schema::{CacheTable, Limits};

/// How old `used` may get before it is renewed.
pub(super) const RENEWAL: i64 = 24 * 60 * 60 * 1000;

/// How long deletion may take in one run; the next run goes on with it.
const DELETION_TIME: Duration = Duration::from_millis(100);

/// An open cache file.
pub(super) struct CacheStore {
    pub(super) connection: Connection,
    /// Released after the connection: fields are dropped in this order.
    _lock: Option<File>,
    writable: bool,
    /// Rows that were used and have an old stamp: the statement that renews it, and its key.
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

    /// Does all of these writes, or none.
    pub(super) fn write_all(&self, writes: Vec<Write>) -> rusqlite::Result<()> {
        let transaction = self.begin()?;
        for write in writes {
            write(self)?;
        }
        transaction.commit()
    }

    /// Notes that a row was used whose stamp is `used`. `renew` is the statement that sets the stamp
    /// to `?1` where the key is `?2`.
    pub(super) fn note_use(&mut self, used: i64, renew: &'static str, key: &str) {
        if now().abs_diff(used) > RENEWAL.unsigned_abs() {
            self.stale.push((renew, key.to_owned()));
        }
    }

    /// Renews the stamps of rows that were used.
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

    /// Deletes the rows that were not used for longest until the limits hold, a few at a time: each
    /// deletion stays done if the program is killed.
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
        // SQLite uses free pages again; the file is made shorter only where there are many.
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

    /// Begins to write at once: SQLite refuses, without waiting, a reader that turns into a writer
    /// after another process has written.
    fn begin(&self) -> rusqlite::Result<Transaction<'_>> {
        Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)
    }
}

/// The stamp of a row that is used now.
pub(super) fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| since.as_millis().try_into().ok())
        .unwrap_or(0)
}
