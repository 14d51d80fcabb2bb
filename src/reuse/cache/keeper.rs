//! The thread that owns the cache file. It answers queries, and collects writes.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use crossbeam_channel::Receiver;
use rusqlite::ErrorCode;

use super::file::{self, Existing};
use super::schema::Limits;
use super::store::CacheStore;

/// What the thread is asked to do.
pub(super) enum CacheRequest {
    Read(Box<dyn FnOnce(&mut Keeper) + Send>),
    Write(Write),
}

pub(super) type Write = Box<dyn FnOnce(&CacheStore) -> rusqlite::Result<()> + Send>;

/// The state of the thread: the cache file, as long as it can be used.
pub(super) struct Keeper {
    folder: PathBuf,
    store: Option<CacheStore>,
    replaced: bool,
    problem: Arc<OnceLock<String>>,
}

impl Keeper {
    pub(super) fn open(folder: PathBuf, problem: Arc<OnceLock<String>>) -> Self {
        let mut keeper = Self { folder, store: None, replaced: false, problem };
        keeper.reopen(Existing::Keep);
        keeper
    }

    fn reopen(&mut self, existing: Existing) {
        match file::open(&self.folder, existing) {
            Ok(opened) => {
                if let Some(note) = &opened.note {
                    self.note(note);
                }
                self.store = Some(CacheStore::new(opened));
            }
            Err(problem) => self.note(&problem),
        }
    }

    /// Handles requests until the last handle is dropped. Writes that have accumulated share a
    /// transaction. A query sees all writes that were requested before it.
    pub(super) fn serve(mut self, requests: &Receiver<CacheRequest>, limits: &Limits) {
        let mut writes = Vec::new();
        while let Ok(first) = requests.recv() {
            for request in std::iter::once(first).chain(requests.try_iter()) {
                match request {
                    CacheRequest::Write(write) => writes.push(write),
                    CacheRequest::Read(read) => {
                        self.flush(&mut writes);
                        read(&mut self);
                    }
                }
            }
            self.flush(&mut writes);
        }
        self.attempt_write(CacheStore::renew);
        self.attempt_write(|store| store.delete_oldest(limits));
    }

    fn flush(&mut self, writes: &mut Vec<Write>) {
        if !writes.is_empty() {
            let writes = std::mem::take(writes);
            self.attempt_write(|store| store.write_all(writes));
        }
    }

    fn attempt_write(&mut self, write: impl FnOnce(&mut CacheStore) -> rusqlite::Result<()>) {
        if self.store.as_ref().is_some_and(CacheStore::is_writable) {
            self.attempt(write);
        }
    }

    pub(super) fn attempt<T: Default>(
        &mut self,
        query: impl FnOnce(&mut CacheStore) -> rusqlite::Result<T>,
    ) -> T {
        let Some(store) = &mut self.store else {
            return T::default();
        };
        query(store).unwrap_or_else(|error| {
            self.handle(&error);
            T::default()
        })
    }

    /// Gives up the cache, or replaces its file, as an error requires.
    fn handle(&mut self, error: &rusqlite::Error) {
        self.note(&format!("local cache {}: {error}", file::database(&self.folder).display()));
        match error.sqlite_error_code() {
            // Another process is writing, so this write is lost.
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {}
            Some(ErrorCode::ReadOnly | ErrorCode::DiskFull) => {
                if let Some(store) = &mut self.store {
                    store.stop_writing();
                }
            }
            // The last two occur if another program has changed the tables.
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown)
            | None => {
                self.store = None;
                if !std::mem::replace(&mut self.replaced, true) {
                    self.reopen(Existing::Replace);
                }
            }
            _ => self.store = None,
        }
    }

    fn note(&self, problem: &str) {
        // Keep only the first problem, because later ones usually follow from it.
        let _ = self.problem.set(problem.to_owned());
    }
}
